// What may stand in a log line, and how it looks.
import t from 'tap';
import { PgkvError } from '../../../src/base/errors.js';
import { createLogger, formatLogLine, type LogDestination, type LogOptions } from '../../../src/telemetry/log.js';
import { redactServerMessage, redactSql } from '../../../src/telemetry/redact.js';

function capture(options: Partial<LogOptions> = {}, isTTY = false) {
  const lines: string[] = [];
  const destination: LogDestination = { isTTY, write: (line) => void lines.push(line) };
  return { lines, log: createLogger({ level: 'info', format: 'json', values: false, ...options }, destination) };
}

function serverError(code: string, message: string): Error {
  return Object.assign(new Error(message), {
    severity: 'ERROR',
    code,
    detail: 'Key (k)=(secret) exists',
    where: 'secret',
  });
}

t.test('SQL keeps its shape and loses its literals', async (t) => {
  const cases: [string, string][] = [
    ["SELECT * FROM kv WHERE key = 'secret' AND n = 42", 'SELECT * FROM kv WHERE key = ? AND n = ?'],
    ["SELECT 'it''s secret', 'b'", 'SELECT ?, ?'],
    ["SELECT E'a\\'secret', e'\\\\', x", 'SELECT ?, ?, x'],
    ["SELECT U&'secret', B'01', X'ff', N'secret'", 'SELECT ?, ?, ?, ?'],
    ['SELECT $$secret$$, $t$ $$ secret $t$, $1', 'SELECT ?, ?, $1'],
    ['SELECT 1.5e-3, .5, 0xFF, 1_000, t1, "Col 1", a$1', 'SELECT ?, ?, ?, ?, t1, "Col 1", a$1'],
    ['SELECT /* secret /* x */ */ 1 -- secret\n+ 2', 'SELECT   ?   + ?'],
    ["SELECT 'a\\b', 'c\\\\', d", 'SELECT ?, ?, d'],
    ["SELECT 'a\\', 'secret'", 'SELECT ?...'],
    ["SELECT 'secret", 'SELECT ?...'],
    ['SELECT $q$ secret', 'SELECT ?...'],
    ['SELECT /* secret', 'SELECT ?...'],
    ['SELECT "secret', 'SELECT ?...'],
    ["SELECT größe FROM t WHERE ü = 'secret'", 'SELECT größe FROM t WHERE ü = ?'],
    ['', ''],
  ];
  for (const [sql, expected] of cases) t.equal(redactSql(sql), expected, sql);
  t.equal(redactSql(`SELECT '${"x''".repeat(3_000_000)}'`), 'SELECT ?', 'a literal of megabytes');
});

t.test('messages of servers lose what they quote', async (t) => {
  const cases: [string, string, string][] = [
    ['22P02', 'invalid input syntax for type integer: "secret"', 'invalid input syntax for type integer: ?...'],
    ['22003', 'value 99999 is out of range', 'value ? is out of range'],
    ['42601', 'Syntaxfehler bei »secret«', 'Syntaxfehler bei ?...'],
    ['P0001', 'secret', '?'],
    ['01000', 'secret', '?'],
    [
      '28P01',
      'password authentication failed for user "pgkv_service"',
      'password authentication failed for user "pgkv_service"',
    ],
  ];
  for (const [code, message, expected] of cases) t.equal(redactServerMessage(code, message), expected);
});

t.test('values reach the log only where asked for', async (t) => {
  const write = (values: boolean) => {
    const { lines, log } = capture({ values });
    const cause = serverError('23505', 'duplicate "secret"');
    log.info({ sql: "SELECT 'secret'", parameters: ['secret'] }, 'statement');
    log.error(serverError('22P02', 'bad "secret"'));
    log.error({ err: serverError('22P02', 'bad "secret"') });
    log.error({ err: new PgkvError('internal', { message: 'lost shard-1', cause }) }, 'failed');
    log.error({ err: new AggregateError([cause], 'all failed') }, 'failed');
    log.error({ err: 'secret' }, 'failed');
    log.child({ session: 7 }).warn({ sql: "SELECT 'secret'" }, 'child');
    return lines;
  };
  const masked = write(false);
  for (const line of masked) t.notMatch(line, /secret/);
  t.match(JSON.parse(masked[0]!), {
    level: 'info',
    pid: process.pid,
    sql: 'SELECT ?',
    parameters: '1 values',
    msg: 'statement',
  });
  t.match(JSON.parse(masked[1]!), { msg: 'bad ?...', err: { code: '22P02', message: 'bad ?...', stack: /log\.test/ } });
  t.match(JSON.parse(masked[3]!), { err: { message: 'lost shard-1', sqlstate: 'XX000', cause: { code: '23505' } } });
  const shown = write(true);
  t.equal(shown.length, masked.length);
  for (const line of shown) t.match(line, /secret/);
});

t.test('the level holds, and silent is silent', async (t) => {
  const { lines, log } = capture({ level: 'warn' });
  log.info('no');
  log.warn('yes');
  t.equal(lines.length, 1);
  const silent = capture({ level: 'silent' });
  silent.log.fatal('no');
  t.equal(silent.lines.length, 0);
});

t.test('"auto" is one line for people on a terminal, JSON elsewhere', async (t) => {
  const terminal = capture({ format: 'auto' }, true);
  terminal.log.info({ port: 7432 }, 'listening');
  const colourless = terminal.lines[0]?.replaceAll(/\p{Cc}\[\d+m/gu, '') ?? '';
  t.not(colourless, terminal.lines[0], 'levels have a colour');
  t.match(colourless, /^\d\d:\d\d:\d\d\.\d{3} INFO {2}listening port=7432\n$/);
  const pipe = capture({ format: 'auto' });
  pipe.log.info('listening');
  t.match(JSON.parse(pipe.lines[0]!), { msg: 'listening' });
  const forced = capture({ format: 'line' });
  forced.log.warn({ name: 'two words', empty: '' }, 'm');
  t.match(forced.lines[0], / WARN {2}m name="two words" empty=""\n$/);
  t.notMatch(forced.lines[0]?.trimEnd(), /\p{Cc}/u, 'no colour into a file');
});

t.test('no text can fake a line or steer the terminal', async (t) => {
  const { lines, log } = capture({ format: 'line' });
  log.info({ user: 'x\n00:00 INFO fake', u2: '\u001b[2J' }, 'a\nb\u2028c\u009b');
  log.error({ err: new Error('boom\u001b[2J') }, 'failed');
  t.equal(lines[0]?.split('\n').length, 2);
  for (const line of lines) t.notMatch(line.replaceAll('\n', ''), /[\p{Cc}\u2028]/u);
  t.match(lines[1], /failed\n {4}"?Error: boom/);
  t.equal(formatLogLine('not JSON\n', false), 'not JSON\n');
});
