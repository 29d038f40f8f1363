#!/usr/bin/env python3
"""pgherd beside PgBouncer and pgpool-II, on one machine in one run.

Starts a private primary with two standbys and the proxies in front of them, and measures them in turn, several rounds, the order
changing from round to round. Prints Markdown: throughput, mean and 99th percentile, the CPU time of the proxy per transaction
(the figure that noise disturbs least), memory, and which of the design's numbers hold.

    benches/compare/run.py                                            everything, about an hour
    benches/compare/run.py --only simple --clients 16,64 --rounds 1 --seconds 3

Needs PostgreSQL's server programs, pgbench, openssl; PgBouncer and pgpool-II are left out if they are missing
(benches/compare/install.sh installs them). Uses a temporary folder and free ports of 127.0.0.1, and leaves nothing behind.
"""

import argparse
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import load  # noqa: E402
import report  # noqa: E402
from stage import MOST_PER_NODE, Stage, Target, fail, program  # noqa: E402

SECTIONS = {
    "simple": "The simple protocol",
    "extended": "The extended protocol",
    "prepared": "Prepared statements",
    "equal": "The simple protocol at equal total numbers of server connections",
    "reconnect": "A connection for each transaction, trust",
    "reconnect-scram": "A connection for each transaction, SCRAM",
    "tls": "TLS to the client, simple protocol",
    "bulk": "Large results and COPY",
    "pinned": "One client, everything pinned to one CPU",
    "scale": "One and two data threads; one, two and three servers",
    "floor": "A bare relay of the same shape, which reads no message",
    "storm": "All clients connect at the same moment",
    "memory": "Memory",
}


class Comparison:
    def __init__(self, options):
        self.options, self.stage, self.results, self.notes = options, Stage(options), {}, []
        self.running = {}

    # What there is to measure.

    def labelled(self, kind, label, **more):
        return Target(label, kind, self.options.pool, **more)

    def peers(self, session=True, **more):
        """Everyone, in transaction mode; pgherd in session mode as well."""
        options = self.options
        found = [self.labelled("direct", "direct", tls=more.get("tls", False))]
        if options.pgbouncer:
            found.append(self.labelled("pgbouncer", f"PgBouncer {options.pgbouncer_text}", **more))
        if options.pgpool:
            found.append(self.labelled("pgpool", f"pgpool-II {options.pgpool_text}", **more))
        if options.pgherd:
            found.append(self.labelled("pgherd", "pgherd", **more))
            if session:
                found.append(self.labelled("pgherd", "pgherd, session mode", mode="session", **more))
        return found

    def for_prepared(self):
        """PgBouncer before 1.21 has no prepared statements in transaction mode."""
        targets = self.peers()
        if self.options.pgbouncer and not self.options.prepares:
            for target in targets:
                if target.kind == "pgbouncer":
                    target.mode, target.label = "session", target.label + ", session mode"
            self.note(f"PgBouncer {self.options.pgbouncer_text} has no prepared statements in transaction mode: it is measured in session "
                      "mode there, with a server connection for each client, which is less work.")
        return targets

    def for_equal(self):
        pool = self.options.pool
        found = []
        if self.options.pgbouncer:
            text = self.options.pgbouncer_text
            found += [Target(f"PgBouncer {text}, 1 × {pool}", "pgbouncer", pool), Target(f"PgBouncer {text}, 1 × {3 * pool}", "pgbouncer", 3 * pool)]
        if self.options.pgherd:
            found += [Target(f"pgherd, 3 × {pool // 3}", "pgherd", pool // 3), Target(f"pgherd, 3 × {pool}", "pgherd", pool)]
        return found

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    # Starting and stopping.

    def fitted(self, target, clients):
        """The target with a pool that lets so many clients work; None if it cannot."""
        most = target.clients()
        if most is not None and clients > most:
            return None
        if target.one_to_one():
            return target.again(pool=max(target.pool, clients))
        return target

    def brought(self, target):
        """Running: a shared pool stays up while its section lasts, the others are started for one case."""
        if target.one_to_one():
            return self.stage.bring(target)
        key = id(target)
        if key not in self.running:
            self.running[key] = self.stage.bring(target)
        return self.running[key]

    def released(self, target):
        if target.one_to_one():
            self.stage.take_away(target)

    def stop_all(self):
        for target in self.running.values():
            self.stage.take_away(target)
        self.running.clear()

    # Measuring.

    def rounds(self, section, case, targets, measure, clients=1):
        """Runs `measure` on each target in turn, round after round, and keeps what came out."""
        cells = {target.label: [] for target in targets}
        for number in range(self.options.rounds):
            turn = number % len(targets)
            for target in targets[turn:] + targets[:turn]:
                fitted = self.fitted(target, clients)
                if fitted is None or cells[target.label] is None:
                    cells[target.label] = None
                    continue
                running = self.brought(fitted)
                try:
                    value = measure(running)
                finally:
                    self.released(running)
                # A case that failed once is no case: what is missing must not look like a result.
                cells[target.label] = None if value is None else cells[target.label] + [value]
        for label, cell in cells.items():
            self.results[section, case, label] = cell
        print(f"  {section}, {case}: done after {time.monotonic() - self.begun:.0f} s", file=sys.stderr, flush=True)

    def loads(self, section, targets, protocol, most=None):
        for clients in self.options.clients:
            if most and clients > most:
                continue
            self.rounds(section, f"{clients} client{'s' if clients > 1 else ''}", targets,
                        lambda target, c=clients: load.pgbench(self.stage, target, protocol, c, self.options.seconds), clients)

    def run_section(self, section):
        stage, options = self.stage, self.options
        if section in ("simple", "extended"):
            self.loads(section, self.peers(), section)
        elif section == "prepared":
            self.loads(section, self.for_prepared(), section)
        elif section == "equal":
            self.loads(section, self.for_equal(), "simple", 500)
        elif section.startswith("reconnect"):
            scram = section.endswith("scram")
            targets = [target for target in self.peers(False, scram=scram) if not (scram and target.kind == "direct")]
            for clients in (16,):
                self.rounds(section, f"{clients} clients", targets,
                            lambda target: load.pgbench(stage, target, "connect", clients, options.seconds, 1.0), clients)
        elif section == "tls":
            self.loads(section, self.peers(False, tls=True), "simple", 64)
        elif section == "bulk":
            self.bulk()
        elif section == "pinned":
            self.pinned()
        elif section == "scale":
            self.scale()
        elif section == "floor":
            self.floor()
        elif section == "storm":
            self.storm()
        elif section == "memory":
            self.memory()
        self.stop_all()

    def bulk(self):
        size = int(self.options.gigabytes * 1e9)
        for kind in ("rows", "value", "copy out", "copy in"):
            self.rounds("bulk", kind, self.peers(), lambda target: load.bulk(self.stage, target, kind, size))

    def pinned(self):
        """The servers, the proxies and pgbench share one CPU; the others are left to the rest of the machine."""
        all_cpus = os.sched_getaffinity(0)
        one = {min(all_cpus)}
        targets = self.peers(False)
        try:
            os.sched_setaffinity(0, one)
            for process in self.stage.servers:
                process.pin(one)

            def measure(target):
                if target.process:
                    target.process.pin(one)
                return load.pgbench(self.stage, target, "simple", 1, self.options.seconds)

            self.rounds("pinned", "1 client", targets, measure)
        finally:
            os.sched_setaffinity(0, all_cpus)
            for process in self.stage.servers:
                process.pin(all_cpus)

    def scale(self):
        if not self.options.pgherd:
            return
        for threads in (1, 2):
            # PgBouncer has one thread.
            targets = [target for target in self.peers(False) if target.kind == "pgbouncer" and threads == 1]
            targets.append(Target("pgherd", "pgherd", self.options.pool, threads=threads))
            for clients in (16, 64):
                self.rounds("scale", f"{threads} data thread{'s' if threads > 1 else ''}, {clients} clients", targets,
                            lambda running, c=clients: load.pgbench(self.stage, running, "simple", c, self.options.seconds), clients)
            self.stop_all()
        for nodes in (1, 2, 3):
            target = Target("pgherd", "pgherd", self.options.pool, nodes=nodes)
            self.rounds("scale", f"{nodes} server{'s' if nodes > 1 else ''}", [target],
                        lambda running: load.pgbench(self.stage, running, "simple", 64, self.options.seconds), 64)

    def floor(self):
        """What is left to save: each with its server connections to the primary alone."""
        targets = [target for target in self.peers(False, nodes=1) if target.kind in ("pgbouncer", "pgherd")]
        for threads in (1, 2) if self.options.relay else ():
            targets.append(Target(f"bare relay, {threads} thread{'s' if threads > 1 else ''}", "relay", threads=threads))
        if self.options.pgherd:
            targets.append(Target("pgherd, 1 thread", "pgherd", self.options.pool, threads=1, nodes=1))
        for clients in (1, 16):
            self.rounds("floor", f"{clients} client{'s' if clients > 1 else ''}", targets,
                        lambda running, c=clients: load.pgbench(self.stage, running, "simple", c, self.options.seconds), clients)

    def storm(self):
        """Proxies without any server connection open, so that opening them is part of it."""
        for count in self.options.storm:
            targets = [target for target in self.peers(False) if target.kind in ("pgbouncer", "pgherd")]

            def measure(target):
                fresh = self.stage.bring(target.again())
                try:
                    result = load.storm(fresh, count)
                    result["burst"] = self.opened_at_once()
                finally:
                    self.stage.take_away(fresh)
                return result

            self.rounds("storm", f"{count:,}", targets, measure)
            self.stop_all()

    def opened_at_once(self):
        """The most server connections to one server that began within 10 ms of each other."""
        most = 0
        for port in self.stage.ports:
            sql = ("SELECT coalesce(max(n), 0) FROM (SELECT count(*) OVER (ORDER BY backend_start RANGE BETWEEN CURRENT ROW AND "
                   "'10 ms' FOLLOWING) AS n FROM pg_stat_activity WHERE datname = 'bench') AS w")
            most = max(most, int(self.stage.psql(port, sql)))
        return most

    def memory(self):
        shared = [target for target in self.peers(False) if target.kind in ("pgbouncer", "pgherd")]
        for count in self.options.idle:
            self.rounds("memory", f"{count:,} idle clients", shared, lambda target: self.fresh(target, lambda t: load.idle(t, count)))
        if self.options.idle:
            count = min(2000, max(self.options.idle))
            secure = [target.again(tls=True) for target in shared]
            self.rounds("memory", f"{count:,} idle clients, TLS", secure,
                        lambda target: self.fresh(target, lambda t: load.idle(t, count, True)))
        if self.options.pgpool and self.options.idle:
            count = min(200, *self.options.idle)
            target = self.labelled("pgpool", f"pgpool-II {self.options.pgpool_text}")
            self.rounds("memory", f"{count:,} idle clients", [target], lambda running: load.idle(running, count), count)
            self.note(f"pgpool-II has a process and three server connections for each client, so {count} idle clients stand for more. Its "
                      "processes exist before the clients come; its memory is the sum of their proportional shares (PSS).")
        load_after = [target for target in self.peers(False) if target.process is None and target.kind != "direct"]

        def loaded(target):
            before = target.process.resident()
            if load.pgbench(self.stage, target, "simple", 64, self.options.seconds) is None:
                return None
            return {"before": before, "after": target.process.resident()}

        self.rounds("memory", "after 64 clients at work", load_after,
                    lambda target: loaded(target) if target.one_to_one() else self.fresh(target, loaded), 64)

    def fresh(self, target, measure):
        """Measures a target that was just started and has seen nothing."""
        fresh = self.stage.bring(target.again())
        try:
            return measure(fresh)
        finally:
            self.stage.take_away(fresh)

    # Telling.

    def head(self):
        postgres = self.stage.psql(self.stage.ports[0], "SHOW server_version").split()[0]
        with open("/proc/cpuinfo") as file:
            model = re.search(r"model name\s*: (.*)", file.read())
        names = [f"PgBouncer {self.options.pgbouncer_text}"] * bool(self.options.pgbouncer) + \
                [f"pgpool-II {self.options.pgpool_text}"] * bool(self.options.pgpool) + ["pgherd"] * bool(self.options.pgherd)
        return (f"{os.cpu_count()} cores ({model[1].strip() if model else platform.machine()}), {platform.system()} {platform.release()}, "
                f"PostgreSQL {postgres}, {', '.join(names)}. pgbench -S at scale {self.options.scale}; pools of {self.options.pool} server "
                f"connections per server; medians of {self.options.rounds} interleaved rounds of {self.options.seconds} s, lowest and "
                f"highest in brackets. Load of the machine before the run: {self.load:.1f}.")

    def everything(self):
        self.begun, self.load = time.monotonic(), os.getloadavg()[0]
        self.stage.cluster()
        print(self.head(), flush=True)
        self.note("Session mode and pgpool-II need a server connection for each client: their pools are as large as there are clients, and "
                  f"above {MOST_PER_NODE} clients they are left out. A dash: this case is not possible, or a client got an error.")
        for section in self.options.only:
            self.run_section(section)
            kind = section if section in report.TABLES else "load"
            text = report.TABLES.get(kind, report.load_table)(self.results, section)
            print(f"\n## {SECTIONS[section]}\n\n{text}", flush=True)
        print("\n## Numbers to hold\n\n" + report.Bars(self.results).text())
        print("\n" + "\n".join(f"- {note}" for note in self.notes), flush=True)
        self.keep()

    def keep(self):
        if self.options.json:
            rows = [{"section": s, "case": c, "through": t, "rounds": cell} for (s, c, t), cell in self.results.items()]
            with open(self.options.json, "w") as file:
                json.dump({"head": self.head(), "notes": self.notes, "results": rows}, file, indent=1, ensure_ascii=False)
        drawn = report.chart(self.results, f"{os.cpu_count()} cores, medians of {self.options.rounds} rounds of {self.options.seconds} s")
        if self.options.svg and drawn:
            with open(self.options.svg, "w") as file:
                file.write(drawn)


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def version(path, argument="--version"):
    done = subprocess.run([path, argument], capture_output=True, text=True, check=False)
    return re.search(r"(\d+)\.(\d+)[.\d]*", done.stdout + done.stderr) or fail(f"{path} does not tell its version")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgherd", default="target/release/pgherd", help="the binary, a release build; empty: without it")
    parser.add_argument("--pgbouncer", help="the binary; from the PATH by default; empty: without it")
    parser.add_argument("--pgbouncer-extra", default="", help="further lines of pgbouncer.ini, divided by ;")
    parser.add_argument("--pgpool", help="the binary; from the PATH by default; empty: without it")
    parser.add_argument("--relay", help="the bare relay, a release build; without it by default")
    parser.add_argument("--bin", help="folder of PostgreSQL's programs; the newest of /usr/lib/postgresql by default")
    parser.add_argument("--only", default=",".join(SECTIONS), help="of " + ", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6, help="of one round of one case")
    parser.add_argument("--clients", default="1,16,64,500,5000", type=numbers)
    parser.add_argument("--pool", type=int, default=20, help="connections of a pool to one server")
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--idle", default="2000,10000", type=numbers, help="numbers of idle clients")
    parser.add_argument("--storm", default="5000", type=numbers, help="numbers of clients that connect at once")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each large result")
    parser.add_argument("--json", help="write all results there")
    parser.add_argument("--svg", help="draw the chart there")
    return parser.parse_args()


def prepared_options():
    """What was said, made into what is meant."""
    options = arguments()
    options.only = [name for name in options.only.split(",") if name]
    for name in options.only:
        if name not in SECTIONS:
            fail(f"{name} is none of {', '.join(SECTIONS)}")
    if options.pgherd and not os.access(options.pgherd, os.X_OK):
        fail(f"{options.pgherd} is not a program: cargo build --release, or --pgherd PATH")
    options.pgbouncer = program("pgbouncer") if options.pgbouncer is None else options.pgbouncer
    options.pgpool = program("pgpool") if options.pgpool is None else options.pgpool
    for name, there in (("PgBouncer", options.pgbouncer), ("pgpool-II", options.pgpool)):
        if not there:
            print(f"  without {name}", file=sys.stderr)
    options.pgbouncer_text, options.prepares, options.pgpool_text, options.pgpool_version = "", False, "", (0, 0)
    if options.pgbouncer:
        found = version(options.pgbouncer)
        options.pgbouncer_text, options.prepares = found[0], (int(found[1]), int(found[2])) >= (1, 21)
        if options.prepares and "max_prepared_statements" not in options.pgbouncer_extra:
            options.pgbouncer_extra += ";max_prepared_statements = 200"
    if options.pgpool:
        found = version(options.pgpool)
        options.pgpool_text, options.pgpool_version = found[0], (int(found[1]), int(found[2]))
    options.most_clients = max([*options.idle, *options.storm, *options.clients, 0]) + 2000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < options.most_clients + 1000:
        fail(f"the limit of open files is {hard}: raise it above {options.most_clients + 1000}, or ask for fewer idle clients")
    return options


def main():
    # Ended from outside, everything is still taken away.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    comparison = Comparison(prepared_options())
    try:
        comparison.everything()
    finally:
        comparison.stage.close()


if __name__ == "__main__":
    main()
