"""asyncpg doing its usual things: prepared statements, cursors, COPY, LISTEN, pools that reset, binary everywhere."""

import asyncio
import datetime
import decimal
import io
import ipaddress
import json
import os
import sys
import time
import uuid
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import asyncpg
from checks import Skip, check, has_password, main, sha

TABLE = "compat_asyncpg"


class Connected:
    """`async with Connected() as connection`"""

    def __init__(self, **options):
        self.options = options

    async def __aenter__(self):
        self.connection = await asyncpg.connect(**self.options)
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close(timeout=5)


async def database_error_of(sqlstate, awaitable):
    """The fields of a database error that must be the same through a router; the call must fail with this SQLSTATE."""
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        assert error.sqlstate == sqlstate, f"expected {sqlstate}, got {error.sqlstate}: {error}"
        names = "severity sqlstate message detail hint position context schema_name table_name column_name constraint_name"
        return {name: getattr(error, name, None) for name in names.split()}
    raise AssertionError(f"expected SQLSTATE {sqlstate}, but the call succeeded")


@check("connect")
async def _():
    async with Connected(server_settings={"application_name": "compat asyncpg", "TimeZone": "Asia/Tokyo"}) as connection:
        row = await connection.fetchrow(
            "SELECT current_user::text AS u, current_database()::text AS d, current_setting('application_name') AS a, current_setting('TimeZone') AS z"
        )
        assert tuple(row) == (os.environ["PGUSER"], os.environ["PGDATABASE"], "compat asyncpg", "Asia/Tokyo"), row
        settings = connection.get_settings()
        return [connection.get_server_version(), settings.server_encoding, settings.standard_conforming_strings, settings.TimeZone]


@check("simple and parameterised queries")
async def _():
    async with Connected() as connection:
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (id int PRIMARY KEY, name text NOT NULL, data bytea)")
        status = await connection.execute(f"INSERT INTO {TABLE} VALUES ($1, $2)", 1, "one")
        await connection.executemany(f"INSERT INTO {TABLE} VALUES ($1, $2, $3)", [(i, f"n{i}", b"x") for i in range(2, 1000)])
        many = await connection.fetchmany(f"UPDATE {TABLE} SET name = $2 WHERE id = $1 RETURNING id, name", [(1, "ONE"), (2, "TWO")])
        value = await connection.fetchval(f"SELECT count(*) FROM {TABLE}")
        row = await connection.fetchrow(f"SELECT * FROM {TABLE} WHERE id = $1", 2)
        assert (status, value, row["name"]) == ("INSERT 0 1", 999, "TWO")
        return [status, [tuple(record) for record in many], value, str(row)]


@check("types round trip")
async def _():
    values = {
        "int2": -32768, "int4": 2147483647, "int8": 2**63 - 1, "float4": 1.5, "float8": 3.141592653589793,
        "numeric": decimal.Decimal("12345678901234567890.000010"), "bool": True, "text": "Grüße 🐘 \\ ' \"", "bytea": b"\x00\x01\xff\\'",
        "uuid": uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"), "date": datetime.date(2024, 2, 29), "time": datetime.time(12, 34, 56, 789),
        "timestamp": datetime.datetime(2024, 2, 29, 12, 34, 56, 789), "timestamptz": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
        "interval": datetime.timedelta(days=2, seconds=5, microseconds=6), "int4[]": [1, -2, None, 3], "text[]": ["a", "b,c", '"q"', None],
        "inet": ipaddress.ip_address("10.0.0.1"), "int4range": asyncpg.Range(1, 10), "json": '{"a": [1, null]}', "point": asyncpg.Point(1, 2.5),
    }  # fmt: skip
    columns = ", ".join(f'${i}::{name} AS "{name}"' for i, name in enumerate(values, 1))
    async with Connected() as connection:
        row = await connection.fetchrow(f"SELECT {columns}, NULL::text AS missing", *values.values())
        assert {name: row[name] for name in values} == values, row
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        document = {"a": [1, None, {"ü": "🐘"}]}
        assert await connection.fetchval("SELECT $1::jsonb", document) == document
        return str(row)


@check("composite, enum and domain types it looks up in the catalogue")
async def _():
    async with Connected() as connection:
        await connection.execute("DROP TYPE IF EXISTS compat_asyncpg_pair, compat_asyncpg_mood")
        await connection.execute("CREATE TYPE compat_asyncpg_mood AS ENUM ('sad', 'ok'); CREATE TYPE compat_asyncpg_pair AS (a int, m compat_asyncpg_mood)")
        try:
            pair = await connection.fetchval("SELECT $1::compat_asyncpg_pair", (7, "ok"))
            pairs = await connection.fetchval("SELECT ARRAY[ROW(1, 'sad')::compat_asyncpg_pair]")
            assert (tuple(pair), tuple(pairs[0])) == ((7, "ok"), (1, "sad"))
        finally:
            await connection.execute("DROP TYPE compat_asyncpg_pair, compat_asyncpg_mood")


@check("prepared statements reused across transactions")
async def _():
    connections = [await asyncpg.connect(statement_cache_size=5) for _ in range(4)]
    try:
        statements = [await connection.prepare(f"SELECT $1::int * 2 AS n, 'c{index}' AS c") for index, connection in enumerate(connections)]
        attributes = [[attribute.name, attribute.type.name] for attribute in statements[0].get_attributes()]
        for turn in range(12):
            transactions = []
            for index, connection in enumerate(connections):
                # Some transactions stay open over the next connections' turns, so a pooling router has to move the others about.
                if (turn + index) % 3 == 0:
                    transactions.append(connection.transaction())
                    await transactions[-1].start()
                assert tuple(await statements[index].fetchrow(turn)) == (turn * 2, f"c{index}")
                # More texts than the statement cache holds: old ones are closed on the server.
                assert await connection.fetchval(f"SELECT $1::int + {turn % 8}", 1) == 1 + turn % 8
            for transaction in transactions:
                await transaction.commit()
        return [attributes, [parameter.name for parameter in statements[0].get_parameters()], statements[0].get_statusmsg()]
    finally:
        for connection in connections:
            await connection.close()


@check("transactions, rollback, savepoints")
async def _():
    async with Connected() as connection:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute(f"INSERT INTO {TABLE} VALUES (5000, 'kept')")
            try:
                async with connection.transaction():
                    await connection.execute(f"INSERT INTO {TABLE} VALUES (5001, 'undone')")
                    await connection.execute(f"INSERT INTO {TABLE} VALUES (5000, 'again')")
            except asyncpg.UniqueViolationError as error:
                assert error.constraint_name == f"{TABLE}_pkey"
            level = await connection.fetchval("SHOW transaction_isolation")
        transaction = connection.transaction(readonly=True)
        await transaction.start()
        await database_error_of("25006", connection.execute(f"DELETE FROM {TABLE}"))
        await database_error_of("25P02", connection.fetch("SELECT 1"))
        await transaction.rollback()
        rows = await connection.fetch(f"DELETE FROM {TABLE} WHERE id >= 5000 RETURNING id")
        assert [row["id"] for row in rows] == [5000]
        return level


@check("errors keep all fields")
async def _():
    async with Connected() as connection:
        answers = [
            await database_error_of("23505", connection.execute(f"INSERT INTO {TABLE} VALUES (1, 'x')")),
            await database_error_of("23502", connection.execute(f"INSERT INTO {TABLE} VALUES ($1, $2)", 7777, None)),
            await database_error_of("42P01", connection.fetch("SELECT * FROM no_such_table")),
            await database_error_of("42601", connection.fetch("SELEC 1")),
            await database_error_of("22012", connection.fetchval("SELECT 1/$1::int", 0)),
            await database_error_of("23505", connection.executemany(f"INSERT INTO {TABLE} VALUES ($1, $2)", [(8000 + i % 500, "x") for i in range(501)])),
        ]
        assert await connection.fetchval(f"SELECT count(*) FROM {TABLE} WHERE id >= 8000") == 0
        return answers


@check("cached statement after DDL")
async def _():
    async with Connected() as connection:
        await connection.execute("DROP TABLE IF EXISTS compat_asyncpg_ddl; CREATE TABLE compat_asyncpg_ddl (a int); INSERT INTO compat_asyncpg_ddl VALUES (1)")
        first = tuple(await connection.fetchrow("SELECT * FROM compat_asyncpg_ddl"))
        await connection.execute("ALTER TABLE compat_asyncpg_ddl ADD COLUMN b text DEFAULT 'new'")
        second = tuple(await connection.fetchrow("SELECT * FROM compat_asyncpg_ddl"))
        await connection.execute("DROP TABLE compat_asyncpg_ddl")
        assert (first, second) == ((1,), (1, "new"))


@check("cancel and timeout")
async def _():
    async with Connected() as connection:
        started = time.monotonic()
        try:
            await connection.execute("SELECT pg_sleep(20)", timeout=0.3)
            raise AssertionError("the timeout did not strike")
        except asyncio.TimeoutError:
            pass
        assert await connection.fetchval("SELECT 1") == 1
        sleeping = asyncio.ensure_future(connection.fetch("SELECT pg_sleep($1)", 20))
        await asyncio.sleep(0.2)
        sleeping.cancel()
        try:
            await sleeping
        except asyncio.CancelledError:
            pass
        assert await connection.fetchval("SELECT 2") == 2
        assert time.monotonic() - started < 8


@check("notices")
async def _():
    async with Connected() as connection:
        heard = []
        connection.add_log_listener(lambda _connection, message: heard.append([message.severity, message.sqlstate, message.message]))
        await connection.execute("DO $$ BEGIN RAISE NOTICE 'asyncpg'; END $$")
        await connection.execute("DROP TABLE IF EXISTS compat_asyncpg_absent")
        await asyncio.sleep(0.05)
        assert len(heard) == 2, heard
        return heard


@check("LISTEN and NOTIFY")
async def _():
    async with Connected() as listener, Connected() as sender:
        heard = asyncio.Queue()
        await listener.add_listener("compat_asyncpg", lambda _connection, _pid, channel, payload: heard.put_nowait((channel, payload)))
        for i in range(3):
            await sender.execute("SELECT pg_notify('compat_asyncpg', $1)", f"p{i}")
        got = [await asyncio.wait_for(heard.get(), 10) for _ in range(3)]
        assert [payload for _, payload in got] == ["p0", "p1", "p2"]
        return got


@check("COPY both ways, text, CSV and binary")
async def _():
    async with Connected() as connection:
        records = [(10_000 + i, f"näme {i}", bytes([i % 256]) * (i % 40)) for i in range(10_000)]
        status = await connection.copy_records_to_table(TABLE, records=records)
        hashes = []
        for format in ("text", "csv", "binary"):
            out = io.BytesIO()
            await connection.copy_from_query(f"SELECT * FROM {TABLE} WHERE id >= $1 ORDER BY id", 10_000, output=out, format=format)
            await connection.execute(f"DELETE FROM {TABLE} WHERE id >= 10000")
            await connection.copy_to_table(TABLE, source=io.BytesIO(out.getvalue()), format=format)
            hashes.append(sha(out.getvalue()))
        back = await connection.fetch(f"SELECT * FROM {TABLE} WHERE id >= 10000 ORDER BY id")
        assert [tuple(row) for row in back] == records
        await connection.execute(f"DELETE FROM {TABLE} WHERE id >= 10000")
        error = await database_error_of("22P02", connection.copy_to_table(TABLE, source=io.BytesIO(b"not a number\tx\t\\N\n")))
        return [status, hashes, error]


@check("copy_to_table() into a key-value table and out: all shards or none")
async def _():
    async with Connected() as connection:
        try:
            await connection.execute("SHOW pgkv.version")
        except asyncpg.UndefinedObjectError:
            return  # plain Postgres: a shard takes its own keys only
        if await connection.fetchval("SELECT to_regclass('kv')") is None:
            raise Skip("no key-value table here")
        tenant, columns = "compat asyncpg", ["tenant_id", "key", "value"]
        await connection.execute("DELETE FROM kv WHERE tenant_id = $1", tenant)
        records = [(tenant, f"kéy {i}", f'{{"n": {i}}}') for i in range(5_000)]
        lines = "".join(f"{t}\t{key}\t{value}\n" for t, key, value in records).encode()
        assert await connection.copy_to_table("kv", source=io.BytesIO(lines), columns=columns) == "COPY 5000"
        back = await connection.fetch("SELECT tenant_id, key, value::text FROM kv WHERE tenant_id = $1", tenant)
        assert sorted(tuple(row) for row in back) == sorted(records)
        again = io.BytesIO(b"compat asyncpg\tnew\t1\n" + lines.split(b"\n")[7] + b"\n")
        await database_error_of("23505", connection.copy_to_table("kv", source=again, columns=columns))
        # It parses a SELECT first, without a Sync: the COPY stands behind an open batch.
        await connection.execute("DELETE FROM kv WHERE tenant_id = $1", tenant)
        assert await connection.copy_records_to_table("kv", records=records, columns=columns) == "COPY 5000"
        async with connection.transaction():
            more = [(tenant, f"more {i}", "1") for i in range(50)]
            assert await connection.copy_records_to_table("kv", records=more, columns=columns) == "COPY 50"
        await connection.execute("DELETE FROM kv WHERE tenant_id = $1 AND key LIKE 'more%'", tenant)
        out = io.BytesIO()
        assert await connection.copy_from_query("SELECT tenant_id, key, value FROM kv WHERE tenant_id = $1", tenant, output=out, format="csv") == "COPY 5000"
        await connection.execute("DELETE FROM kv WHERE tenant_id = $1", tenant)
        source = io.BytesIO(out.getvalue())
        assert await connection.copy_to_table("kv", source=source, columns=columns, format="csv") == "COPY 5000"
        assert await connection.fetchval("SELECT count(*) FROM kv WHERE tenant_id = $1", tenant) == 5_000
        await connection.execute("DELETE FROM kv WHERE tenant_id = $1", tenant)


@check("a 5 MB value both ways")
async def _():
    async with Connected() as connection:
        text = "größer 🐘 " * 400_000
        assert await connection.fetchval("SELECT $1::text", text) == text
        data = bytes(range(256)) * 20_000
        assert await connection.fetchval("SELECT $1::bytea", data) == data


@check("100,000 rows: whole and by cursor")
async def _():
    async with Connected() as connection:
        query = "SELECT i, md5(i::text) FROM generate_series(1, $1::int) AS i"
        whole = [tuple(row) for row in await connection.fetch(query, 100_000)]
        async with connection.transaction():
            portions = [tuple(row) async for row in connection.cursor(query, 100_000, prefetch=3000)]
            assert portions == whole
            cursor = await connection.cursor("SELECT generate_series(1, 100) AS i")
            await cursor.forward(40)
            assert [row["i"] for row in await cursor.fetch(3)] == [41, 42, 43]
        return sha(str(whole))


@check("a pool of 20 that resets its connections")
async def _():
    async with asyncpg.create_pool(min_size=20, max_size=20) as pool:

        async def work(i):
            async with pool.acquire() as connection:
                if i % 4 == 0:
                    # What the pool's reset must take away again: a setting, a lock, a listener.
                    await connection.execute(f"SET application_name = 'worker {i}'; SELECT pg_advisory_lock({i}); LISTEN compat_asyncpg_pool")
                    assert await connection.fetchval("SHOW application_name") == f"worker {i}"
                else:
                    assert await connection.fetchval("SHOW application_name") == ""
                async with connection.transaction():
                    return await connection.fetchval("SELECT $1::int", i)

        assert await asyncio.gather(*(work(i) for i in range(200))) == list(range(200))
        assert await pool.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid::int8 < 200") == 0


@check("without the statement cache")
async def _():
    async with Connected(statement_cache_size=0) as connection:
        assert [await connection.fetchval("SELECT $1::int", i) for i in range(20)] == list(range(20))


@check("wrong password")
async def _():
    if not has_password:
        raise Skip("no password is asked for here")
    return await database_error_of("28P01", asyncpg.connect(password="certainly wrong"))


@check("unknown database")
async def _():
    return await database_error_of("3D000", asyncpg.connect(database="no_such_database"))


@check("clean up")
async def _():
    async with Connected() as connection:
        await connection.execute(f"DROP TABLE {TABLE}")


main()
