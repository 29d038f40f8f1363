"""What is thrown at a target: pgbench with the proxy's CPU time sampled beside it, raw clients that stay idle, a storm of
logins, and bulk data.

Owned by run.py. Must not start or stop servers.
"""

import glob
import os
import re
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

from stage import DATABASE, USER, fail

READY = b"Z\0\0\0\x05I"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


class Sampler(threading.Thread):
    """The proxy's CPU time, with the time of day, until it is told to stop."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.over, self.seen = process, threading.Event(), []
        process.freeze()

    def run(self):
        # Reading hundreds of processes costs CPU time of its own.
        pause = 0.1 if self.process.alone else 1.0
        while True:
            self.seen.append((time.time(), self.process.cpu()))
            if self.over.wait(pause):
                return

    def stop(self):
        self.process.freeze()
        self.seen.append((time.time(), self.process.cpu()))
        self.over.set()
        self.join()
        self.seen.sort()

    def at(self, moment):
        """CPU seconds used up to a moment, between two samples in proportion."""
        before = [pair for pair in self.seen if pair[0] <= moment] or self.seen[:1]
        after = [pair for pair in self.seen if pair[0] > moment] or self.seen[-1:]
        (begin, used), (end, more) = before[-1], after[0]
        return used + (more - used) * ((moment - begin) / (end - begin) if end > begin else 0)


def read_log(prefix):
    """Latencies in µs, and when the first and the last logged transaction ended."""
    latencies, first, last = [], float("inf"), 0.0
    for path in glob.glob(prefix + "*"):
        with open(path) as log:
            for line in log:
                fields = line.split()
                if fields[2].isdigit():
                    latencies.append(int(fields[2]))
                    ended = int(fields[4]) + int(fields[5]) / 1e6
                    first, last = min(first, ended), max(last, ended)
        os.remove(path)
    return latencies, first, last


def command_of(stage, target, protocol, clients, *more):
    mode = ["-C", "-M", "simple"] if protocol == "connect" else ["-M", protocol]
    return [stage.program("pgbench"), "-p", str(target.port), "-S", "-n", *mode, "-c", str(clients), "-j", str(min(clients, 2)), *more,
            DATABASE]


def attempt(stage, target, command, limit):
    """What pgbench said; None, with the reason on standard error, if it failed or did not end."""
    environment = {**stage.environment, "PGSSLMODE": "require" if target.tls else "disable"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"  {target.label}: pgbench did not end", file=sys.stderr)
        return None
    if done.returncode != 0:
        print(f"  {target.label}: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return done.stdout


def time_to_connect(stage, target, protocol, clients):
    """pgbench's clock runs while its clients log in, so with many of them it must be set later. Also fills the pools."""
    if clients < 100 or protocol == "connect":
        return 0.0
    said = attempt(stage, target, command_of(stage, target, protocol, clients, "-t", "1"), 120)
    found = said and re.search(r"initial connection time = ([\d.]+) ms", said)
    return float(found[1]) / 1000 if found else None


def pgbench(stage, target, protocol, clients, seconds, share=0.2):
    """One run of pgbench -S; None if a client got an error. The CPU time is that between the first and the last transaction: the
    logins of all clients come before."""
    prefix = os.path.join(stage.folder, "latency")
    logins = time_to_connect(stage, target, protocol, clients)
    if logins is None:
        return None
    duration = seconds + round(logins * 1.2)
    command = command_of(stage, target, protocol, clients, "-T", str(duration), "-l", f"--sampling-rate={share}", f"--log-prefix={prefix}")
    sampler = Sampler(target.process) if target.process else None
    if sampler:
        sampler.start()
    try:
        said = attempt(stage, target, command, duration * 3 + 60)
    finally:
        if sampler:
            sampler.stop()
    latencies, first, last = read_log(prefix)
    if said is None:
        return None
    tps, mean = re.search(r"tps = ([\d.]+)", said), re.search(r"latency average = ([\d.]+)", said)
    if not (tps and mean) or last <= first:
        print(f"  {target.label}: no transactions within {duration} s", file=sys.stderr)
        return None
    result = {"tps": float(tps[1]), "mean": float(mean[1]), "p99": percentile(latencies, 0.99) / 1000}
    if sampler:
        result["cost"] = (sampler.at(last) - sampler.at(first)) / ((last - first) * result["tps"]) * 1e6
    return result


# Clients of our own.


def startup():
    body = struct.pack("!i", 196608) + b"".join(part.encode() + b"\0" for part in ("user", USER, "database", DATABASE)) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


def message(tag, body):
    return tag + struct.pack("!i", len(body) + 4) + body


class Client:
    """A blocking connection that has logged in (trust)."""

    def __init__(self, target, context=None):
        self.socket = socket.create_connection(("127.0.0.1", target.port), timeout=120)
        if context:
            self.socket.sendall(struct.pack("!ii", 8, 80877103))
            if self.socket.recv(1) != b"S":
                fail(f"{target.label} does not speak TLS")
            self.socket = context.wrap_socket(self.socket)
        self.socket.sendall(startup())
        self.until_ready()

    def until_ready(self):
        """Reads up to ReadyForQuery; how many bytes that were."""
        buffer, count, tail = bytearray(1 << 18), 0, b""
        while True:
            got = self.socket.recv_into(buffer)
            if got == 0:
                fail(f"a connection was closed behind {tail!r}")
            if count == 0 and buffer[:1] == b"E":
                fail(f"refused: {bytes(buffer[:got])!r}")
            count += got
            tail = (tail + bytes(buffer[max(0, got - 6):got]))[-6:]
            if tail == READY:
                return count

    def query(self, sql):
        self.socket.sendall(message(b"Q", sql.encode() + b"\0"))
        return self.until_ready()

    def copy_in(self, sql, size):
        """Sends at least `size` bytes in lines of 1 kB."""
        self.socket.sendall(message(b"Q", sql.encode() + b"\0"))
        if self.socket.recv(1 << 16)[:1] != b"G":
            fail("COPY was refused")
        block = message(b"d", (b"x" * 1000 + b"\n") * 64)
        sent = 0
        while sent < size:
            self.socket.sendall(block)
            sent += len(block)
        self.socket.sendall(message(b"c", b""))
        self.until_ready()
        return sent

    def close(self):
        self.socket.close()


def any_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def bulk(stage, target, kind, size):
    """CPU seconds of the proxy for each 10⁹ bytes, bytes a second, and by how much memory grew at most."""
    client = Client(target)
    rows = size // 1000
    requests = {
        "rows": lambda: client.query(f"SELECT repeat('x', 1000) FROM generate_series(1, {rows})"),
        "value": lambda: client.query(f"SELECT repeat('x', {min(size, 1_000_000_000)})"),
        "copy out": lambda: client.query(f"COPY (SELECT repeat('x', 1000) FROM generate_series(1, {rows})) TO STDOUT"),
        "copy in": lambda: client.copy_in("COPY sink FROM STDIN", size),
    }
    process = target.process
    before, grown = 0.0, None
    if process:
        process.freeze()
        before = process.cpu()
        if process.alone:
            process.reset_peak()
            grown = -process.peak()
    begun = time.monotonic()
    moved = requests[kind]()
    took = time.monotonic() - begun
    result = {"rate": moved / took / 1e6}
    if process:
        result["cost"] = (process.cpu() - before) / moved * 1e9
        if grown is not None:
            result["grown"] = (grown + process.peak()) / 1000
    client.close()
    if kind == "copy in":
        stage.psql(stage.ports[0], "TRUNCATE sink", DATABASE)
    return result


def idle(target, count, tls=False):
    """Memory in bytes for each of `count` idle clients: (resident with them − resident without) / count."""
    context = any_certificate() if tls else None
    Client(target, context).close()
    # What is freed late, or only now and then, is given its time.
    settle = 3.0 if count >= 1000 else 0.3
    time.sleep(settle)
    before = target.process.resident()
    begun = time.monotonic()
    clients = [Client(target, context) for _ in range(count)]
    took = time.monotonic() - begun
    time.sleep(settle)
    after = target.process.resident()
    for client in clients[::97]:
        client.query("SELECT 1")
    for client in clients:
        client.close()
    time.sleep(settle)
    return {"before": before, "after": after, "each": (after - before) / count, "logins": count / took}


def storm(target, count):
    """`count` clients connect at once, log in and run one statement. When each was done, in seconds from the beginning of it all, in
    the order of their coming."""
    selector, done, failed, ended = selectors.EpollSelector(), [None] * count, 0, []
    hello, request = startup(), message(b"Q", b"SELECT 1\0")
    begun = time.monotonic()
    for number in range(count):
        client = socket.socket()
        client.setblocking(False)
        try:
            client.connect(("127.0.0.1", target.port))
        except BlockingIOError:
            pass
        selector.register(client, selectors.EVENT_WRITE, [number, 0, b""])
    left = count
    while left and time.monotonic() < begun + 120:
        for key, _ in selector.select(1):
            client, state = key.fileobj, key.data
            try:
                if state[1] == 0:
                    client.send(hello)
                    state[1] = 1
                    selector.modify(client, selectors.EVENT_READ, state)
                    continue
                received = client.recv(4096)
                state[2] = (state[2] + received)[-6:]
                if state[2] == READY:
                    if state[1] == 1:
                        client.send(request)
                        state[1], state[2] = 2, b""
                        continue
                    done[state[0]] = time.monotonic() - begun
                elif received:
                    continue
                else:
                    failed += 1
            except OSError:
                failed += 1
            # It stays open until all are served, as a client's pool would.
            selector.unregister(client)
            left -= 1
            ended.append(client)
    for client in ended + [key.fileobj for key in selector.get_map().values()]:
        client.close()
    selector.close()
    times = [at for at in done if at is not None]
    order = sorted((number for number in range(count) if done[number] is not None), key=lambda number: done[number])
    rank = {number: place for place, number in enumerate(order)}
    moved = [abs(rank[number] - place) for place, number in enumerate(sorted(order))]
    return {"served": len(times), "failed": failed + left, "median": percentile(times, 0.5) * 1000, "p99": percentile(times, 0.99) * 1000,
            "last": max(times, default=float("nan")) * 1000, "moved": percentile(moved, 0.99)}
