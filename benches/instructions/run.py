#!/usr/bin/env python3
"""Instructions in user space that one statement costs pgherd, all of its way through: counted, not timed, so that a busy machine
does not matter.

For each case pgbench runs N and then 2 N transactions through a pgherd of its own with one data thread under callgrind; the
difference divided by N is one transaction, without start, logins, health checks and stop. Reads go to a standby.

    benches/instructions/run.py                   compares with benches/instructions/counts.toml, a table per kind of build
    benches/instructions/run.py --write           writes what it counted there

Exit status 1: a case costs more than the tolerance above the kept count. One that costs less is told, and is no failure.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "compare"))
sys.dont_write_bytecode = True

from stage import DATABASE, Stage, fail, free_port, program, wait_for  # noqa: E402

COUNTS = os.path.join(HERE, "counts.toml")
SELECT = "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
# Name: how pgbench sends it, and its script.
CASES = {
    "simple": ("simple", SELECT),
    "extended": ("extended", SELECT),
    "prepared": ("prepared", SELECT),
    "block": ("simple", SELECT.replace("SELECT abalance", "BEGIN;\nSELECT abalance") + "COMMIT;\n"),
}
TITLES = {
    "simple": "SELECT, simple protocol",
    "extended": "SELECT, extended protocol",
    "prepared": "SELECT, prepared once",
    "block": "BEGIN, SELECT, COMMIT, simple protocol",
}


class Counter:
    def __init__(self, options):
        self.options, self.stage = options, Stage(options)

    def config(self, port):
        stage = self.stage
        hba = stage.write("hba.conf", "host all all 127.0.0.1/32 trust\n")
        # Whatever runs by the clock instead of by the statement is made rare, and slow answers are no fault.
        nodes = "".join(f'[[node]]\nid = {n}\nname = "node{n}"\nhost = "127.0.0.1"\nport = {at}\nweight = {n}.0\nsslmode = "disable"\n'
                        for n, at in enumerate(stage.ports))
        return stage.write(f"pgherd-{port}.toml", (
            f'pid_file = "{stage.folder}/pgherd-{port}.pid"\n[listen]\naddresses = ["127.0.0.1"]\nport = {port}\n'
            f'unix_socket_directories = []\nthreads = 1\n[pool]\nsize = 4\n[auth]\nhba_file = "{hba}"\n'
            f'[monitor]\nuser = "postgres"\ndatabase = "postgres"\n[pcp]\naddresses = []\n'
            f'[health_check]\nperiod = "20s"\ntimeout = "20s"\nretry_delay = "5s"\n{nodes}'))

    def start(self, case):
        """A pgherd under callgrind, not ready yet: its port and process."""
        port, stage = free_port(), self.stage
        command = [self.options.valgrind, "--tool=callgrind", f"--callgrind-out-file={stage.folder}/callgrind-{port}.out",
                   stage.pgherd_program, "run", "--config", self.config(port)]
        return port, stage.start(f"callgrind-{case}", command, True, signal.SIGINT)

    def pgbench(self, ports, case, transactions):
        """Runs pgbench through each of the ports at the same time, with as many transactions as it is given for it."""
        protocol, text = CASES[case]
        script = self.stage.write(f"{case}.sql", text, 0o644)
        running = [subprocess.Popen([self.stage.program("pgbench"), "-p", str(port), "-n", "-M", protocol, "-c", "1", "-t", str(count),
                                     "-f", script, DATABASE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                    env=self.stage.environment) for port, count in zip(ports, transactions)]
        for one in running:
            said = one.communicate(timeout=600)[1]
            if one.returncode != 0:
                fail(f"pgbench: {said}")

    def on_standby(self, connections):
        sql = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'"
        return int(self.stage.psql(self.stage.ports[1], sql)) >= connections

    def totals(self, case):
        """Instructions of the whole lives of two pgherds with N and 2 N transactions; None if reads did not go to the standby."""
        stage, several = self.stage, self.options.transactions
        pair = [self.start(case) for _ in range(2)]
        ports = [port for port, _ in pair]
        try:
            for port, process in pair:
                wait_for("pgherd under callgrind", lambda: stage.answers(port, process), 120)
            # What it knows of the database is read in the background; until then reads go to the primary. Always the same number of
            # logins, for they cost more than the statements: waiting is done elsewhere.
            self.pgbench(ports, case, (1, 1))
            time.sleep(self.options.pause)
            self.pgbench(ports, case, (1, 1))
            if not self.on_standby(2):
                return None
            self.pgbench(ports, case, (several, 2 * several))
        finally:
            for _, process in pair:
                process.stop()
                stage.processes.remove(process)
        return [self.collected(process) for _, process in pair]

    def collected(self, process):
        with open(process.log) as log:
            said = log.read()
        counted = re.search(r"Collected\s*:\s*(\d+)", said)
        return int(counted[1]) if counted else fail(f"callgrind said nothing of what it counted:\n{said[-2000:]}")

    def count(self, case):
        for _ in range(3):
            if (found := self.totals(case)) is not None:
                return round((found[1] - found[0]) / self.options.transactions)
            # On a slow machine the background work takes longer.
            self.options.pause *= 2
        fail("reads do not go to the standby")

    def all(self):
        self.stage.cluster(standbys=1)
        return {case: self.count(case) for case in self.options.only}


def compiler():
    """The version that code is compiled with here; another one makes other code."""
    done = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found[0] if found else "unknown"


def kept():
    """The tables of counts.toml: name → case → count."""
    tables, table = {}, None
    if os.path.exists(COUNTS):
        with open(COUNTS) as file:
            for line in file:
                if head := re.fullmatch(r"\[(.+)\]", line.strip()):
                    table = tables.setdefault(head[1], {})
                elif pair := re.fullmatch(r"(\w+) = (\d+)", line.strip()):
                    table[pair[1]] = int(pair[2])
                elif version := re.fullmatch(r'rustc = "(.+)"', line.strip()):
                    table["rustc"] = version[1]
    return tables


def write(tables):
    with open(COUNTS, "w") as file:
        file.write("# Instructions in user space that one transaction costs pgherd, by kind of build, as benches/instructions/run.py counts\n"
                   "# them; see benches/README.md. Written by `benches/instructions/run.py --write`: say in the commit what made them change.\n")
        for name, counts in sorted(tables.items()):
            file.write(f'\n[{name}]\nrustc = "{counts["rustc"]}"\n')
            file.write("".join(f"{case} = {counts[case]}\n" for case in CASES if case in counts))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgherd", default="target/release/pgherd")
    parser.add_argument("--build", default="release", help="the table of counts.toml to compare with")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default=",".join(CASES), type=lambda text: text.split(","))
    parser.add_argument("--transactions", type=int, default=5000, help="N; the second run has twice as many")
    parser.add_argument("--tolerance", type=float, default=5.0, help="percent")
    parser.add_argument("--bin", help="folder of PostgreSQL's programs")
    options = parser.parse_args()
    options.scale, options.pause = 1, 2.0
    options.valgrind = program("valgrind") or fail("valgrind not found; apt-get install valgrind")
    if not os.access(options.pgherd, os.X_OK):
        fail(f"{options.pgherd} is not a program")
    return options


def judge(options, before, now):
    """Prints the table; whether nothing costs more than it may."""
    well, tolerance = True, options.tolerance
    if before and before["rustc"] != compiler():
        tolerance *= 3
        print(f"Kept with rustc {before['rustc']}, here is {compiler()}: {tolerance:.0f} % are allowed.")
    print("| a transaction | kept | now | change |\n| --- | ---: | ---: | ---: |")
    for case, count in now.items():
        old = before.get(case)
        change = (count - old) / old * 100 if old else None
        slower = change is not None and change > tolerance
        well &= not slower
        shown = "new" if change is None else f"{change:+.1f} %{' **too much**' if slower else ''}"
        print(f"| {TITLES[case]} | {f'{old:,}' if old else '–'} | {count:,} | {shown} |")
        if change is not None and change < -tolerance:
            print(f"  {case} costs less than what is kept: benches/instructions/run.py --write keeps it", file=sys.stderr)
    return well


def main():
    options = arguments()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    counter = Counter(options)
    try:
        now = counter.all()
    finally:
        counter.stage.close()
    tables = kept()
    well = judge(options, tables.get(options.build, {}), now)
    if options.write:
        tables[options.build] = {**tables.get(options.build, {}), **now, "rustc": compiler()}
        write(tables)
    elif not well:
        sys.exit(1)


if __name__ == "__main__":
    main()
