"""asyncpg: its own prepared statements and type introspection, blocks, cursors, COPY, notifications, a pool."""
import asyncio
import sys
import asyncpg

port, database = int(sys.argv[1]), sys.argv[2]
where = dict(host="127.0.0.1", port=port, user="postgres", database=database, timeout=10, ssl=False)


def check(got, want):
    assert got == want, f"got {got!r} instead of {want!r}"


async def main():
    conn = await asyncpg.connect(**where)
    await conn.execute("CREATE TABLE t (n int PRIMARY KEY, v text)")
    await conn.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    await conn.execute("CREATE TYPE pair AS (a int, b mood)")
    await conn.executemany("INSERT INTO t VALUES ($1, $2)", [(n, f"v{n}") for n in range(1000)])
    for n in range(50):
        check(await conn.fetchval("SELECT v FROM t WHERE n = $1", n), f"v{n}")
    # Types that it must look up in the catalogs with statements of its own.
    check(await conn.fetchval("SELECT 'glad'::mood"), "glad")
    check(tuple(await conn.fetchval("SELECT row(1, 'sad')::pair")), (1, "sad"))
    check(await conn.fetchval("SELECT $1::int[]", [1, 2, 3]), [1, 2, 3])

    statement = await conn.prepare("SELECT count(*) FROM t WHERE n < $1")
    for n in (0, 10, 500):
        check(await statement.fetchval(n), n)

    try:
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (2000, 'lost')")
            await conn.execute("SELECT 1/0")
    except asyncpg.DivisionByZeroError:
        pass
    async with conn.transaction():
        await conn.execute("INSERT INTO t VALUES (2001, 'kept')")
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (2001, 'twice')")
        except asyncpg.UniqueViolationError:
            pass
    check(await conn.fetchval("SELECT count(*) FROM t WHERE n >= 2000"), 1)

    async with conn.transaction():
        seen = [row["n"] async for row in conn.cursor("SELECT n FROM t ORDER BY n", prefetch=77)]
        check(len(seen), 1001)
        cursor = await conn.cursor("SELECT n FROM t ORDER BY n")
        await cursor.forward(10)
        check([row["n"] for row in await cursor.fetch(3)], [10, 11, 12])

    await conn.copy_records_to_table("t", records=[(n, "copied") for n in range(5000, 8000)])
    data = bytearray()

    async def collect(chunk):
        data.extend(chunk)

    await conn.copy_from_query("SELECT n FROM t WHERE n >= 5000 ORDER BY n", output=collect)
    check(len(data.splitlines()), 3000)

    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("news", lambda _c, _p, _channel, payload: heard.done() or heard.set_result(payload))
    other = await asyncpg.connect(**where)
    await other.execute("NOTIFY news, 'hello'")
    check(await asyncio.wait_for(heard, 10), "hello")
    await conn.remove_listener("news", lambda *_: None)

    try:
        await other.execute("SELECT pg_sleep(30)", timeout=0.3)
        raise SystemExit("no timeout")
    except asyncio.TimeoutError:
        pass
    check(await other.fetchval("SELECT 1"), 1)
    await other.close()
    await conn.close()

    # Many tasks on a pool; asyncpg sends its reset query at each release.
    async with asyncpg.create_pool(min_size=5, max_size=15, **where) as pool:
        async def work(number):
            for turn in range(10):
                async with pool.acquire() as one:
                    async with one.transaction():
                        await one.execute("UPDATE t SET v = $2 WHERE n = $1", number, str(turn))
                        check(await one.fetchval("SELECT v FROM t WHERE n = $1", number), str(turn))
        await asyncio.gather(*(work(number) for number in range(40)))
    print("ok")


asyncio.run(main())
