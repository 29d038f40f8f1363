#!/usr/bin/env python3
"""What a release build learns from: the statements of pgbench through a pgherd that counts which of its code runs, in front of a
primary and two standbys of its own. Writes a raw profile for each pgherd into a folder.

    benches/release/train.py --pgherd PROGRAM --out FOLDER [--seconds 2]

Owned by build.sh. Must not measure anything: a program that counts is slow.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "compare"))
sys.dont_write_bytecode = True

from load import bulk  # noqa: E402
from stage import DATABASE, Stage, Target, run, wait_for  # noqa: E402

# How pgbench sends its statements, by how many clients, and with which of its scripts.
READS = [(protocol, clients, "select-only") for protocol in ("simple", "extended", "prepared") for clients in (1, 16, 64)]
WRITES = [(protocol, 8, "tpcb-like") for protocol in ("simple", "prepared")]


class Training:
    def __init__(self, options):
        self.options, self.stage = options, Stage(options)
        # The servers' user writes there, and what is written is collected at the end.
        os.environ["LLVM_PROFILE_FILE"] = os.path.join(self.stage.folder, "profile-%p.profraw")

    def pgbench(self, target, protocol, clients, script, *more):
        stage = self.stage
        run([stage.program("pgbench"), "-n", "-p", str(target.port), "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)), "-b",
             script, "-T", str(self.options.seconds), *more, DATABASE], cwd=stage.folder, timeout=60 + self.options.seconds,
            env={**stage.environment, "PGSSLMODE": "require" if target.tls else "disable"})

    def knows_the_catalog(self, target):
        """Until then all reads go to the primary."""
        said = self.stage.psql(target.port, "PGPOOL SHOW ROUTE 'SELECT abalance FROM pgbench_accounts'", DATABASE)
        return "no_catalog" not in said

    def with_one(self, target, lessons):
        self.stage.bring(target)
        if not target.tls:
            wait_for("the catalog", lambda: self.knows_the_catalog(target))
        lessons(target)
        # It writes its profile as it ends.
        self.stage.take_away(target)

    def plain(self, target):
        for protocol, clients, script in READS + WRITES:
            self.pgbench(target, protocol, clients, script)
        self.pgbench(target, "simple", 16, "select-only", "-C")
        for kind in ("rows", "copy out", "copy in"):
            bulk(self.stage, target, kind, 100_000_000)

    def scram(self, target):
        self.pgbench(target, "simple", 16, "select-only", "-C")

    def tls(self, target):
        self.pgbench(target, "simple", 16, "select-only")

    def all(self):
        self.stage.cluster()
        self.with_one(Target("plain", "pgherd"), self.plain)
        self.with_one(Target("scram", "pgherd", scram=True), self.scram)
        self.with_one(Target("tls", "pgherd", tls=True), self.tls)
        for name in os.listdir(self.stage.folder):
            if name.endswith(".profraw"):
                shutil.move(os.path.join(self.stage.folder, name), self.options.out)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgherd", required=True, help="a program that was built to count")
    parser.add_argument("--out", required=True, help="the folder of the profiles")
    parser.add_argument("--seconds", type=int, default=2, help="of each lesson")
    parser.add_argument("--bin", help="folder of PostgreSQL's programs")
    options = parser.parse_args()
    options.scale, options.most_clients = 1, 500
    return options


def main():
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    training = Training(arguments())
    try:
        training.all()
    finally:
        training.stage.close()


if __name__ == "__main__":
    main()
