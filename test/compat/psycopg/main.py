"""psycopg 3 doing its usual things: client and server-side cursors, prepare threshold, pipeline mode, COPY, binary, pools."""

import datetime
import decimal
import os
import sys
import threading
import time
import uuid
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import psycopg
from checks import Skip, check, has_password, main, sha
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

TABLE = "compat_psycopg"


def connect(**options):
    return psycopg.connect("", autocommit=options.pop("autocommit", True), **options)


def database_error_of(sqlstate, call):
    """The fields of a database error that must be the same through a router; `call` must fail with this SQLSTATE."""
    try:
        call()
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, f"expected {sqlstate}, got {error.sqlstate}: {error}"
        diag = error.diag
        names = "severity sqlstate message_primary message_detail message_hint context statement_position schema_name table_name column_name constraint_name"
        return {name: getattr(diag, name) for name in names.split()}
    raise AssertionError(f"expected SQLSTATE {sqlstate}, but the call succeeded")


@check("connect")
def _():
    with connect() as connection:
        info = connection.info
        assert info.user == os.environ["PGUSER"] and info.dbname == os.environ["PGDATABASE"]
        assert connection.closed is False and info.transaction_status.name == "IDLE"
        names = "server_version server_encoding client_encoding integer_datetimes standard_conforming_strings DateStyle TimeZone".split()
        return [info.server_version, {name: info.parameter_status(name) for name in names}]


@check("simple and parameterised queries")
def _():
    with connect(row_factory=dict_row) as connection:
        simple = connection.execute("SELECT 1 AS one, NULL AS nothing").fetchall()
        parameterised = connection.execute("SELECT %s + 1 AS n, %s::text AS t", (41, "x")).fetchall()
        named = connection.execute("SELECT %(a)s::int AS a, %(b)s::date AS b", {"a": 1, "b": datetime.date(2024, 2, 29)}).fetchall()
        assert parameterised == [{"n": 42, "t": "x"}]
        cursor = connection.execute("SELECT 1 AS a; SELECT 2 AS b; VALUES (3), (4)")
        several = [cursor.fetchall()]
        while cursor.nextset():
            several.append(cursor.fetchall())
        assert len(several) == 3
        literal = psycopg.ClientCursor(connection).execute("SELECT %s AS quoted", ("it's \\ here",)).fetchall()
        raw = psycopg.RawCursor(connection).execute("SELECT $1::int AS raw", [5]).fetchall()
        return [simple, parameterised, named, several, literal, raw, connection.execute("").statusmessage]


@check("types round trip, text and binary")
def _():
    values = {
        "int2": -32768, "int4": 2147483647, "int8": 2**63 - 1, "float4": 1.5, "float8": 3.141592653589793,
        "numeric": decimal.Decimal("12345678901234567890.000010"), "bool": True, "text": "Grüße 🐘 \\ ' \"", "bytea": b"\x00\x01\xff\\'",
        "uuid": uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"), "date": datetime.date(2024, 2, 29), "time": datetime.time(12, 34, 56, 789),
        "timestamp": datetime.datetime(2024, 2, 29, 12, 34, 56, 789), "timestamptz": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
        "interval": datetime.timedelta(days=2, seconds=5, microseconds=6), "int4[]": [1, -2, 3], "text[]": ["a", "b,c", '"q"', None],
    }  # fmt: skip
    columns = ", ".join(f'%s::{name} AS "{name}"' for name in values)
    answers = []
    with connect(row_factory=dict_row) as connection:
        for binary in (False, True):
            row = connection.execute(f"SELECT {columns}", list(values.values()), binary=binary).fetchone()
            assert row == values, (binary, row)
            bound = ", ".join(f'%b::{name} AS "{name}"' for name in values)
            assert connection.execute(f"SELECT {bound}", list(values.values()), binary=binary).fetchone() == values
            answers.append({name: str(value) for name, value in row.items()})
        document = {"a": [1, None, {"ü": "🐘"}]}
        assert connection.execute("SELECT %s AS doc", [Jsonb(document)], binary=True).fetchone() == {"doc": document}
        answers.append(str(connection.execute("SELECT '[1,10)'::int4range AS r, '10.0.0.0/8'::cidr AS c, NULL::text AS n").fetchone()))
    return answers


@check("prepared statements by threshold, reused across transactions")
def _():
    connections = [connect(autocommit=False, prepare_threshold=0) for _ in range(4)]
    try:
        for turn in range(15):
            for index, connection in enumerate(connections):
                row = connection.execute("SELECT %s::int * 2, %s::text", (turn, f"c{index}")).fetchone()
                assert row == (turn * 2, f"c{index}"), row
                # Some transactions stay open over the next connections' turns, so a pooling router has to move the others about.
                if (turn + index) % 3 != 0:
                    connection.commit()
        for connection in connections:
            connection.commit()
    finally:
        for connection in connections:
            connection.close()
    with connect(prepare_threshold=2) as connection:
        connection.prepared_max = 3
        for turn in range(12):
            assert connection.execute(f"SELECT {turn % 5}, %s::int", [turn]).fetchone() == (turn % 5, turn)
        assert connection.execute("SELECT %s::int", [1], prepare=True).fetchone() == (1,)
        connection.execute("DEALLOCATE ALL")
        assert connection.execute("SELECT %s::int", [2], prepare=True).fetchone() == (2,)


@check("transactions, rollback, savepoints")
def _():
    with connect(autocommit=False) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        connection.execute(f"CREATE TABLE {TABLE} (id int PRIMARY KEY, name text NOT NULL, data bytea)")
        connection.commit()
        connection.execute(f"INSERT INTO {TABLE} VALUES (1, 'one')")
        with_error = []
        try:
            with connection.transaction("inner_block"):
                connection.execute(f"INSERT INTO {TABLE} VALUES (2, 'two')")
                connection.execute(f"INSERT INTO {TABLE} VALUES (1, 'again')")
        except psycopg.errors.UniqueViolation as error:
            with_error.append(error.sqlstate)
        assert connection.info.transaction_status.name == "INTRANS"
        database_error_of("22012", lambda: connection.execute("SELECT 1/0"))
        assert connection.info.transaction_status.name == "INERROR"
        database_error_of("25P02", lambda: connection.execute("SELECT 1"))
        connection.rollback()
        assert connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (0,)
        connection.execute(f"INSERT INTO {TABLE} VALUES (1, 'one'), (2, 'two')")
        connection.commit()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.read_only = True
        level = connection.execute("SHOW transaction_isolation").fetchone()
        database_error_of("25006", lambda: connection.execute(f"DELETE FROM {TABLE}"))
        connection.rollback()
        return [with_error, level]


@check("errors keep all fields")
def _():
    with connect() as connection:
        run = connection.execute
        return [
            database_error_of("23505", lambda: run(f"INSERT INTO {TABLE} VALUES (1, 'x')")),
            database_error_of("23502", lambda: run(f"INSERT INTO {TABLE} VALUES (%s, %s)", (77, None))),
            database_error_of("42P01", lambda: run("SELECT * FROM no_such_table")),
            database_error_of("42601", lambda: run("SELEC 1")),
            database_error_of("22P02", lambda: run("SELECT %s::text::int", ("x",))),
            run("SELECT 'alive'").fetchone(),
        ]


@check("pipeline mode")
def _():
    with connect(autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int", [i]) for i in range(200)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))

        def fail_in_the_middle():
            with connection.pipeline():
                connection.execute("SELECT 1/%s::int", [0])
                connection.execute("SELECT %s::int", [1])  # skipped: it stands before the next Sync

        error = database_error_of("22012", fail_in_the_middle)
        with connection.pipeline():
            assert connection.execute("SELECT %s::int", [3]).fetchone() == (3,)
        with connection.pipeline(), connection.transaction():
            # Before one Sync a pipeline is one unit: writes and reads in order.
            connection.execute(f"INSERT INTO {TABLE} VALUES (%s, %s)", (60, "piped"))
            seen = connection.execute(f"SELECT name FROM {TABLE} WHERE id = %s", [60])
            connection.execute(f"DELETE FROM {TABLE} WHERE id = %s", [60])
            assert seen.fetchone() == ("piped",)
        connection.cursor().executemany(f"INSERT INTO {TABLE} VALUES (%s, %s)", [(100 + i, f"many {i}") for i in range(500)])
        cursor = connection.cursor()
        cursor.executemany(f"DELETE FROM {TABLE} WHERE id = %s RETURNING id", [(100 + i,) for i in range(500)], returning=True)
        returned = [cursor.fetchone()[0]]
        while cursor.nextset():
            returned.append(cursor.fetchone()[0])
        assert returned == list(range(100, 600))
        return error["message_primary"]


@check("cancel")
def _():
    with connect() as connection:
        timer = threading.Timer(0.3, lambda: connection.cancel_safe(timeout=5))
        timer.start()
        started = time.monotonic()
        error = database_error_of("57014", lambda: connection.execute("SELECT pg_sleep(20)"))
        assert time.monotonic() - started < 8
        timer.join()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        return error["message_primary"]


@check("notices")
def _():
    with connect() as connection:
        heard = []
        connection.add_notice_handler(lambda diag: heard.append([diag.severity, diag.sqlstate, diag.message_primary, diag.message_hint]))
        connection.execute("DO $$ BEGIN RAISE NOTICE 'psycopg' USING HINT = 'h'; END $$")
        connection.execute("DROP TABLE IF EXISTS compat_psycopg_absent")
        assert len(heard) == 2
        return heard


@check("LISTEN and NOTIFY")
def _():
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN compat_psycopg")
        for i in range(3):
            sender.execute("SELECT pg_notify('compat_psycopg', %s)", (f"p{i}",))
        heard = [notify.payload for notify in listener.notifies(timeout=10, stop_after=3)]
        listener.execute("UNLISTEN *")
        assert heard == ["p0", "p1", "p2"], heard


@check("COPY both ways, text and binary")
def _():
    rows = [(10_000 + i, f"näme {i}\t\\", bytes([i % 256]) * (i % 40)) for i in range(10_000)]
    hashes = []
    with connect() as connection:
        for options in ("", " (FORMAT BINARY)"):
            with connection.cursor().copy(f"COPY {TABLE} FROM STDIN{options}") as copy:
                copy.set_types(["int4", "text", "bytea"])
                for row in rows:
                    copy.write_row(row)
            with connection.cursor().copy(f"COPY (SELECT * FROM {TABLE} WHERE id >= 10000 ORDER BY id) TO STDOUT{options}") as copy:
                copy.set_types(["int4", "text", "bytea"])
                assert list(copy.rows()) == rows
            with connection.cursor().copy(f"COPY (SELECT * FROM {TABLE} WHERE id >= 10000 ORDER BY id) TO STDOUT{options}") as copy:
                hashes.append(sha(b"".join(bytes(block) for block in copy)))
            connection.execute(f"DELETE FROM {TABLE} WHERE id >= 10000")

        def fail_in_the_middle():
            with connection.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
                copy.write("777777\tx\t\\N\n")
                copy.write("not a number\tx\t\\N\n")

        error = database_error_of("22P02", fail_in_the_middle)
        try:
            with connection.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
                copy.write("777778\tx\t\\N\n")
                raise KeyError("the program gives up")
        except KeyError:
            pass
        assert connection.execute(f"SELECT count(*) FROM {TABLE} WHERE id >= 777777").fetchone() == (0,)
        return [hashes, error["message_primary"], error["context"]]


@check("copy() into a key-value table and out, text and binary: all shards or none")
def _():
    with connect() as connection:
        try:
            connection.execute("SHOW pgkv.version")
        except psycopg.errors.UndefinedObject:
            return  # plain Postgres: a shard takes its own keys only
        if connection.execute("SELECT to_regclass('kv')").fetchone() == (None,):
            raise Skip("no key-value table here")
        tenant = "compat psycopg"
        connection.execute("DELETE FROM kv WHERE tenant_id = %s", (tenant,))
        later = datetime.datetime(2999, 1, 1, tzinfo=datetime.timezone.utc)
        rows = [(tenant, f"kéy {i}\t\\", {"n": i}, later if i % 2 else None) for i in range(5_000)]
        columns = "tenant_id, key, value, ttl"
        for options in ("", " (FORMAT BINARY)"):
            with connection.cursor().copy(f"COPY kv ({columns}) FROM STDIN{options}") as copy:
                copy.set_types(["text", "text", "jsonb", "timestamptz"])
                for t, key, value, ttl in rows:
                    copy.write_row((t, key, Jsonb(value), ttl))
            with connection.cursor().copy(f"COPY (SELECT {columns} FROM kv WHERE tenant_id = 'compat psycopg') TO STDOUT{options}") as copy:
                copy.set_types(["text", "text", "jsonb", "timestamptz"])
                assert sorted(copy.rows(), key=lambda row: row[1]) == sorted(rows, key=lambda row: row[1])
            error = database_error_of("23505", lambda: copied(connection, columns, [*rows[:10], rows[0]]))
            assert error["context"].startswith("COPY kv, line "), error
            connection.execute("DELETE FROM kv WHERE tenant_id = %s", (tenant,))
        error = database_error_of("22P02", lambda: copied(connection, columns, [*[(t, k, 1, None) for t, k, _, _ in rows], (tenant, "bad", "{", None)]))
        assert "COPY kv, line 5001, column value" in error["context"], error
        try:
            with connection.cursor().copy(f"COPY kv ({columns}) FROM STDIN") as copy:
                copy.write_row((tenant, "given up", 1, None))
                raise KeyError("the program gives up")
        except KeyError:
            pass
        assert connection.execute("SELECT count(*) FROM kv WHERE tenant_id = %s", (tenant,)).fetchone() == (0,)
    with connect(autocommit=False) as connection:
        copied(connection, columns, rows)
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM kv WHERE tenant_id = %s", (tenant,)).fetchone() == (0,)
        copied(connection, columns, rows)
        connection.execute("DELETE FROM kv WHERE tenant_id = %s AND key = %s", (tenant, rows[0][1]))
        connection.commit()
        assert connection.execute("SELECT count(*) FROM kv WHERE tenant_id = %s", (tenant,)).fetchone() == (len(rows) - 1,)
        connection.execute("DELETE FROM kv WHERE tenant_id = %s", (tenant,))
        connection.commit()


def copied(connection, columns, rows):
    with connection.cursor().copy(f"COPY kv ({columns}) FROM STDIN") as copy:
        for t, key, value, ttl in rows:
            copy.write_row((t, key, Jsonb(value) if isinstance(value, dict) else str(value), ttl))


@check("a 5 MB value both ways")
def _():
    with connect() as connection:
        text = "größer 🐘 " * 400_000
        assert connection.execute("SELECT %s::text", (text,)).fetchone() == (text,)
        data = bytes(range(256)) * 20_000
        assert connection.execute("SELECT %b::bytea", (data,), binary=True).fetchone() == (data,)


@check("100,000 rows: whole, server-side cursor, stream")
def _():
    query = "SELECT i, md5(i::text) FROM generate_series(1, 100000) AS i"
    with connect(autocommit=False) as connection:
        whole = connection.execute(query).fetchall()
        with connection.cursor(name="server_side") as cursor:
            cursor.itersize = 5000
            cursor.execute(query)
            assert list(cursor) == whole
        with connection.cursor(name="scrolling", scrollable=True) as cursor:
            cursor.execute("SELECT generate_series(1, 100)")
            cursor.scroll(50)
            forward = cursor.fetchone()
            cursor.scroll(-10)
            assert (forward, cursor.fetchone()) == ((51,), (42,))
        with connection.cursor(name="held", withhold=True) as cursor:
            cursor.execute("SELECT generate_series(1, 10)")
            connection.commit()
            assert len(cursor.fetchall()) == 10
        connection.commit()
        # Row by row, and in the chunks of libpq 17, which the pinned binary package brings along.
        for options in ({}, {"size": 1000}):
            streamed = sum(1 for _row in connection.cursor().stream("SELECT i FROM generate_series(1, 100000) AS i", **options))
            assert (len(whole), streamed) == (100_000, 100_000)
        return sha(str(whole))


@check("20 connections at once, pooled and reset")
def _():
    def reset(connection):
        connection.autocommit = True
        connection.execute("RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all()")
        connection.autocommit = False

    with ConnectionPool("", min_size=20, max_size=20, reset=reset) as pool:
        failures = []

        def work(worker):
            try:
                for turn in range(10):
                    with pool.connection() as connection:
                        assert connection.execute("SELECT %s::int + %s::int, pg_sleep(0.001)", (worker, turn)).fetchone()[0] == worker + turn
                        connection.execute("SELECT set_config('pgkv_compat.worker', %s, true)", (str(worker),))
                        assert connection.execute("SELECT current_setting('pgkv_compat.worker')").fetchone() == (str(worker),)
            except Exception as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [], failures


@check("two-phase commit calls answer as the server does")
def _():
    connection = connect(autocommit=False)
    try:
        connection.tpc_begin(connection.xid(1, "compat-psycopg", "b"))
        connection.execute("SELECT 1")
        connection.tpc_prepare()
        connection.tpc_rollback()
        return "prepared"
    except psycopg.Error as error:
        if error.sqlstate == "0A000" and "PGKV-030" in str(error):
            raise Skip("refused in databases with key-value tables") from error
        return [error.sqlstate, str(error)]  # 55000 where the server allows no prepared transactions
    finally:
        connection.close()


@check("wrong password")
def _():
    if not has_password:
        raise Skip("no password is asked for here")
    try:
        connect(password="certainly wrong")
    except psycopg.OperationalError as error:
        message = str(error)
        assert "password authentication failed" in message, message
        return message[message.index("FATAL") :]
    raise AssertionError("the wrong password was accepted")


@check("unknown database")
def _():
    try:
        connect(dbname="no_such_database")
    except psycopg.OperationalError as error:
        message = str(error)
        return message[message.index("FATAL") :]
    raise AssertionError("connected to a database that does not exist")


@check("clean up")
def _():
    with connect() as connection:
        connection.execute(f"DROP TABLE {TABLE}")


main()
