#!/usr/bin/env python3
"""pgherd beside PgBouncer, side by side on one machine in one run.

Starts a private primary with two standbys, PgBouncer on the primary and pgherd on all three; then for each case several
interleaved rounds of pgbench through each. Prints tables in Markdown: throughput, latency, and the proxy's CPU time per
transaction, which is the figure that noise disturbs least; and the memory of idle clients.

    benches/compare/run.py --pgherd target/release/pgherd

Needs PostgreSQL's server programs, pgbench and pgbouncer (Debian: apt-get install postgresql pgbouncer). As root the servers
run as `nobody`. Uses a temporary folder and free ports of 127.0.0.1, and leaves nothing behind.
"""

import argparse
import glob
import json
import os
import platform
import pwd
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

USER = "postgres"
TICK = os.sysconf("SC_CLK_TCK")


def fail(text):
    sys.exit(f"run.py: {text}")


def as_owner(command):
    """PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", *command]


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    fail(f"{what}: not within {seconds} s")


class Process:
    """A program in the background; its output goes to a file beside its data."""

    def __init__(self, name, command, folder, owned):
        self.name, self.log = name, os.path.join(folder, name + ".log")
        with open(self.log, "w") as log:
            command = as_owner(command) if owned else command
            self.child = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)

    def check(self):
        if self.child.poll() is not None:
            with open(self.log) as log:
                fail(f"{self.name} ended:\n{log.read()[-3000:]}")

    def cpu(self):
        """User and system time of all its threads, in seconds."""
        with open(f"/proc/{self.child.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def resident(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.child.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) * 1024

    def stop(self, how):
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()


class Bench:
    """The private cluster and both proxies."""

    def __init__(self, options):
        self.options, self.processes = options, []
        self.folder = tempfile.mkdtemp(prefix="pgherd-compare-")
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        versions = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
        self.bin = options.bin or (versions[-1] if versions else None) or fail("no PostgreSQL server programs found")

    def program(self, name):
        found = os.path.join(self.bin, name)
        return found if os.path.exists(found) else shutil.which(name) or fail(f"{name} not found")

    def start(self, name, command, owned=True):
        process = Process(name, command, self.folder, owned)
        self.processes.append(process)
        return process

    def psql(self, port, sql):
        return run([self.program("psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", "postgres", "-c", sql]).strip()

    def answers(self, port, process):
        process.check()
        ready = [self.program("psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", "postgres", "-c", "SELECT 1"]
        return subprocess.run(ready, capture_output=True, check=False).returncode == 0

    def server(self, name, data, port):
        with open(os.path.join(data, "postgresql.auto.conf"), "a") as conf:
            conf.write(f"\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 200\n"
                       "shared_buffers = '256MB'\nfsync = off\nwal_keep_size = '512MB'\nmax_wal_senders = 10\n")
        process = self.start(name, [self.program("postgres"), "-D", data])
        wait_for(name, lambda: self.answers(port, process))

    def cluster(self):
        data = os.path.join(self.folder, "primary")
        run(as_owner([self.program("initdb"), "-U", USER, "-A", "trust", "-N", "--locale=C", "-E", "UTF8", "-D", data]), cwd=self.folder)
        self.ports = [free_port() for _ in range(3)]
        self.server("primary", data, self.ports[0])
        run([self.program("pgbench"), "-i", "-q", "-s", str(self.options.scale), "-h", "127.0.0.1", "-p", str(self.ports[0]),
             "-U", USER, "postgres"])
        for number, port in enumerate(self.ports[1:], 1):
            data = os.path.join(self.folder, f"standby{number}")
            run(as_owner([self.program("pg_basebackup"), "-R", "-N", "-c", "fast", "-h", "127.0.0.1", "-p", str(self.ports[0]),
                          "-U", USER, "-D", data]), cwd=self.folder)
            self.server(f"standby{number}", data, port)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def pgbouncer(self):
        port, most = free_port(), self.options.idle + 2000
        users = self.write("users.txt", f'"{USER}" ""\n')
        config = self.write("pgbouncer.ini", (
            f"[databases]\npostgres = host=127.0.0.1 port={self.ports[0]}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {self.options.pool}\nmax_client_conn = {most}\nlog_connections = 0\nlog_disconnections = 0\n"
            "ignore_startup_parameters = extra_float_digits\n" + self.options.pgbouncer_extra.replace(";", "\n") + "\n"))
        program = self.options.pgbouncer or shutil.which("pgbouncer") or fail("pgbouncer not found")
        version = run([program, "--version"]).split()[1]
        process = self.start("pgbouncer", [program, config])
        wait_for("pgbouncer", lambda: self.answers(port, process))
        return Target(f"PgBouncer {version}", port, process, tuple(map(int, version.split(".")[:2])) >= (1, 21))

    def pgherd(self):
        port, most = free_port(), self.options.idle + 2000
        hba = self.write("pgherd_hba.conf", "host all all 127.0.0.1/32 trust\n")
        nodes = "".join(f'[[node]]\nid = {n}\nname = "node{n}"\nhost = "127.0.0.1"\nport = {p}\nsslmode = "disable"\nmax_connections = 150\n'
                        for n, p in enumerate(self.ports))
        config = self.write("pgherd.toml", (
            f'pid_file = "{self.folder}/pgherd.pid"\n'
            f'[listen]\naddresses = ["127.0.0.1"]\nport = {port}\nunix_socket_directories = []\nmax_clients = {most}\n'
            f'[pool]\nsize = {self.options.pool}\nmin_size = 0\n[auth]\nhba_file = "{hba}"\n'
            f'[monitor]\nuser = "{USER}"\ndatabase = "postgres"\n[pcp]\naddresses = []\n{nodes}'))
        process = self.start("pgherd", [os.path.abspath(self.options.pgherd), "run", "--config", config], owned=False)
        wait_for("pgherd", lambda: self.answers(port, process))
        return Target("pgherd", port, process, True)

    def close(self):
        for process in reversed(self.processes):
            process.stop(signal.SIGINT if process.name.startswith(("primary", "standby")) else signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)


class Target:
    def __init__(self, name, port, process, prepared):
        self.name, self.port, self.process, self.prepared = name, port, process, prepared


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def measure(bench, target, protocol, clients, seconds):
    """One pgbench run; None if this proxy does not support the case."""
    if protocol == "prepared" and not target.prepared:
        return None
    prefix = os.path.join(bench.folder, "latency")
    mode = ["-C", "-M", "simple"] if protocol == "connect" else ["-M", protocol]
    command = [bench.program("pgbench"), "-h", "127.0.0.1", "-p", str(target.port), "-U", USER, "-S", "-n", *mode, "-c", str(clients),
               "-j", str(min(clients, 2)), "-T", str(seconds), "-l", "--sampling-rate=0.2", f"--log-prefix={prefix}", "postgres"]
    before = target.process.cpu() if target.process else 0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used = target.process.cpu() - before if target.process else 0
    latencies = []
    for path in glob.glob(prefix + "*"):
        with open(path) as log:
            latencies += [int(line.split()[2]) for line in log if not line.split()[2].startswith(("f", "s"))]
        os.remove(path)
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    tps = re.search(r"tps = ([\d.]+)", done.stdout)
    mean = re.search(r"latency average = ([\d.]+)", done.stdout)
    if done.returncode != 0 or not (count and tps and mean):
        print(f"  {target.name}: {done.stderr.strip()[-500:]}", file=sys.stderr)
        return None
    return {"tps": float(tps[1]), "cost": used / max(1, int(count[1])) * 1e6, "mean": float(mean[1]),
            "p99": percentile(latencies, 0.99) / 1000}


def compare(bench, targets):
    results = {}
    for protocol in bench.options.protocols.split(","):
        for clients in map(int, bench.options.clients.split(",")):
            rounds = {target.name: [] for target in targets}
            for number in range(bench.options.rounds):
                # The order changes from round to round: what warms up or cools down meets each of them.
                for target in targets[number % len(targets):] + targets[:number % len(targets)]:
                    rounds[target.name].append(measure(bench, target, protocol, clients, bench.options.seconds))
            for target in targets:
                good = [value for value in rounds[target.name] if value]
                whole = good and len(good) == bench.options.rounds
                middle = {key: statistics.median(value[key] for value in good) for key in good[0]} if whole else None
                results[protocol, clients, target.name] = middle
            print(f"  {protocol}, {clients} clients: done", file=sys.stderr)
    return results


def cells(value, straight):
    if value is None:
        return ["–", "–", "–", "–"]
    cost = "" if straight else f"{value['cost']:.1f}"
    return [f"{value['tps']:,.0f}", cost, f"{value['mean']:.2f}", f"{value['p99']:.2f}"]


def table(results, targets):
    head = ["case"] + [f"{t.name}: {what}" for t in targets for what in ("tps", "µs/tx", "mean ms", "p99 ms")]
    proxies = [t for t in targets if t.process]
    if len(proxies) == 2:
        head.append("cost ratio")
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for protocol, clients in dict.fromkeys(key[:2] for key in results):
        row = [f"{protocol}, {clients}"]
        for target in targets:
            row += cells(results[protocol, clients, target.name], target.process is None)
        if len(proxies) == 2:
            base, ours = (results[protocol, clients, proxy.name] for proxy in proxies)
            row.append(f"{ours['cost'] / base['cost']:.2f}" if base and ours and base["cost"] else "–")
        lines.append(row)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def log_in(port):
    """A raw client that logs in and then says nothing."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    body = struct.pack("!i", 196608) + b"".join(
        part.encode() + b"\0" for part in ("user", USER, "database", "postgres")) + b"\0"
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    received = b""
    # ReadyForQuery is the last message of a login: Z, length 5, I.
    while not received.endswith(b"Z\0\0\0\x05I"):
        chunk = client.recv(4096)
        if not chunk or received[:1] == b"E":
            fail(f"an idle client was not let in: {received!r}")
        received += chunk
    return client


def idle(targets, count):
    """Memory of an idle client: (resident at `count` clients − resident at none) / `count`."""
    lines = [["proxy", f"idle clients", "kB each"], ["---", "---:", "---:"]]
    for target in [target for target in targets if target.process]:
        log_in(target.port).close()
        time.sleep(1)
        before = target.process.resident()
        clients = [log_in(target.port) for _ in range(count)]
        time.sleep(3)
        each = (target.process.resident() - before) / count / 1000
        closed, _, _ = select.select(clients[:500], [], [], 0)
        if closed:
            fail(f"{target.name} does not keep idle clients")
        for client in clients:
            client.close()
        lines.append([target.name, f"{count:,}", f"{each:.2f}"])
        time.sleep(1)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgherd", help="the binary, a release build; without it PgBouncer alone is measured")
    parser.add_argument("--pgbouncer", help="the binary; from the PATH by default")
    parser.add_argument("--pgbouncer-extra", default="", help="further lines of pgbouncer.ini, divided by ;")
    parser.add_argument("--bin", help="folder of PostgreSQL's programs; the newest of /usr/lib/postgresql by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of one round of one case")
    parser.add_argument("--clients", default="1,16,64,500")
    parser.add_argument("--protocols", default="simple,prepared", help="simple, extended, prepared, connect (reconnect each time)")
    parser.add_argument("--pool", type=int, default=20, help="server connections of a pool; pgherd has one pool per server")
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--idle", type=int, default=10000, help="idle clients; 0 leaves this part out")
    parser.add_argument("--straight", action="store_true", help="measure pgbench straight on the primary, too (up to 150 clients)")
    parser.add_argument("--json", help="write all medians there")
    return parser.parse_args()


def main():
    options = arguments()
    if options.pgherd and not os.access(options.pgherd, os.X_OK):
        fail(f"{options.pgherd} is not a program")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < options.idle + 4000:
        fail(f"the limit of open files is {hard}: raise it or pass --idle {max(0, hard - 4000)}")
    bench = Bench(options)
    try:
        bench.cluster()
        targets = [Target("straight", bench.ports[0], None, True)] if options.straight else []
        targets.append(bench.pgbouncer())
        if options.pgherd:
            targets.append(bench.pgherd())
        cpus, postgres = os.cpu_count(), bench.psql(bench.ports[0], "SHOW server_version")
        load = os.getloadavg()[0]
        print(f"{cpus} cores, {platform.system()} {platform.release()}, PostgreSQL {postgres.split()[0]}; pools of {options.pool}; "
              f"pgbench -S, scale {options.scale}; medians of {options.rounds} interleaved rounds of {options.seconds} s; "
              f"load before the run {load:.1f}\n", flush=True)
        results = compare(bench, targets)
        print(table(results, targets), flush=True)
        if options.idle:
            print("\n" + idle(targets, options.idle), flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump([{"protocol": p, "clients": c, "target": t, **(v or {})} for (p, c, t), v in results.items()], file, indent=1)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
