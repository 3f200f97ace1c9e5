// pgx v5 doing its usual things: every query execution mode, batches, pipelines, CopyFrom, pools, LISTEN, cancel by context.
// One JSON line per check, as checks.mjs describes.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	table     = "compat_pgx"
	timeLimit = 60 * time.Second
)

type check struct {
	name string
	body func(ctx context.Context) any
}

// skip is thrown (by panic) by a check that does not apply here.
type skip string

// must ends the check with the error, if there is one.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(actual, expected any) {
	if !reflect.DeepEqual(actual, expected) {
		panic(fmt.Errorf("expected %#v, got %#v", expected, actual))
	}
}

// connect opens a connection by the PG* variables; adjust may change its configuration.
func connect(ctx context.Context, adjust func(*pgx.ConnConfig)) *pgx.Conn {
	config, err := pgx.ParseConfig("")
	must(err)
	if adjust != nil {
		adjust(config)
	}
	connection, err := pgx.ConnectConfig(ctx, config)
	must(err)
	return connection
}

func plain(ctx context.Context) *pgx.Conn { return connect(ctx, nil) }

func exec(ctx context.Context, connection *pgx.Conn, sql string, arguments ...any) string {
	tag, err := connection.Exec(ctx, sql, arguments...)
	must(err)
	return tag.String()
}

// scalar asks for one value of the type T.
func scalar[T any](ctx context.Context, connection interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, arguments ...any) T {
	var value T
	must(connection.QueryRow(ctx, sql, arguments...).Scan(&value))
	return value
}

// errorOf gives the fields that must be the same through a router; err must carry this SQLSTATE.
func errorOf(sqlState string, err error) map[string]any {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != sqlState {
		panic(fmt.Errorf("expected SQLSTATE %s, got %v", sqlState, err))
	}
	return map[string]any{"severity": e.Severity, "code": e.Code, "message": e.Message, "detail": e.Detail, "hint": e.Hint, "position": e.Position,
		"where": e.Where, "schema": e.SchemaName, "table": e.TableName, "column": e.ColumnName, "constraint": e.ConstraintName}
}

func run(ctx context.Context, c check) (passed bool) {
	started := time.Now()
	line := map[string]any{"check": c.name, "ok": true}
	limited, cancel := context.WithTimeout(ctx, timeLimit)
	defer func() {
		cancel()
		switch thrown := recover().(type) {
		case nil:
		case skip:
			line["skip"] = string(thrown)
		default:
			line["ok"], line["error"] = false, fmt.Sprint(thrown)
		}
		line["ms"] = time.Since(started).Milliseconds()
		must(json.NewEncoder(os.Stdout).Encode(line))
		passed = line["ok"].(bool)
	}()
	line["answer"] = c.body(limited)
	return
}

func main() {
	ctx := context.Background()
	allPassed := true
	for _, c := range checks {
		allPassed = run(ctx, c) && allPassed
	}
	if !allPassed {
		os.Exit(1)
	}
}

var checks = []check{
	{"connect", connects},
	{"simple and parameterised queries", queries},
	{"types round trip", types},
	{"every query execution mode", executionModes},
	{"prepared statements reused across transactions", preparedAcrossTransactions},
	{"cached statement after DDL", cachedAfterDDL},
	{"transactions, rollback, savepoints", transactions},
	{"errors keep all fields", errorFields},
	{"batches", batches},
	{"pipeline of the low-level connection", pipeline},
	{"CopyFrom, COPY in and out", copies},
	{"CopyFrom into a key-value table: all shards or none", keyedCopies},
	{"cancel by context", cancels},
	{"notices", notices},
	{"LISTEN and NOTIFY", notifications},
	{"a 5 MB value both ways", largeValue},
	{"100,000 rows", manyRows},
	{"20 connections at once, pooled", pooled},
	{"several statements in one Exec", multipleStatements},
	{"wrong password", wrongPassword},
	{"unknown database", unknownDatabase},
	{"clean up", cleanUp},
}

func connects(ctx context.Context) any {
	connection := connect(ctx, func(config *pgx.ConnConfig) {
		config.RuntimeParams["application_name"] = "compat pgx"
		config.RuntimeParams["TimeZone"] = "Asia/Tokyo"
	})
	defer connection.Close(ctx)
	must(connection.Ping(ctx))
	equal(scalar[string](ctx, connection, "SELECT current_user::text"), os.Getenv("PGUSER"))
	equal(scalar[string](ctx, connection, "SHOW application_name"), "compat pgx")
	equal(connection.PgConn().ParameterStatus("TimeZone"), "Asia/Tokyo")
	return []string{connection.PgConn().ParameterStatus("server_version"), connection.PgConn().ParameterStatus("server_encoding")}
}

func queries(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	exec(ctx, connection, "DROP TABLE IF EXISTS "+table)
	exec(ctx, connection, "CREATE TABLE "+table+" (id int PRIMARY KEY, name text NOT NULL, data bytea)")
	tags := []string{
		exec(ctx, connection, "INSERT INTO "+table+" VALUES ($1, $2), ($3, $4)", 1, "one", 2, "two"),
		exec(ctx, connection, "UPDATE "+table+" SET name = name || $1", "!"),
	}
	rows, err := connection.Query(ctx, "SELECT id, name FROM "+table+" WHERE id = ANY($1) ORDER BY id", []int32{1, 2, 3})
	must(err)
	type record struct {
		ID   int32
		Name string
	}
	records, err := pgx.CollectRows(rows, pgx.RowToStructByPos[record])
	must(err)
	equal(records, []record{{1, "one!"}, {2, "two!"}})
	named, err := connection.Query(ctx, "SELECT @a::int + @b::int AS sum", pgx.NamedArgs{"a": 40, "b": 2})
	must(err)
	sums, err := pgx.CollectRows(named, pgx.RowToMap)
	must(err)
	return []any{tags, records, sums}
}

func types(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	at := time.Date(2024, 2, 29, 12, 34, 56, 789_000, time.UTC)
	var numeric pgtype.Numeric
	must(numeric.Scan("12345678901234567890.000010"))
	var (
		i2       int16
		i4       int32
		i8       int64
		f4       float32
		f8       float64
		n        pgtype.Numeric
		b        bool
		t        string
		data     []byte
		uuid     pgtype.UUID
		date     time.Time
		stamp    time.Time
		zoned    time.Time
		interval pgtype.Interval
		ints     []int32
		texts    []*string
		document map[string]any
		span     pgtype.Range[pgtype.Int4]
		missing  *string
	)
	must(uuid.Scan("6f9619ff-8b86-d011-b42d-00c04fc964ff"))
	word := "b,c\"\\"
	in := []any{int16(-32768), int32(math.MaxInt32), int64(math.MaxInt64), float32(1.5), math.Pi, numeric, true, "Grüße 🐘 \\ ' \"", []byte{0, 1, 255, 92},
		uuid, at.Truncate(24 * time.Hour), at, at, pgtype.Interval{Months: 1, Days: 2, Microseconds: 3, Valid: true}, []int32{1, -2, 3}, []*string{&word, nil},
		map[string]any{"a": []any{1.0, nil}}, pgtype.Range[pgtype.Int4]{Lower: pgtype.Int4{Int32: 1, Valid: true}, Upper: pgtype.Int4{Int32: 9, Valid: true}, LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true}, nil}
	names := []string{"int2", "int4", "int8", "float4", "float8", "numeric", "bool", "text", "bytea", "uuid", "date", "timestamp", "timestamptz", "interval", "int4[]", "text[]", "jsonb", "int4range", "text"}
	columns := make([]string, len(names))
	for i, name := range names {
		columns[i] = fmt.Sprintf("$%d::%s", i+1, name)
	}
	must(connection.QueryRow(ctx, "SELECT "+strings.Join(columns, ", "), in...).Scan(&i2, &i4, &i8, &f4, &f8, &n, &b, &t, &data, &uuid, &date, &stamp, &zoned, &interval, &ints, &texts, &document, &span, &missing))
	out := []any{i2, i4, i8, f4, f8, n, b, t, data, uuid, date, stamp, zoned.UTC(), interval, ints, texts, document, span}
	for i := range out {
		equal(out[i], in[i])
	}
	equal(missing == nil, true)
	return fmt.Sprint(i2, i4, i8, f4, f8, b, t, data, stamp, zoned.UTC(), ints, document)
}

func executionModes(ctx context.Context) any {
	modes := []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}
	answers := []any{}
	for _, mode := range modes {
		connection := connect(ctx, func(config *pgx.ConnConfig) {
			config.DefaultQueryExecMode = mode
			config.StatementCacheCapacity = 3
			config.DescriptionCacheCapacity = 3
		})
		for turn := range 10 {
			equal(scalar[string](ctx, connection, fmt.Sprintf("SELECT $1::text || '%d'", turn%5), "it's "), fmt.Sprintf("it's %d", turn%5))
			transaction, err := connection.Begin(ctx)
			must(err)
			equal(scalar[int32](ctx, transaction, "SELECT $1::int4 * 2", turn), int32(turn*2))
			must(transaction.Commit(ctx))
		}
		_, err := connection.Exec(ctx, "SELECT 1/$1::int4", 0)
		answers = append(answers, errorOf("22012", err)["message"], scalar[string](ctx, connection, "SELECT 'alive'"))
		must(connection.Close(ctx))
	}
	return answers
}

func preparedAcrossTransactions(ctx context.Context) any {
	connections := []*pgx.Conn{plain(ctx), plain(ctx), plain(ctx), plain(ctx)}
	for i, connection := range connections {
		defer connection.Close(ctx)
		description, err := connection.Prepare(ctx, "own", fmt.Sprintf("SELECT $1::int4 * 2, 'c%d'", i))
		must(err)
		equal(len(description.Fields), 2)
	}
	for turn := range 12 {
		open := []pgx.Tx{}
		for i, connection := range connections {
			// Some transactions stay open over the next connections' turns, so a pooling router has to move the others about.
			if (turn+i)%3 == 0 {
				transaction, err := connection.Begin(ctx)
				must(err)
				open = append(open, transaction)
			}
			var n int32
			var c string
			must(connection.QueryRow(ctx, "own", turn).Scan(&n, &c))
			equal([]any{n, c}, []any{int32(turn * 2), fmt.Sprintf("c%d", i)})
		}
		for _, transaction := range open {
			must(transaction.Commit(ctx))
		}
	}
	must(connections[0].Deallocate(ctx, "own"))
	_, err := connections[1].Exec(ctx, "DEALLOCATE ALL")
	must(err)
	must(connections[2].DeallocateAll(ctx))
	return nil
}

func cachedAfterDDL(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	exec(ctx, connection, "DROP TABLE IF EXISTS compat_pgx_ddl")
	exec(ctx, connection, "CREATE TABLE compat_pgx_ddl AS SELECT 1 AS a")
	defer func() { exec(ctx, connection, "DROP TABLE compat_pgx_ddl") }()
	read := func() (map[string]any, error) {
		rows, err := connection.Query(ctx, "SELECT * FROM compat_pgx_ddl")
		if err != nil {
			return nil, err
		}
		return pgx.CollectOneRow(rows, pgx.RowToMap)
	}
	first, err := read()
	must(err)
	exec(ctx, connection, "ALTER TABLE compat_pgx_ddl ADD COLUMN b text DEFAULT 'new'")
	// pgx forgets a cached statement after this error; the program retries.
	if _, err = read(); err != nil {
		errorOf("0A000", err)
	}
	second, err := read()
	must(err)
	equal(len(second), 2)
	return []any{first, second}
}

func transactions(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	answers := []any{}
	err := pgx.BeginTxFunc(ctx, connection, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(transaction pgx.Tx) error {
		answers = append(answers, scalar[string](ctx, transaction, "SHOW transaction_isolation"))
		_, err := transaction.Exec(ctx, "INSERT INTO "+table+" VALUES (1000, 'kept')")
		must(err)
		inner, err := transaction.Begin(ctx)
		must(err)
		_, err = inner.Exec(ctx, "INSERT INTO "+table+" VALUES (1000, 'again')")
		answers = append(answers, errorOf("23505", err))
		_, err = inner.Exec(ctx, "SELECT 1")
		errorOf("25P02", err)
		return inner.Rollback(ctx)
	})
	must(err)
	undo := errors.New("undo")
	err = pgx.BeginFunc(ctx, connection, func(transaction pgx.Tx) error {
		_, err := transaction.Exec(ctx, "DELETE FROM "+table)
		must(err)
		return undo
	})
	equal(err, undo)
	err = pgx.BeginTxFunc(ctx, connection, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(transaction pgx.Tx) error {
		_, err := transaction.Exec(ctx, "DELETE FROM "+table)
		return err
	})
	answers = append(answers, errorOf("25006", err), scalar[int64](ctx, connection, "SELECT count(*) FROM "+table))
	exec(ctx, connection, "DELETE FROM "+table+" WHERE id = 1000")
	return answers
}

func errorFields(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	answers := []any{}
	for _, failing := range []struct {
		sqlState, sql string
		arguments     []any
	}{
		{"23505", "INSERT INTO " + table + " VALUES ($1, 'x')", []any{1}},
		{"23502", "INSERT INTO " + table + " VALUES ($1, $2)", []any{7, nil}},
		{"42P01", "SELECT * FROM no_such_table", nil},
		{"42601", "SELEC 1", nil},
		{"22012", "SELECT 1/$1::int4", []any{0}},
		{"22P02", "SELECT $1::text::int4", []any{"x"}},
	} {
		_, err := connection.Exec(ctx, failing.sql, failing.arguments...)
		answers = append(answers, errorOf(failing.sqlState, err))
	}
	return append(answers, scalar[string](ctx, connection, "SELECT 'alive'"))
}

func batches(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	batch := &pgx.Batch{}
	for i := range 200 {
		batch.Queue("INSERT INTO "+table+" VALUES ($1, $2)", 2000+i, fmt.Sprint("batched ", i))
	}
	counted := int64(0)
	batch.Queue("SELECT count(*) FROM " + table + " WHERE id >= 2000").QueryRow(func(row pgx.Row) error { return row.Scan(&counted) })
	must(connection.SendBatch(ctx, batch).Close())
	equal(counted, int64(200))
	// A failing member undoes the whole batch: it is one implicit transaction.
	failing := &pgx.Batch{}
	failing.Queue("DELETE FROM " + table)
	failing.Queue("SELECT 1/0")
	failing.Queue("SELECT 1")
	results := connection.SendBatch(ctx, failing)
	_, err := results.Exec()
	must(err)
	_, err = results.Exec()
	answer := errorOf("22012", err)
	_ = results.Close() // gives the same error again
	equal(scalar[int64](ctx, connection, "SELECT count(*) FROM "+table+" WHERE id >= 2000"), int64(200))
	exec(ctx, connection, "DELETE FROM "+table+" WHERE id >= 2000")
	return answer
}

func pipeline(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	flow := connection.PgConn().StartPipeline(ctx)
	flow.SendPrepare("piped", "SELECT $1::int4 + 1", nil)
	for i := range 50 {
		flow.SendQueryPrepared("piped", [][]byte{[]byte(fmt.Sprint(i))}, nil, nil)
	}
	flow.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
	flow.SendQueryParams("SELECT 'skipped'", nil, nil, nil, nil)
	must(flow.Sync())
	flow.SendQueryParams("SELECT 'after the sync'", nil, nil, nil, nil)
	must(flow.Sync())
	seen := []string{}
	for {
		result, err := flow.GetResults()
		if err != nil {
			seen = append(seen, errorOf("22012", err)["code"].(string))
			continue
		}
		if result == nil {
			break
		}
		switch result := result.(type) {
		case *pgconn.StatementDescription:
			seen = append(seen, fmt.Sprint("described ", result.ParamOIDs, len(result.Fields)))
		case *pgconn.ResultReader:
			read := result.Read()
			if read.Err != nil {
				seen = append(seen, errorOf("22012", read.Err)["code"].(string))
				continue
			}
			seen = append(seen, string(read.Rows[0][0]))
		case *pgconn.PipelineSync:
			seen = append(seen, "sync")
		}
	}
	must(flow.Close())
	equal(seen[len(seen)-2], "after the sync")
	return seen
}

func copies(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	count, err := connection.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "name", "data"}, pgx.CopyFromSlice(20_000, func(i int) ([]any, error) {
		return []any{10_000 + i, fmt.Sprint("näme ", i), bytes.Repeat([]byte{byte(i)}, i%40)}, nil
	}))
	must(err)
	equal(count, int64(20_000))
	var out bytes.Buffer
	tag, err := connection.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM "+table+" WHERE id >= 10000 ORDER BY id) TO STDOUT")
	must(err)
	exec(ctx, connection, "DELETE FROM "+table+" WHERE id >= 10000")
	again, err := connection.PgConn().CopyFrom(ctx, bytes.NewReader(out.Bytes()), "COPY "+table+" FROM STDIN")
	must(err)
	equal([]string{tag.String(), again.String()}, []string{"COPY 20000", "COPY 20000"})
	_, err = connection.PgConn().CopyFrom(ctx, strings.NewReader("no number\tx\t\\N\n"), "COPY "+table+" FROM STDIN")
	answer := errorOf("22P02", err)
	_, err = connection.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{1, "duplicate"}}))
	errorOf("23505", err)
	exec(ctx, connection, "DELETE FROM "+table+" WHERE id >= 10000")
	return []any{fmt.Sprintf("%x", sha256.Sum256(out.Bytes())), answer}
}

func keyedCopies(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	if _, err := connection.Exec(ctx, "SHOW pgkv.version", pgx.QueryExecModeSimpleProtocol); err != nil {
		errorOf("42704", err)
		return nil // plain Postgres: a shard takes its own keys only
	}
	var there bool
	must(connection.QueryRow(ctx, "SELECT to_regclass('kv') IS NOT NULL").Scan(&there))
	if !there {
		panic(skip("no key-value table here"))
	}
	const tenant = "compat pgx"
	columns := []string{"tenant_id", "key", "value", "ttl"}
	later := time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
	row := func(i int) ([]any, error) {
		return []any{tenant, fmt.Sprint("kéy ", i), map[string]int{"n": i}, later}, nil
	}
	exec(ctx, connection, "DELETE FROM kv WHERE tenant_id = $1", tenant)
	count, err := connection.CopyFrom(ctx, pgx.Identifier{"kv"}, columns, pgx.CopyFromSlice(5_000, row))
	must(err)
	equal(count, int64(5_000))
	_, err = connection.CopyFrom(ctx, pgx.Identifier{"kv"}, columns, pgx.CopyFromSlice(2, func(i int) ([]any, error) { return row(4_999 + i) }))
	errorOf("23505", err)
	var seen, sum int
	must(connection.QueryRow(ctx, "SELECT count(*), sum((value->>'n')::int) FROM kv WHERE tenant_id = $1", tenant).Scan(&seen, &sum))
	equal([]int{seen, sum}, []int{5_000, 4_999 * 2_500})
	var out bytes.Buffer
	tag, err := connection.PgConn().CopyTo(ctx, &out, "COPY (SELECT tenant_id, key, value, ttl FROM kv WHERE tenant_id = 'compat pgx') TO STDOUT")
	must(err)
	exec(ctx, connection, "DELETE FROM kv WHERE tenant_id = $1", tenant)
	again, err := connection.PgConn().CopyFrom(ctx, bytes.NewReader(out.Bytes()), "COPY kv (tenant_id, key, value, ttl) FROM STDIN")
	must(err)
	equal([]string{tag.String(), again.String()}, []string{"COPY 5000", "COPY 5000"})
	exec(ctx, connection, "DELETE FROM kv WHERE tenant_id = $1", tenant)
	return nil
}

func cancels(ctx context.Context) any {
	connection := connect(ctx, func(config *pgx.ConnConfig) {
		config.BuildContextWatcherHandler = func(underlying *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: underlying, CancelRequestDelay: 0, DeadlineDelay: 10 * time.Second}
		}
	})
	defer connection.Close(ctx)
	started := time.Now()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := connection.Exec(short, "SELECT pg_sleep(20)")
	answer := errorOf("57014", err)
	if time.Since(started) > 8*time.Second {
		panic("the cancel took effect late")
	}
	equal(scalar[int32](ctx, connection, "SELECT 1"), int32(1))
	return answer["message"]
}

func notices(ctx context.Context) any {
	heard := []string{}
	connection := connect(ctx, func(config *pgx.ConnConfig) {
		config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
			heard = append(heard, notice.Severity+" "+notice.Code+" "+notice.Message)
		}
	})
	defer connection.Close(ctx)
	exec(ctx, connection, "DO $$ BEGIN RAISE NOTICE 'pgx'; END $$")
	exec(ctx, connection, "DROP TABLE IF EXISTS compat_pgx_absent")
	equal(len(heard), 2)
	return heard
}

func notifications(ctx context.Context) any {
	listener, sender := plain(ctx), plain(ctx)
	defer listener.Close(ctx)
	defer sender.Close(ctx)
	exec(ctx, listener, "LISTEN compat_pgx")
	heard := []string{}
	for i := range 3 {
		exec(ctx, sender, "SELECT pg_notify('compat_pgx', $1)", fmt.Sprint("p", i))
	}
	for range 3 {
		notification, err := listener.WaitForNotification(ctx)
		must(err)
		heard = append(heard, notification.Channel+" "+notification.Payload)
	}
	equal(heard, []string{"compat_pgx p0", "compat_pgx p1", "compat_pgx p2"})
	return heard
}

func largeValue(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	text := strings.Repeat("größer 🐘 ", 400_000)
	equal(scalar[string](ctx, connection, "SELECT $1::text", text) == text, true)
	data := bytes.Repeat([]byte{0, 1, 2, 255, 92}, 1_000_000)
	equal(bytes.Equal(scalar[[]byte](ctx, connection, "SELECT $1::bytea", data), data), true)
	return nil
}

func manyRows(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	rows, err := connection.Query(ctx, "SELECT i, md5(i::text) FROM generate_series(1, $1::int4) AS i", 100_000)
	must(err)
	sum := sha256.New()
	count := 0
	for rows.Next() {
		var i int32
		var hash string
		must(rows.Scan(&i, &hash))
		fmt.Fprintln(sum, i, hash)
		count++
	}
	must(rows.Err())
	equal(count, 100_000)
	// Left early: the driver reads the rest away.
	early, err := connection.Query(ctx, "SELECT generate_series(1, 50000)")
	must(err)
	equal(early.Next(), true)
	early.Close()
	equal(scalar[int32](ctx, connection, "SELECT 1"), int32(1))
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func pooled(ctx context.Context) any {
	config, err := pgxpool.ParseConfig("")
	must(err)
	config.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(err)
	defer pool.Close()
	var group sync.WaitGroup
	failures := make(chan error, 400)
	for i := range 400 {
		group.Go(func() {
			err := pgx.BeginFunc(ctx, pool, func(transaction pgx.Tx) error {
				var n int32
				if err := transaction.QueryRow(ctx, "SELECT $1::int4", i).Scan(&n); err != nil {
					return err
				}
				if n != int32(i) {
					return fmt.Errorf("asked for %d, got %d", i, n)
				}
				_, err := transaction.Exec(ctx, "SELECT set_config('pgkv_compat.turn', $1, true)", fmt.Sprint(i))
				return err
			})
			if err != nil {
				failures <- err
			}
		})
	}
	group.Wait()
	close(failures)
	for failure := range failures {
		panic(failure)
	}
	return nil
}

func multipleStatements(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	tag := exec(ctx, connection, "SELECT 1; INSERT INTO "+table+" VALUES (3000, 'x'); DELETE FROM "+table+" WHERE id = 3000")
	_, err := connection.Exec(ctx, "INSERT INTO "+table+" VALUES (3000, 'x'); SELECT 1/0")
	errorOf("22012", err)
	equal(scalar[int64](ctx, connection, "SELECT count(*) FROM "+table+" WHERE id = 3000"), int64(0))
	return tag
}

func wrongPassword(ctx context.Context) any {
	if os.Getenv("PGPASSWORD") == "" {
		panic(skip("no password is asked for here"))
	}
	config, err := pgx.ParseConfig("")
	must(err)
	config.Password = "certainly wrong"
	_, err = pgx.ConnectConfig(ctx, config)
	return errorOf("28P01", err)
}

func unknownDatabase(ctx context.Context) any {
	config, err := pgx.ParseConfig("")
	must(err)
	config.Database = "no_such_database"
	_, err = pgx.ConnectConfig(ctx, config)
	return errorOf("3D000", err)
}

func cleanUp(ctx context.Context) any {
	connection := plain(ctx)
	defer connection.Close(ctx)
	return exec(ctx, connection, "DROP TABLE "+table)
}
