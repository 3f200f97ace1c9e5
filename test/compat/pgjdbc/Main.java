// pgjdbc doing its usual things: server-prepared statements from the first use, batches, generated keys, cursors by fetch size,
// metadata, autosave, COPY manager, notifications. One JSON line per check, as checks.mjs describes; run as a single source file.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Main {
  interface Body {
    Object run() throws Exception;
  }

  interface Work {
    void run() throws Exception;
  }

  static class Skip extends Exception {
    Skip(String reason) {
      super(reason);
    }
  }

  static boolean failed = false;

  public static void main(String[] arguments) throws Exception {
    try (Connection connection = connect(); Statement statement = connection.createStatement()) {
      statement.execute("DROP TABLE IF EXISTS compat_jdbc_child, compat_jdbc");
      statement.execute("CREATE TABLE compat_jdbc (id serial PRIMARY KEY, name text NOT NULL, data bytea, amount numeric(10, 2) DEFAULT 0)");
      statement.execute("CREATE TABLE compat_jdbc_child (id int PRIMARY KEY, parent int REFERENCES compat_jdbc (id))");
      statement.execute("CREATE INDEX compat_jdbc_name ON compat_jdbc (name)");
    }
    check("connect", Main::connects);
    check("simple and parameterised queries", Main::queries);
    check("types round trip, text and binary transfer", Main::types);
    check("server-prepared statements reused across transactions", Main::preparedAcrossTransactions);
    check("prepared statement after DDL", Main::preparedAfterDdl);
    check("transactions, rollback, savepoints", Main::transactions);
    check("autosave=always survives an error inside a transaction", Main::autosave);
    check("errors keep all fields", Main::errors);
    check("batches and rewritten batches", Main::batches);
    check("generated keys and RETURNING", Main::generatedKeys);
    check("cursors by fetch size", Main::cursors);
    check("metadata", Main::metadata);
    check("cancel and query timeout", Main::cancels);
    check("notices as warnings", Main::notices);
    check("LISTEN and NOTIFY", Main::notifications);
    check("COPY both ways", Main::copies);
    check("CopyManager into a key-value table: all shards or none", Main::keyedCopies);
    check("a 5 MB value both ways", Main::largeValue);
    check("stored procedures and functions", Main::callables);
    check("every query mode", Main::queryModes);
    check("20 connections at once", Main::concurrent);
    check("wrong password", Main::wrongPassword);
    check("unknown database", () -> errorOf("3D000", () -> connect("database=no_such_database").close()));
    try (Connection connection = connect(); Statement statement = connection.createStatement()) {
      statement.execute("DROP TABLE compat_jdbc_child, compat_jdbc");
    }
    System.exit(failed ? 1 : 0);
  }

  // ---- the harness ----

  static void check(String name, Body body) {
    long startedNs = System.nanoTime();
    StringBuilder line = new StringBuilder("{\"check\":" + json(name));
    try {
      Object answer = body.run();
      line.append(",\"ok\":true,\"answer\":").append(json(answer));
    } catch (Skip skip) {
      line.append(",\"ok\":true,\"skip\":").append(json(skip.getMessage()));
    } catch (Throwable error) {
      failed = true;
      java.io.StringWriter trace = new java.io.StringWriter();
      error.printStackTrace(new java.io.PrintWriter(trace));
      line.append(",\"ok\":false,\"error\":").append(json(trace.toString()));
      if (error instanceof SQLException sql) line.append(",\"sqlState\":").append(json(sql.getSQLState()));
    }
    System.out.println(line.append(",\"ms\":").append((System.nanoTime() - startedNs) / 1_000_000).append('}'));
  }

  static String json(Object value) {
    if (value == null || value instanceof Number || value instanceof Boolean) return String.valueOf(value);
    if (value instanceof List<?> list) {
      List<String> parts = new ArrayList<>();
      for (Object item : list) parts.add(json(item));
      return "[" + String.join(",", parts) + "]";
    }
    StringBuilder text = new StringBuilder("\"");
    for (char c : value.toString().toCharArray()) {
      if (c == '"' || c == '\\') text.append('\\').append(c);
      else if (c < ' ') text.append(String.format("\\u%04x", (int) c));
      else text.append(c);
    }
    return text.append('"').toString();
  }

  static void equal(Object actual, Object expected) {
    if (!java.util.Objects.equals(actual, expected)) throw new AssertionError("expected " + expected + ", got " + actual);
  }

  static String env(String name) {
    String value = System.getenv(name);
    return value == null ? "" : value;
  }

  /** A connection by the PG* variables; "name=value" options override, "database" and "password" among them. */
  static Connection connect(String... options) throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", env("PGUSER"));
    if (!env("PGPASSWORD").isEmpty()) properties.setProperty("password", env("PGPASSWORD"));
    String database = env("PGDATABASE");
    for (String option : options) {
      String[] pair = option.split("=", 2);
      if (pair[0].equals("database")) database = pair[1];
      else properties.setProperty(pair[0], pair[1]);
    }
    return DriverManager.getConnection("jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + database, properties);
  }

  /** The fields of a database error that must be the same through a router; the work must fail with this SQLSTATE. */
  static List<Object> errorOf(String sqlState, Work work) throws Exception {
    try {
      work.run();
    } catch (PSQLException error) {
      if (!sqlState.equals(error.getSQLState())) throw new AssertionError("expected " + sqlState, error);
      ServerErrorMessage server = error.getServerErrorMessage();
      if (server == null) return Arrays.asList(error.getSQLState(), error.getMessage());
      return Arrays.asList(server.getSeverity(), server.getSQLState(), server.getMessage(), server.getDetail(), server.getHint(), server.getPosition(),
          server.getWhere(), server.getSchema(), server.getTable(), server.getColumn(), server.getConstraint());
    }
    throw new AssertionError("expected SQLSTATE " + sqlState + ", but the work succeeded");
  }

  static List<Object> rows(ResultSet result) throws SQLException {
    List<Object> rows = new ArrayList<>();
    int columns = result.getMetaData().getColumnCount();
    while (result.next()) {
      List<Object> row = new ArrayList<>();
      for (int i = 1; i <= columns; i++) row.add(result.getString(i));
      rows.add(row);
    }
    return rows;
  }

  static List<Object> query(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet result = statement.executeQuery(sql)) {
      return rows(result);
    }
  }

  static void execute(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.execute(sql);
    }
  }

  static String sha(byte[] data) throws Exception {
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
  }

  // ---- the checks ----

  static Object connects() throws Exception {
    try (Connection connection = connect("ApplicationName=compat jdbc")) {
      equal(connection.isValid(5), true);
      DatabaseMetaData metadata = connection.getMetaData();
      equal(query(connection, "SELECT current_setting('application_name')"), List.of(List.of("compat jdbc")));
      connection.setClientInfo("ApplicationName", "renamed");
      equal(connection.getClientInfo("ApplicationName"), "renamed");
      return Arrays.asList(metadata.getDatabaseProductName(), metadata.getDatabaseProductVersion(), metadata.getDatabaseMajorVersion(),
          connection.getCatalog(), connection.getSchema(), metadata.getUserName());
    }
  }

  static Object queries() throws Exception {
    try (Connection connection = connect("prepareThreshold=1"); Statement statement = connection.createStatement()) {
      List<Object> answers = new ArrayList<>();
      boolean isResult = statement.execute("SELECT 1 AS one; SELECT 2 AS two; UPDATE compat_jdbc SET name = 'x' WHERE false");
      while (isResult || statement.getUpdateCount() != -1) {
        answers.add(isResult ? rows(statement.getResultSet()) : statement.getUpdateCount());
        isResult = statement.getMoreResults();
      }
      try (PreparedStatement prepared = connection.prepareStatement("SELECT ?::int + 1, ?::text, ?::text IS NULL")) {
        prepared.setInt(1, 41);
        prepared.setString(2, "ü");
        prepared.setNull(3, Types.VARCHAR);
        answers.add(rows(prepared.executeQuery()));
        answers.add(prepared.getParameterMetaData().getParameterCount());
      }
      try (PreparedStatement prepared = connection.prepareStatement("SELECT n FROM generate_series(1, 10) AS n WHERE n = ANY(?) ORDER BY n")) {
        prepared.setArray(1, connection.createArrayOf("int4", new Object[] {2, 4, 11}));
        answers.add(rows(prepared.executeQuery()));
      }
      return answers;
    }
  }

  static Object types() throws Exception {
    List<Object> answers = new ArrayList<>();
    for (String binary : List.of("true", "false")) {
      try (Connection connection = connect("prepareThreshold=-1", "binaryTransfer=" + binary);
          PreparedStatement prepared = connection.prepareStatement(
              "SELECT ?::int2, ?::int4, ?::int8, ?::float4, ?::float8, ?::numeric, ?::bool, ?::text, ?::bytea, ?::uuid, ?::date, ?::timestamp, ?::timestamptz, ?::text[], ?::jsonb, NULL::int")) {
        LocalDate date = LocalDate.of(2024, 2, 29);
        LocalDateTime timestamp = LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789_000);
        OffsetDateTime instant = OffsetDateTime.parse("2024-02-29T12:34:56.789Z");
        UUID uuid = UUID.fromString("6f9619ff-8b86-d011-b42d-00c04fc964ff");
        PGobject document = new PGobject();
        document.setType("jsonb");
        document.setValue("{\"a\": [1, null]}");
        Object[] values = {(short) -32768, Integer.MAX_VALUE, Long.MAX_VALUE, 1.5f, Math.PI, new java.math.BigDecimal("12345678901234567890.000010"), true,
            "Grüße 🐘 \\ ' \"", new byte[] {0, 1, (byte) 255, 92}, uuid, date, timestamp, instant, connection.createArrayOf("text", new Object[] {"a", "b,c", null}), document};
        for (int turn = 0; turn < 2; turn++) {
          for (int i = 0; i < values.length; i++) prepared.setObject(i + 1, values[i]);
          try (ResultSet result = prepared.executeQuery()) {
            result.next();
            equal(result.getShort(1), values[0]);
            equal(result.getLong(3), values[2]);
            equal(result.getDouble(5), values[4]);
            equal(result.getBigDecimal(6), values[5]);
            equal(result.getString(8), values[7]);
            equal(Arrays.toString(result.getBytes(9)), Arrays.toString((byte[]) values[8]));
            equal(result.getObject(10), uuid);
            equal(result.getObject(11, LocalDate.class), date);
            equal(result.getObject(12, LocalDateTime.class), timestamp);
            equal(result.getObject(13, OffsetDateTime.class).toInstant(), instant.toInstant());
            equal(Arrays.toString((Object[]) result.getArray(14).getArray()), "[a, b,c, null]");
            equal(result.getObject(16), null);
            List<Object> row = new ArrayList<>();
            // The bytes were compared above; as text, binary ones give their address.
            for (int i = 1; i <= 16; i++) if (i != 9) row.add(result.getString(i));
            answers.add(row);
          }
        }
      }
    }
    return answers;
  }

  static Object preparedAcrossTransactions() throws Exception {
    List<Connection> connections = new ArrayList<>();
    List<PreparedStatement> statements = new ArrayList<>();
    try {
      for (int i = 0; i < 4; i++) {
        connections.add(connect("prepareThreshold=1"));
        statements.add(connections.get(i).prepareStatement("SELECT ?::int * 2, '" + i + "'"));
        connections.get(i).setAutoCommit(false);
      }
      for (int turn = 0; turn < 12; turn++) {
        for (int i = 0; i < 4; i++) {
          statements.get(i).setInt(1, turn);
          equal(rows(statements.get(i).executeQuery()), List.of(List.of(String.valueOf(turn * 2), String.valueOf(i))));
          // Some transactions stay open over the next connections' turns, so a pooling router has to move the others about.
          if ((turn + i) % 3 != 0) connections.get(i).commit();
        }
      }
      for (Connection connection : connections) connection.commit();
      return statements.get(0).unwrap(PGStatement.class).isUseServerPrepare();
    } finally {
      for (Connection connection : connections) connection.close();
    }
  }

  static Object preparedAfterDdl() throws Exception {
    try (Connection connection = connect("prepareThreshold=1")) {
      execute(connection, "DROP TABLE IF EXISTS compat_jdbc_ddl");
      execute(connection, "CREATE TABLE compat_jdbc_ddl AS SELECT 1 AS a");
      try (PreparedStatement prepared = connection.prepareStatement("SELECT * FROM compat_jdbc_ddl")) {
        List<Object> before = rows(prepared.executeQuery());
        execute(connection, "ALTER TABLE compat_jdbc_ddl ADD COLUMN b text DEFAULT 'new'");
        // The driver sees "cached plan must not change result type", forgets its statement and retries by itself in autocommit.
        List<Object> after = rows(prepared.executeQuery());
        return List.of(before, after);
      } finally {
        execute(connection, "DROP TABLE compat_jdbc_ddl");
      }
    }
  }

  static Object transactions() throws Exception {
    try (Connection connection = connect()) {
      connection.setAutoCommit(false);
      connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
      List<Object> answers = new ArrayList<>();
      answers.add(query(connection, "SHOW transaction_isolation"));
      execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (1000, 'kept')");
      Savepoint savepoint = connection.setSavepoint("inner_one");
      answers.add(errorOf("23505", () -> execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (1000, 'again')")));
      errorOf("25P02", () -> query(connection, "SELECT 1"));
      connection.rollback(savepoint);
      connection.releaseSavepoint(connection.setSavepoint());
      connection.commit();
      execute(connection, "DELETE FROM compat_jdbc");
      connection.rollback();
      answers.add(query(connection, "SELECT count(*) FROM compat_jdbc"));
      connection.commit();
      connection.setReadOnly(true);
      answers.add(errorOf("25006", () -> execute(connection, "DELETE FROM compat_jdbc")));
      connection.rollback();
      connection.setReadOnly(false);
      execute(connection, "DELETE FROM compat_jdbc WHERE id = 1000");
      connection.commit();
      return answers;
    }
  }

  static Object autosave() throws Exception {
    try (Connection connection = connect("autosave=always", "prepareThreshold=1")) {
      connection.setAutoCommit(false);
      execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (2000, 'autosaved')");
      for (int i = 0; i < 3; i++) errorOf("22012", () -> query(connection, "SELECT 1/0"));
      List<Object> answer = query(connection, "SELECT name FROM compat_jdbc WHERE id = 2000");
      equal(answer, List.of(List.of("autosaved")));
      connection.rollback();
      return answer;
    }
  }

  static Object errors() throws Exception {
    try (Connection connection = connect()) {
      execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (3000, 'three thousand')");
      List<Object> answers = new ArrayList<>();
      answers.add(errorOf("23505", () -> execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (3000, 'x')")));
      answers.add(errorOf("23502", () -> execute(connection, "INSERT INTO compat_jdbc (id, name) VALUES (3001, NULL)")));
      answers.add(errorOf("23503", () -> execute(connection, "INSERT INTO compat_jdbc_child VALUES (1, 99999)")));
      answers.add(errorOf("42P01", () -> query(connection, "SELECT * FROM no_such_table")));
      answers.add(errorOf("42601", () -> query(connection, "SELEC 1")));
      answers.add(errorOf("22P02", () -> query(connection, "SELECT 'x'::int")));
      execute(connection, "DELETE FROM compat_jdbc WHERE id = 3000");
      return answers;
    }
  }

  static Object batches() throws Exception {
    List<Object> answers = new ArrayList<>();
    for (String rewrite : List.of("false", "true")) {
      try (Connection connection = connect("prepareThreshold=1", "reWriteBatchedInserts=" + rewrite);
          PreparedStatement insert = connection.prepareStatement("INSERT INTO compat_jdbc (id, name, amount) VALUES (?, ?, ?)")) {
        connection.setAutoCommit(false);
        for (int i = 0; i < 2000; i++) {
          insert.setInt(1, 10_000 + i);
          insert.setString(2, "batch " + i);
          insert.setBigDecimal(3, new java.math.BigDecimal(i).movePointLeft(2));
          insert.addBatch();
        }
        answers.add(insert.executeBatch().length);
        connection.commit();
        try (Statement mixed = connection.createStatement()) {
          mixed.addBatch("UPDATE compat_jdbc SET name = 'first' WHERE id = 10000");
          mixed.addBatch("DELETE FROM compat_jdbc WHERE id > 11000");
          mixed.addBatch("INSERT INTO compat_jdbc (id, name) VALUES (10000, 'again')");
          mixed.addBatch("DELETE FROM compat_jdbc");
          try {
            mixed.executeBatch();
            throw new AssertionError("the batch should have failed");
          } catch (BatchUpdateException error) {
            answers.add(error.getSQLState());
          }
        }
        connection.rollback();
        answers.add(query(connection, "SELECT count(*), sum(amount) FROM compat_jdbc WHERE id >= 10000"));
        execute(connection, "DELETE FROM compat_jdbc WHERE id >= 10000");
        connection.commit();
      }
    }
    return answers;
  }

  static Object generatedKeys() throws Exception {
    try (Connection connection = connect("prepareThreshold=1")) {
      execute(connection, "TRUNCATE compat_jdbc RESTART IDENTITY CASCADE");
      List<Object> answers = new ArrayList<>();
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO compat_jdbc (name) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
        for (String name : List.of("a", "b", "c")) {
          insert.setString(1, name);
          equal(insert.executeUpdate(), 1);
          answers.add(rows(insert.getGeneratedKeys()));
        }
        for (String name : List.of("d", "e")) {
          insert.setString(1, name);
          insert.addBatch();
        }
        insert.executeBatch();
        answers.add(rows(insert.getGeneratedKeys()));
      }
      try (PreparedStatement named = connection.prepareStatement("INSERT INTO compat_jdbc (name) VALUES ('f')", new String[] {"id", "amount"})) {
        named.executeUpdate();
        answers.add(rows(named.getGeneratedKeys()));
      }
      try (Statement updatable = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
          ResultSet result = updatable.executeQuery("SELECT id, name FROM compat_jdbc WHERE id = 1")) {
        result.next();
        result.updateString("name", "changed by the result set");
        result.updateRow();
      }
      answers.add(query(connection, "SELECT id, name FROM compat_jdbc ORDER BY id"));
      return answers;
    }
  }

  static Object cursors() throws Exception {
    try (Connection connection = connect("prepareThreshold=1", "defaultRowFetchSize=500")) {
      connection.setAutoCommit(false);
      long sum = 0;
      for (int fetchSize : new int[] {0, 7, 5000}) {
        try (Statement statement = connection.createStatement()) {
          statement.setFetchSize(fetchSize);
          int limit = fetchSize == 7 ? 1000 : 100_000;
          try (ResultSet result = statement.executeQuery("SELECT i, md5(i::text) FROM generate_series(1, " + limit + ") AS i")) {
            int rows = 0;
            while (result.next()) {
              sum += result.getInt(1);
              rows++;
            }
            equal(rows, limit);
          }
        }
      }
      try (Statement outer = connection.createStatement(); ResultSet result = outer.executeQuery("SELECT i FROM generate_series(1, 1200) AS i");
          PreparedStatement inner = connection.prepareStatement("SELECT ?::int * 2")) {
        // Two open portals: every outer row asks an inner question.
        while (result.next()) {
          inner.setInt(1, result.getInt(1));
          try (ResultSet answer = inner.executeQuery()) {
            answer.next();
            equal(answer.getInt(1), result.getInt(1) * 2);
          }
        }
      }
      try (Statement limited = connection.createStatement()) {
        limited.setMaxRows(10);
        equal(rows(limited.executeQuery("SELECT generate_series(1, 1000)")).size(), 10);
      }
      connection.commit();
      return sum;
    }
  }

  static Object metadata() throws Exception {
    try (Connection connection = connect()) {
      DatabaseMetaData metadata = connection.getMetaData();
      List<Object> answers = new ArrayList<>();
      answers.add(rows(metadata.getTables(null, "public", "compat_jdbc%", new String[] {"TABLE"})));
      answers.add(rows(metadata.getColumns(null, "public", "compat_jdbc", null)));
      answers.add(rows(metadata.getPrimaryKeys(null, "public", "compat_jdbc")));
      answers.add(rows(metadata.getImportedKeys(null, "public", "compat_jdbc_child")));
      answers.add(rows(metadata.getIndexInfo(null, "public", "compat_jdbc", false, true)).stream().map(row -> ((List<?>) row).get(5)).toList());
      answers.add(rows(metadata.getSchemas()).stream().map(row -> ((List<?>) row).get(0)).filter(name -> !String.valueOf(name).startsWith("pg_t")).toList());
      rows(metadata.getTypeInfo());
      rows(metadata.getProcedures(null, "public", "%"));
      rows(metadata.getFunctions(null, "public", "%"));
      answers.add(rows(metadata.getTableTypes()));
      answers.add(metadata.getSQLKeywords().length() > 0);
      try (PreparedStatement prepared = connection.prepareStatement("SELECT id, name, amount * 2 AS twice FROM compat_jdbc WHERE id = ?")) {
        ResultSetMetaData columns = prepared.getMetaData();
        for (int i = 1; i <= columns.getColumnCount(); i++) {
          answers.add(List.of(columns.getColumnLabel(i), columns.getColumnTypeName(i), columns.getTableName(i), columns.isNullable(i), columns.isAutoIncrement(i)));
        }
        answers.add(prepared.getParameterMetaData().getParameterTypeName(1));
      }
      return answers;
    }
  }

  static Object cancels() throws Exception {
    try (Connection connection = connect(); Statement statement = connection.createStatement()) {
      long startedNs = System.nanoTime();
      statement.setQueryTimeout(1);
      List<Object> byTimeout = errorOf("57014", () -> statement.execute("SELECT pg_sleep(20)"));
      statement.setQueryTimeout(0);
      Thread canceller = new Thread(() -> {
        try {
          Thread.sleep(300);
          statement.cancel();
        } catch (Exception error) {
          throw new IllegalStateException(error);
        }
      });
      canceller.start();
      List<Object> byCall = errorOf("57014", () -> statement.execute("SELECT pg_sleep(20)"));
      canceller.join();
      if (System.nanoTime() - startedNs > 8_000_000_000L) throw new AssertionError("the cancels took effect late");
      equal(query(connection, "SELECT 1"), List.of(List.of("1")));
      return List.of(byTimeout, byCall);
    }
  }

  static Object notices() throws Exception {
    try (Connection connection = connect(); Statement statement = connection.createStatement()) {
      statement.execute("DO $$ BEGIN RAISE NOTICE 'jdbc'; RAISE WARNING 'beware'; END $$");
      List<Object> heard = new ArrayList<>();
      for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
        heard.add(List.of(warning.getSQLState(), warning.getMessage()));
      }
      equal(heard.size(), 2);
      return heard;
    }
  }

  static Object notifications() throws Exception {
    try (Connection listener = connect(); Connection sender = connect()) {
      execute(listener, "LISTEN compat_jdbc");
      for (int i = 0; i < 3; i++) execute(sender, "NOTIFY compat_jdbc, 'p" + i + "'");
      List<Object> heard = new ArrayList<>();
      PGConnection notified = listener.unwrap(PGConnection.class);
      for (int waits = 0; waits < 20 && heard.size() < 3; waits++) {
        PGNotification[] some = notified.getNotifications(500);
        if (some != null) for (PGNotification one : some) heard.add(one.getName() + " " + one.getParameter());
      }
      equal(heard, List.of("compat_jdbc p0", "compat_jdbc p1", "compat_jdbc p2"));
      return heard;
    }
  }

  static Object copies() throws Exception {
    try (Connection connection = connect()) {
      CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
      StringBuilder text = new StringBuilder();
      for (int i = 0; i < 20_000; i++) text.append(10_000 + i).append("\tname ").append(i).append("\t\\N\t").append(i).append(".50\n");
      byte[] data = text.toString().getBytes(StandardCharsets.UTF_8);
      equal(copy.copyIn("COPY compat_jdbc FROM STDIN", new ByteArrayInputStream(data)), 20_000L);
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      equal(copy.copyOut("COPY (SELECT * FROM compat_jdbc WHERE id >= 10000 ORDER BY id) TO STDOUT", out), 20_000L);
      equal(out.toString(StandardCharsets.UTF_8), text.toString());
      List<Object> error = errorOf("22P02", () -> copy.copyIn("COPY compat_jdbc FROM STDIN", new ByteArrayInputStream("no number\tx\t\\N\t1\n".getBytes())));
      execute(connection, "DELETE FROM compat_jdbc WHERE id >= 10000");
      return List.of(sha(out.toByteArray()), error);
    }
  }

  static Object keyedCopies() throws Exception {
    try (Connection connection = connect()) {
      try {
        execute(connection, "SHOW pgkv.version");
      } catch (SQLException error) {
        equal(error.getSQLState(), "42704");
        return null; // plain Postgres: a shard takes its own keys only
      }
      try (Statement statement = connection.createStatement(); ResultSet there = statement.executeQuery("SELECT to_regclass('kv')")) {
        there.next();
        if (there.getString(1) == null) throw new Skip("no key-value table here");
      }
      execute(connection, "DELETE FROM kv WHERE tenant_id = 'compat jdbc'");
      CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
      StringBuilder text = new StringBuilder();
      for (int i = 0; i < 5_000; i++) text.append("compat jdbc\tkéy ").append(i).append("\t{\"n\": ").append(i).append("}\n");
      byte[] data = text.toString().getBytes(StandardCharsets.UTF_8);
      String sql = "COPY kv (tenant_id, key, value) FROM STDIN";
      equal(copy.copyIn(sql, new ByteArrayInputStream(data)), 5_000L);
      errorOf("23505", () -> copy.copyIn(sql, new ByteArrayInputStream("compat jdbc\tnew\t1\ncompat jdbc\tkéy 7\t1\n".getBytes(StandardCharsets.UTF_8))));
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      equal(copy.copyOut("COPY (SELECT tenant_id, key, value FROM kv WHERE tenant_id = 'compat jdbc' ORDER BY (value->>'n')::int) TO STDOUT", out), 5_000L);
      equal(out.toString(StandardCharsets.UTF_8), text.toString());
      execute(connection, "DELETE FROM kv WHERE tenant_id = 'compat jdbc'");
      return null;
    }
  }

  static Object largeValue() throws Exception {
    try (Connection connection = connect("prepareThreshold=1"); PreparedStatement prepared = connection.prepareStatement("SELECT ?::text, ?::bytea")) {
      String text = "größer 🐘 ".repeat(400_000);
      byte[] data = new byte[5_000_000];
      for (int i = 0; i < data.length; i++) data[i] = (byte) i;
      prepared.setString(1, text);
      prepared.setBytes(2, data);
      try (ResultSet result = prepared.executeQuery()) {
        result.next();
        equal(result.getString(1).equals(text), true);
        equal(Arrays.equals(result.getBytes(2), data), true);
      }
      return null;
    }
  }

  static Object callables() throws Exception {
    try (Connection connection = connect()) {
      execute(connection, "CREATE OR REPLACE FUNCTION compat_jdbc_twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'");
      execute(connection, "CREATE OR REPLACE PROCEDURE compat_jdbc_add(INOUT n int) LANGUAGE plpgsql AS 'BEGIN n := n + 1; END'");
      try (CallableStatement function = connection.prepareCall("{? = call compat_jdbc_twice(?)}")) {
        function.registerOutParameter(1, Types.INTEGER);
        function.setInt(2, 21);
        function.execute();
        equal(function.getInt(1), 42);
      }
      List<Object> procedure = query(connection, "CALL compat_jdbc_add(41)");
      execute(connection, "DROP FUNCTION compat_jdbc_twice; DROP PROCEDURE compat_jdbc_add");
      return procedure;
    }
  }

  static Object queryModes() throws Exception {
    List<Object> answers = new ArrayList<>();
    for (String mode : List.of("simple", "extended", "extendedForPrepared", "extendedCacheEverything")) {
      try (Connection connection = connect("preferQueryMode=" + mode, "prepareThreshold=1"); PreparedStatement prepared = connection.prepareStatement("SELECT ?::int + 1, ?::text")) {
        for (int i = 0; i < 5; i++) {
          prepared.setInt(1, i);
          prepared.setString(2, "it's");
          answers.add(rows(prepared.executeQuery()));
        }
        errorOf("22012", () -> query(connection, "SELECT 1/0"));
      }
    }
    return answers;
  }

  static Object concurrent() throws Exception {
    ExecutorService workers = Executors.newFixedThreadPool(20);
    try {
      List<Future<Integer>> results = new ArrayList<>();
      for (int worker = 0; worker < 20; worker++) {
        int own = worker;
        Callable<Integer> work = () -> {
          try (Connection connection = connect("prepareThreshold=1"); PreparedStatement prepared = connection.prepareStatement("SELECT ?::int, pg_sleep(0.001)")) {
            for (int turn = 0; turn < 20; turn++) {
              connection.setAutoCommit(turn % 2 == 0);
              prepared.setInt(1, own * 1000 + turn);
              try (ResultSet result = prepared.executeQuery()) {
                result.next();
                equal(result.getInt(1), own * 1000 + turn);
              }
              if (!connection.getAutoCommit()) connection.commit();
            }
            return own;
          }
        };
        results.add(workers.submit(work));
      }
      int sum = 0;
      for (Future<Integer> result : results) sum += result.get();
      return sum;
    } finally {
      workers.shutdownNow();
    }
  }

  static Object wrongPassword() throws Exception {
    if (env("PGPASSWORD").isEmpty()) throw new Skip("no password is asked for here");
    return errorOf("28P01", () -> connect("password=certainly wrong").close());
  }
}
