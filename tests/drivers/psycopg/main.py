"""psycopg 3: blocks, prepared statements, pipeline mode, server-side cursors, COPY, notifications."""
import sys
import psycopg
from psycopg import errors

port, database = sys.argv[1:3]
dsn = f"host=127.0.0.1 port={port} user=postgres dbname={database} connect_timeout=10"


def check(got, want):
    assert got == want, f"got {got!r} instead of {want!r}"


with psycopg.connect(dsn) as conn:
    conn.execute("CREATE TABLE t (n int PRIMARY KEY, v text)")
    with conn.cursor() as cur:
        cur.executemany("INSERT INTO t VALUES (%s, %s)", [(n, f"v{n}") for n in range(1000)])
    conn.commit()
    # More than prepare_threshold times: psycopg prepares by itself.
    for n in range(20):
        check(conn.execute("SELECT v FROM t WHERE n = %s", (n,)).fetchone(), (f"v{n}",))
        conn.commit()
    conn.rollback()

    # An error ends the block; the connection lives on.
    try:
        conn.execute("INSERT INTO t VALUES (0, 'twice')")
        raise SystemExit("a duplicate key was accepted")
    except errors.UniqueViolation:
        conn.rollback()
    with conn.transaction():
        conn.execute("INSERT INTO t VALUES (1000, 'outer')")
        try:
            with conn.transaction():
                conn.execute("SELECT 1/0")
        except errors.DivisionByZero:
            pass
    conn.commit()
    check(conn.execute("SELECT count(*) FROM t").fetchone(), (1001,))
    conn.commit()

    # A server-side cursor, in a block and WITH HOLD.
    with conn.cursor(name="big") as cur:
        cur.itersize = 100
        cur.execute("SELECT n FROM t ORDER BY n")
        check(sum(row[0] for row in cur), sum(range(1001)))
    conn.commit()
    with conn.cursor(name="held", withhold=True) as cur:
        cur.execute("SELECT n FROM t ORDER BY n")
        conn.commit()
        check(cur.fetchmany(3), [(0,), (1,), (2,)])
    conn.commit()

    # COPY both ways, text and binary.
    with conn.cursor() as cur:
        with cur.copy("COPY t FROM STDIN") as copy:
            for n in range(2000, 5000):
                copy.write_row((n, "copied"))
        with cur.copy("COPY (SELECT n FROM t WHERE n >= 2000 ORDER BY n) TO STDOUT") as copy:
            check([int(row[0]) for row in copy.rows()], list(range(2000, 5000)))
        with cur.copy("COPY (SELECT n FROM t WHERE n < 3 ORDER BY n) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4"])
            check(list(copy.rows()), [(0,), (1,), (2,)])
        conn.commit()
        try:
            with cur.copy("COPY t FROM STDIN") as copy:
                copy.write_row((9000, "never"))
                raise RuntimeError("given up")
        except RuntimeError:
            conn.rollback()
    check(conn.execute("SELECT count(*) FROM t WHERE n = 9000").fetchone(), (0,))
    conn.commit()

# Pipeline mode.
with psycopg.connect(dsn, autocommit=True) as conn:
    with conn.pipeline() as pipe:
        cursors = [conn.execute("SELECT v FROM t WHERE n = %s", (n,)) for n in range(300)]
        conn.execute("INSERT INTO t VALUES (10000, 'piped')")
        last = conn.execute("SELECT v FROM t WHERE n = 10000")
        pipe.sync()
        check([cur.fetchone()[0] for cur in cursors], [f"v{n}" for n in range(300)])
        check(last.fetchone(), ("piped",))
    with conn.pipeline() as pipe:
        # The error may be told at any statement after the bad one, at the latest by sync.
        try:
            conn.execute("INSERT INTO t VALUES (10001, 'gone')")
            conn.execute("SELECT 1/0")
            conn.execute("SELECT 1")
            pipe.sync()
            raise SystemExit("the error in the pipeline was lost")
        except errors.DivisionByZero:
            pass
    check(conn.execute("SELECT count(*) FROM t WHERE n = 10001").fetchone(), (0,))
    with conn.pipeline(), conn.transaction():
        conn.execute("INSERT INTO t VALUES (10002, 'kept')")
        conn.execute("UPDATE t SET v = v || '!' WHERE n = 10002")
    check(conn.execute("SELECT v FROM t WHERE n = 10002").fetchone(), ("kept!",))

    # A notification reaches a connection that only listens.
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN news")
        conn.execute("NOTIFY news, 'hello'")
        for note in listener.notifies(timeout=10, stop_after=1):
            check((note.channel, note.payload), ("news", "hello"))
            break
        else:
            raise SystemExit("no notification")

    # Binary parameters and results, types, cancel.
    row = conn.execute("SELECT %b::int8, %b::text, %b::float8", (2**40, "häuser", 1.5), binary=True).fetchone()
    check(row, (2**40, "häuser", 1.5))

import threading

with psycopg.connect(dsn, autocommit=True) as conn:
    threading.Timer(0.3, conn.cancel_safe if hasattr(conn, "cancel_safe") else conn.cancel).start()
    try:
        conn.execute("SELECT pg_sleep(30)")
        raise SystemExit("the cancel was lost")
    except errors.QueryCanceled:
        pass
    check(conn.execute("SELECT 1").fetchone(), (1,))
print("ok")
