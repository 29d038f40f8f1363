"""The servers and proxies of the comparison: started in a private folder on free ports, measured from /proc, stopped for good.

Owned by run.py. Must not decide what is measured.
"""

import base64
import glob
import hashlib
import hmac
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

USER = "postgres"
PASSWORD = "a password of the comparison"
DATABASE = "bench"
TICK = os.sysconf("SC_CLK_TCK")
# The servers' own limit; pgpool-II needs a server connection for each client.
MAX_CONNECTIONS = 800
# What one proxy may open to one server.
MOST_PER_NODE = 600


def fail(text):
    sys.exit(f"compare: {text}")


def as_owner(command):
    """PostgreSQL, PgBouncer and pgpool-II do not want to run as root; and none of them outlives this program."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--pdeathsig", "INT", "--", *command]
    return ["setpriv", "--pdeathsig", "INT", "--", *command]


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def program(name, folder=None):
    """Where a program is; Debian's daemons lie where not everyone looks."""
    found = folder and os.path.join(folder, name)
    if found and os.path.exists(found):
        return found
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def free_port():
    """Below the ports that the kernel gives to clients: ten thousand of those come and go here. Reserved for this process as the
    product's own demo and tests reserve theirs, by an abstract socket, since a program may listen there much later."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        lowest = int(file.read().split()[0])
    for port in range(20000 + os.getpid() % 5000, lowest):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0pgherd-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        free_port.held.append(held)
        return port
    fail("no free port")


free_port.held = []


def wait_for(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    fail(f"{what}: not within {seconds} s")


def verifier(password, iterations=64):
    """PostgreSQL's stored form of a SCRAM password. Of few iterations: pgbench derives its key for each login anew, and would do
    nothing else; who knows a verifier derives none."""
    salt = b"a salt of the run"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client, server = (hmac.new(salted, name, hashlib.sha256).digest() for name in (b"Client Key", b"Server Key"))
    salt, stored, server = (base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server))
    return f"SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"


def stat(pid):
    """Parent, and user and system time in ticks, of a process and of its children that have ended; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def family(pid):
    """A process and all that come from it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := stat(name)):
            children.setdefault(seen[0], []).append(int(name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


class Process:
    """A program in the background; its output goes to a file beside its data."""

    def __init__(self, name, command, folder, alone, end=signal.SIGTERM):
        self.name, self.alone, self.end = name, alone, end
        self.log = os.path.join(folder, name + ".log")
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, start_new_session=True,
                                          env={**os.environ, "TMPDIR": folder})
        self.members = None

    def check(self):
        if self.child.poll() is not None:
            with open(self.log) as log:
                fail(f"{self.name} ended:\n{log.read()[-3000:]}")

    def freeze(self):
        """Its processes are these from now on; looking for them anew takes long."""
        self.members = [self.child.pid] if self.alone else family(self.child.pid)

    def cpu(self):
        """User and system time of all its threads and processes, in seconds."""
        seen = [stat(pid) for pid in self.members or [self.child.pid]]
        return sum(each[1] + each[2] for each in seen if each) / TICK

    def resident(self):
        """Resident memory in bytes. Of a program of many processes each page counts once (PSS)."""
        if self.alone:
            return self.memory_line("VmRSS")
        total = 0
        for pid in family(self.child.pid):
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    total += int(re.search(r"\nPss:\s+(\d+) kB", file.read())[1]) * 1024
            except (OSError, TypeError):
                continue
        return total

    def memory_line(self, name):
        with open(f"/proc/{self.child.pid}/status") as file:
            return int(re.search(name + r":\s+(\d+) kB", file.read())[1]) * 1024

    def reset_peak(self):
        with open(f"/proc/{self.child.pid}/clear_refs", "w") as file:
            file.write("5")

    def peak(self):
        """The most resident memory since reset_peak."""
        return self.memory_line("VmHWM")

    def pin(self, cpus):
        for pid in family(self.child.pid):
            for task in glob.glob(f"/proc/{pid}/task/*"):
                try:
                    os.sched_setaffinity(int(os.path.basename(task)), cpus)
                except OSError:
                    continue

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(self.end)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                pass
        # What is left of its session, itself included.
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


class Target:
    """Something that pgbench connects to. `kind` decides how it is started; `pool` are its connections to each server."""

    def __init__(self, label, kind, pool=20, mode="transaction", **more):
        self.label, self.kind, self.pool, self.mode = label, kind, pool, mode
        self.scram, self.tls = more.get("scram", False), more.get("tls", False)
        self.nodes, self.threads = more.get("nodes", 3), more.get("threads", 0)
        self.process = self.port = None

    def again(self, **changes):
        """The same with other settings, not started."""
        kept = {key: getattr(self, key) for key in ("label", "kind", "pool", "mode", "scram", "tls", "nodes", "threads")}
        return Target(**{**kept, **changes})

    def clients(self):
        """The most clients that can be active at a time; None: any number."""
        if self.kind == "direct":
            return MOST_PER_NODE
        return MOST_PER_NODE if self.one_to_one() else None

    def one_to_one(self):
        """A server connection for each client, so that its pool must be as large as there are clients."""
        return self.kind == "pgpool" or (self.kind != "direct" and self.mode == "session")


class Stage:
    """The private cluster, and whatever proxies are wanted in front of it."""

    def __init__(self, options):
        self.options, self.processes, self.count = options, [], 0
        self.folder = tempfile.mkdtemp(prefix="pgherd-compare-")
        os.chmod(self.folder, 0o755)
        self.give(self.folder)
        versions = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))
        self.bin = options.bin or (versions[-1] if versions else None)
        # Where its folder is may be closed to the user that it runs as.
        self.pgherd_program = options.pgherd and shutil.copy(options.pgherd, os.path.join(self.folder, "pgherd"))
        self.environment = {**os.environ, "PGSSLMODE": "disable", "PGPASSWORD": PASSWORD, "PGUSER": USER, "PGHOST": "127.0.0.1"}

    def give(self, path):
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def program(self, name):
        return program(name, self.bin) or fail(f"{name} not found")

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        self.give(path)
        return path

    def start(self, name, command, alone, end=signal.SIGTERM):
        self.count += 1
        process = Process(f"{self.count}-{name}", as_owner(command), self.folder, alone, end)
        self.processes.append(process)
        return process

    def psql(self, port, sql, database="postgres"):
        command = [self.program("psql"), "-XAtq", "-p", str(port), "-d", database, "-c", sql]
        return run(command, env=self.environment).strip()

    def answers(self, port, process, tls=False):
        process.check()
        command = [self.program("psql"), "-XAtq", "-p", str(port), "-d", DATABASE if self.ready else "postgres", "-c", "SELECT 1"]
        environment = {**self.environment, "PGSSLMODE": "require" if tls else "disable", "PGCONNECT_TIMEOUT": "5"}
        return subprocess.run(command, capture_output=True, check=False, env=environment).returncode == 0

    ready = False

    # The servers.

    def server(self, name, data, port):
        with open(os.path.join(data, "postgresql.auto.conf"), "a") as conf:
            conf.write(f"\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n"
                       f"max_connections = {MAX_CONNECTIONS}\nshared_buffers = '256MB'\nfsync = off\nwal_keep_size = '512MB'\n"
                       f"max_wal_senders = 10\nssl = on\nssl_cert_file = '{self.cert}'\nssl_key_file = '{self.key}'\n")
        process = self.start(name, [self.program("postgres"), "-D", data], False, signal.SIGINT)
        wait_for(name, lambda: self.answers(port, process))
        return process

    def cluster(self, standbys=2):
        """A primary with pgbench's tables and standbys that stream from it."""
        self.cert, self.key = os.path.join(self.folder, "server.crt"), os.path.join(self.folder, "server.key")
        run([self.program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
             "-keyout", self.key, "-out", self.cert])
        for path, mode in ((self.cert, 0o644), (self.key, 0o600)):
            os.chmod(path, mode)
            self.give(path)
        data = os.path.join(self.folder, "primary")
        run(as_owner([self.program("initdb"), "-U", USER, "-A", "trust", "-N", "--locale=C", "-E", "UTF8", "-D", data]), cwd=self.folder)
        self.ports = [free_port() for _ in range(standbys + 1)]
        self.servers = [self.server("primary", data, self.ports[0])]
        self.psql(self.ports[0], f"CREATE DATABASE {DATABASE}")
        run([self.program("pgbench"), "-i", "-q", "-s", str(self.options.scale), "-p", str(self.ports[0]), DATABASE],
            env=self.environment)
        self.psql(self.ports[0], "CREATE UNLOGGED TABLE sink (line text)", DATABASE)
        for number, port in enumerate(self.ports[1:], 1):
            data = os.path.join(self.folder, f"standby{number}")
            run(as_owner([self.program("pg_basebackup"), "-R", "-N", "-c", "fast", "-h", "127.0.0.1", "-p", str(self.ports[0]),
                          "-U", USER, "-D", data]), cwd=self.folder)
            self.servers.append(self.server(f"standby{number}", data, port))
        self.verifier = verifier(PASSWORD)
        self.ready = True

    # The proxies. Each takes a Target and sets its port and process.

    def bring(self, target):
        """Starts a target, and returns it."""
        getattr(self, target.kind)(target)
        return target

    def take_away(self, target):
        if target.process in self.processes:
            target.process.stop()
            self.processes.remove(target.process)
        target.process = None

    def listening(self, target, name, command, alone, end=signal.SIGTERM):
        target.process = self.start(name, command, alone, end)
        wait_for(name, lambda: self.answers(target.port, target.process, target.tls))

    def direct(self, target):
        target.port = self.ports[0]

    def pgbouncer(self, target):
        target.port = free_port()
        tls = f"client_tls_sslmode = require\nclient_tls_cert_file = {self.cert}\nclient_tls_key_file = {self.key}\n" if target.tls else ""
        users = self.write(f"users-{target.port}.txt", f'"{USER}" "{self.verifier if target.scram else ""}"\n')
        config = self.write(f"pgbouncer-{target.port}.ini", (
            f"[databases]\n* = host=127.0.0.1 port={self.ports[0]}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {target.port}\nunix_socket_dir =\nauth_type = {'scram-sha-256' if target.scram else 'trust'}\n"
            f"auth_file = {users}\npool_mode = {target.mode}\ndefault_pool_size = {target.pool}\nserver_tls_sslmode = disable\n"
            f"max_client_conn = {self.options.most_clients}\nlog_connections = 0\nlog_disconnections = 0\nlisten_backlog = 4096\n"
            f"ignore_startup_parameters = extra_float_digits\n{tls}" + self.options.pgbouncer_extra.replace(";", "\n") + "\n"))
        self.listening(target, "pgbouncer", [self.options.pgbouncer, config], True)

    def pgpool(self, target):
        target.port, pcp = free_port(), free_port()
        children = target.pool + 4
        nodes = "".join(f"backend_hostname{n} = '127.0.0.1'\nbackend_port{n} = {port}\nbackend_weight{n} = 1\n"
                        f"backend_data_directory{n} = '{self.folder}/{name}'\nbackend_flag{n} = 'DISALLOW_TO_FAILOVER'\n"
                        for n, (port, name) in enumerate(list(zip(self.ports, ("primary", "standby1", "standby2")))[:target.nodes]))
        folder = os.path.join(self.folder, f"pgpool-{target.port}")
        os.mkdir(folder)
        self.give(folder)
        older = self.options.pgpool_version < (4, 4)
        sockets = "socket_dir" if older else "unix_socket_directories"
        work = "logdir" if self.options.pgpool_version < (4, 7) else "work_dir"
        hba = self.write(f"pool_hba-{target.port}.conf", f"host{'ssl' if target.tls else ''} all all 127.0.0.1/32 "
                         f"{'scram-sha-256' if target.scram else 'trust'}\n")
        passwords = self.write(f"pool_passwd-{target.port}", f"{USER}:TEXT{PASSWORD}\n")
        config = self.write(f"pgpool-{target.port}.conf", (
            f"listen_addresses = '127.0.0.1'\nport = {target.port}\n{sockets} = '{folder}'\npcp_port = {pcp}\n"
            f"pcp_listen_addresses = ''\npcp_socket_dir = '{folder}'\npid_file_name = '{folder}/pid'\n{work} = '{folder}'\n"
            f"backend_clustering_mode = 'streaming_replication'\n{nodes}load_balance_mode = on\nnum_init_children = {children}\n"
            f"max_pool = 1\nchild_life_time = 0\nconnection_cache = on\nsr_check_period = 10\nsr_check_user = '{USER}'\n"
            f"sr_check_database = 'postgres'\nhealth_check_period = 1\nhealth_check_user = '{USER}'\nenable_pool_hba = on\n"
            f"pool_passwd = '{passwords}'\nssl = {'on' if target.tls else 'off'}\nssl_cert = '{self.cert}'\nssl_key = '{self.key}'\n"
            "listen_backlog_multiplier = 4\n"))
        command = [self.options.pgpool, "-n", "-f", config, "-a", hba, "-F", self.write(f"pcp-{target.port}.conf", ""), "-D"]
        self.listening(target, "pgpool", command, False, signal.SIGINT)

    def pgherd(self, target):
        target.port = free_port()
        hba = self.write(f"hba-{target.port}.conf", f"host{'ssl' if target.tls else ''} all all 127.0.0.1/32 "
                         f"{'scram-sha-256' if target.scram else 'trust'}\n")
        users = self.write(f"users-{target.port}", f"{USER}:{self.verifier}\n" if target.scram else "")
        nodes = "".join(f'[[node]]\nid = {n}\nname = "node{n}"\nhost = "127.0.0.1"\nport = {port}\nsslmode = "disable"\n'
                        f"max_connections = {MOST_PER_NODE}\n" for n, port in enumerate(self.ports[:target.nodes]))
        tls = f'[tls]\ncert = "{self.cert}"\nkey = "{self.key}"\n' if target.tls else ""
        config = self.write(f"pgherd-{target.port}.toml", (
            f'pid_file = "{self.folder}/pgherd-{target.port}.pid"\n[listen]\naddresses = ["127.0.0.1"]\nport = {target.port}\n'
            f"unix_socket_directories = []\nmax_clients = {self.options.most_clients}\nthreads = {target.threads}\n"
            f'[pool]\nmode = "{target.mode}"\nsize = {target.pool}\nmin_size = 0\nqueue_timeout = "60s"\n'
            f'[auth]\nhba_file = "{hba}"\nusers_file = "{users}"\n{tls}'
            f'[monitor]\nuser = "{USER}"\ndatabase = "postgres"\n[pcp]\naddresses = []\n{nodes}'))
        self.listening(target, "pgherd", [self.pgherd_program, "run", "--config", config], True, signal.SIGINT)

    def relay(self, target):
        """A server connection for each of its clients."""
        target.port = free_port()
        program = shutil.copy(self.options.relay, os.path.join(self.folder, f"relay-{target.port}"))
        self.listening(target, "relay", [program, f"127.0.0.1:{target.port}", f"127.0.0.1:{self.ports[0]}", str(target.threads)], True)

    def close(self):
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
