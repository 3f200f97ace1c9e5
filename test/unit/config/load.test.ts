// Settings from TOML: defaults, every problem with its line, secrets, slots.
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import t, { type Test } from 'tap';
import { defaultSettings, loadSettings } from '../../../src/config/load.js';
import { formatProblem } from '../../../src/config/problems.js';
import type { SecretSources } from '../../../src/config/secrets.js';
import type { Settings } from '../../../src/config/settings.js';
import { coverageFaults, evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { makeAuthority, noOpenssl } from '../../support/certificates.js';

/** Of no key that is left. */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIUC2qm3fGLoq9em75OHpTRt++8JCwwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMcGdrdi5leGFtcGxlMCAXDTI2MTEzMDEzMTMwNVoYDzIxMjYx
MTA2MTMxMzA1WjAXMRUwEwYDVQQDDAxwZ2t2LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAASWAHXw7nTT1vpAZsE8yH6GXuTnMJ8m6GHVAye/oXoP6pOZ
uBvlegDceH7jeoxd4u8J4oZIyesCEj9PwMWDl0Oho1MwUTAdBgNVHQ4EFgQUWwu5
Q3mUnsPWFginQygUFVMcNRYwHwYDVR0jBBgwFoAUWwu5Q3mUnsPWFginQygUFVMc
NRYwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBjo+cBJllfRfCO
7ANRMXX3qdmeaRjPLjqtHn19tMcJKAIhAIRaEPxH7+55gtRKnL86/0GeOGbfckCD
F3pd9Qf2qiyJ
-----END CERTIFICATE-----
`;

const SHARD = '[[shards]]\nname = "a"\n[[shards.nodes]]\nhost = "10.0.0.1"\n';

function sources(files: Record<string, string> = {}, environment: Record<string, string> = {}): SecretSources {
  return {
    environment,
    readFile(path) {
      const text = files[path];
      if (text === undefined)
        throw Object.assign(new Error(`ENOENT: no such file, open '${path}'`), { code: 'ENOENT' });
      return text;
    },
  };
}

function load(text: string, given: SecretSources = sources()): Settings {
  const result = loadSettings(text, '/etc/pgkv/pgkv.toml', given);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join('\n'));
  return result.settings;
}

/** Problems as `line key: message`. */
function problems(text: string, given: SecretSources = sources()): string[] {
  const result = loadSettings(text, 'pgkv.toml', given);
  return result.ok ? [] : result.problems.map((problem) => `${problem.line} ${problem.key}: ${problem.message}`);
}

t.test('one shard is enough, everything else has a default', async (t) => {
  const settings = load(SHARD);
  t.same(settings.shards, [
    { name: 'a', slots: [[0, 16383]], nodes: [{ host: '10.0.0.1', port: 5432, role: 'auto' }] },
  ]);
  t.equal(settings.listen.port, 7432);
  t.equal(settings.listen.socketDir, null);
  t.equal(settings.pool.preparedStatementsMax, 500);
  t.equal(settings.auth.service.password, null);
  t.same(settings, defaultSettings({ shards: [{ name: 'a', nodes: [{ host: '10.0.0.1' }] }] }));
});

t.test('all problems come at once, each with its line and key, in the order of the file', async (t) => {
  const text = [
    'workers = 0', // 1
    '[listen]',
    'prot = 7000', // 3
    'port = 70000', // 4
    'host = 5', // 5
    '[pool]',
    'wait_timeout = 5', // 7
    'size_max = "20"', // 8
    '[pools]', // 9
    '[servers]',
    'size_max = 3', // 11
    'tls = "on"', // 12
    '[auth.service]',
    'password = "hunter2"', // 14
    'password_env = 5', // 15
    '[[shards]]', // 16
    'name = "a"',
    'slots = [[0, 1], [5]]', // 18
    '[[shards.nodes]]', // 19
    'port = 5432.5', // 20
  ].join('\n');
  const found = problems(text);
  t.same(found, [
    '1 workers: expected a whole number from 1 to 64, found 0',
    '3 listen.prot: unknown key: did you mean "port"?',
    '4 listen.port: expected a whole number from 0 to 65535, found 70000',
    '5 listen.host: expected a text that is not empty, found 5',
    '7 pool.wait_timeout: unknown key: did you mean "wait_timeout_ms"?',
    '8 pool.size_max: expected a whole number from 1 to 10000, found the text "20"',
    '9 pools: unknown section or key: did you mean "pool"?',
    '11 servers.size_max: unknown key here: "size_max" belongs to [pool]',
    '12 servers.tls: expected one of "disable", "prefer", "require", "verify-ca", "verify-full", found the text "on"',
    '14 auth.service.password: is not read from this file: use password_env or password_file',
    '15 auth.service.password_env: expected a text',
    '18 shards[0].slots[1]: expected a pair [first, last], found a list of 1',
    '19 shards[0].nodes[0].host: is missing: expected a text that is not empty',
    '20 shards[0].nodes[0].port: expected a whole number from 1 to 65535, found 5432.5',
  ]);
  t.notMatch(found.join(), /hunter2/);
});

t.test('several syntax errors are found together, and with them what is wrong elsewhere', async (t) => {
  const found = problems(`[listen]\nport = \nhots = "x"\n[pool\nsize_max = 3\n[clients]\nidle = oops\n${SHARD}`);
  t.match(found[0], /^2 : not valid TOML at column \d+: /);
  t.equal(found[1], '3 listen.hots: unknown key: did you mean "host"?');
  t.match(found[2], /^4 : not valid TOML/);
  t.match(found[3], /^7 : not valid TOML/);
  t.equal(found.length, 4, 'the lines of the broken table header are not charged to another table');
  t.match(problems('a = [1,\n2\n'), [/not valid TOML/], 'an unclosed list ends the search');
  t.match(problems('a = "x\n'), [/^1 : not valid TOML/]);
  t.match(problems('[x]\n[x]\nb=1\n'), [/x: unknown section/, /^2 : not valid TOML.*redefine/]);
  t.match(problems('workers = 99999999999999999999\n'), [/^1 : not valid TOML.*losslessly/]);
  t.ok(problems('=\n'.repeat(500)).length <= 20, 'a file that is not TOML at all gives a bounded list');
});

t.test('a byte order mark and Windows line ends are accepted, lines stay right', async (t) => {
  t.equal(load(`\uFEFF${SHARD.replaceAll('\n', '\r\n')}`).shards.length, 1);
  t.same(problems(`\uFEFF${SHARD}[pool]\nsize = 1\n`.replaceAll('\n', '\r\n')), [
    '6 pool.size: unknown key: did you mean "size_max"?',
  ]);
});

t.test('rules across fields', async (t) => {
  const node = (host: string, more = '') => `[[shards.nodes]]\nhost = "${host}"\n${more}`;
  const cases: [string, string][] = [
    ['', '1 shards: no shard: add [[shards]] with a name and [[shards.nodes]] with a host'],
    [`${SHARD}[[shards]]\nname = "a"\n${node('b')}`, '6 shards[1].name: "a" is the name of shards[0] too'],
    [
      `${SHARD}[[shards]]\nname = "b"\n${node('10.0.0.1')}`,
      '8 shards[1].nodes[0].host: 10.0.0.1:5432 is already a node of shard "a"',
    ],
    [`${SHARD}${node('b:5432')}`, '6 shards[0].nodes[1].host: expected a host alone: the port has its own key'],
    [
      `${SHARD}${node('postgres://b')}`,
      '6 shards[0].nodes[1].host: expected a host, found a URL: give host and port separately',
    ],
    [
      `${SHARD}role = "primary"\n${node('b', 'role = "primary"\n')}`,
      '8 shards[0].nodes[1].role: shard "a" has a second primary: one at most, or "auto"',
    ],
    [
      `${SHARD}role = "replica"\n`,
      '3 shards[0].nodes: shard "a" has no primary: give one node role "primary" or "auto"',
    ],
    [`[tls]\ncert_file = "c"\n${SHARD}`, '2 tls.cert_file: needs tls.key_file'],
    [`[tls]\nkey_file = "c"\n${SHARD}`, '2 tls.key_file: needs tls.cert_file'],
    [`tls.required = true\n${SHARD}`, '1 tls.required: needs tls.cert_file and tls.key_file'],
    [
      `servers = { tls_ca_file = "c" }\n${SHARD}`,
      '1 servers.tls_ca_file: has no effect with servers.tls = "prefer": use "verify-ca" or "verify-full"',
    ],
    [
      `[listen]\nhost = "0.0.0.0"\n[auth]\nmethod = "trust"\n${SHARD}`,
      '4 auth.method: "trust" is for loopback and Unix sockets only, but listen.host is "0.0.0.0"',
    ],
    [`[auth.service]\nquery = "SELECT 1"\n${SHARD}`, '2 auth.service.query: must name the role as $1'],
    [`[http]\nport = 7432\n${SHARD}`, '2 http.port: is the port of [listen] too: 7432'],
    [`[listen]\nhost = "/tmp"\n${SHARD}`, '2 listen.host: is not an address: use listen.socket_dir'],
    [
      `[listen]\nsocket_dir = "/${'x'.repeat(100)}"\n${SHARD}`,
      '2 listen.socket_dir: is too long for a Unix socket (107 bytes with its name)',
    ],
    [
      `[clients]\nmessage_bytes_max = 2048\nquery_bytes_max = 4096\n${SHARD}`,
      '3 clients.query_bytes_max: is more than clients.message_bytes_max (2048), which cuts it first',
    ],
    [
      `[pool]\nlifetime_max_ms = 10\n${SHARD}`,
      '1 pool.idle_timeout_ms: is more than pool.lifetime_max_ms (10), which ends connections first',
    ],
  ];
  const given = sources({ [`${process.cwd()}/c`]: CERTIFICATE });
  for (const [text, expected] of cases) t.same(problems(text, given), [expected]);
});

t.test('rules across fields hold in sections beside one with a fault, and only there', async (t) => {
  const text = [
    '[listen]',
    'host = "0.0.0.0"',
    'port = "x"', // 3
    '[auth]',
    'method = "trust"', // 5, needs [listen], which is not known
    'service.password_env = "PW"', // 6
    '[tls]',
    'cert_file = "c"', // 8
    '[pool]',
    'lifetime_max_ms = 10', // 10
    'idle_timeout_ms = 20', // 11
  ].join('\n');
  t.same(problems(text, sources({ [`${process.cwd()}/c`]: CERTIFICATE })), [
    '1 shards: no shard: add [[shards]] with a name and [[shards.nodes]] with a host',
    '3 listen.port: expected a whole number from 0 to 65535, found the text "x"',
    '6 auth.service.password_env: the environment variable PW is not set',
    '8 tls.cert_file: needs tls.key_file',
    '11 pool.idle_timeout_ms: is more than pool.lifetime_max_ms (10), which ends connections first',
  ]);
  t.notMatch(
    problems(`[tls\nkey_file = "k"\n[pool]\nlifetime_max_ms = 1\n${SHARD}`).join(),
    /lifetime/,
    'nor beside what is no TOML',
  );
});

t.test('a time-out that setTimeout would turn into none is refused', async (t) => {
  t.same(problems(`[pool]\nwait_timeout_ms = 2147483648\n${SHARD}`), [
    '2 pool.wait_timeout_ms: expected a whole number from 1 to 2147483647, found 2147483648',
  ]);
});

t.test('slots are covered exactly once, or spread evenly', async (t) => {
  const shards = (...slots: string[]) =>
    slots.map((list, i) => `[[shards]]\nname = "s${i}"\n${list}\n[[shards.nodes]]\nhost = "h${i}"\n`).join('');
  t.same(
    load(shards('', '', '')).shards.map((shard) => shard.slots),
    [[[0, 5460]], [[5461, 10921]], [[10922, 16383]]],
  );
  const stated = load(shards('slots = [[0, 9], [20, 16383]]', 'slots = [[10, 19]]'));
  t.same(stated.shards[1]?.slots, [[10, 19]]);
  t.same(problems(shards('slots = [[0, 16383]]', '')), [
    '6 shards[1]: shard "s1" states no slots, but others do: all shards state theirs, or none',
  ]);
  t.same(problems(shards('slots = [[0, 100]]', 'slots = [[90, 200], [400, 300], [500, 16000]]')), [
    '1 shards: no shard holds slots 201 to 499 (of 0 to 16383)',
    '1 shards: no shard holds slots 16001 to 16383 (of 0 to 16383)',
    '8 shards[1].slots: range [400, 300] ends before it begins',
    '8 shards[1].slots: slots 90 to 100 belong to "s0" too',
  ]);
  t.same(problems(shards('slots = [[0, 100]]', 'slots = [[100, 16383]]')), [
    '8 shards[1].slots: slots 100 to 100 belong to "s0" too',
  ]);
  for (const count of [1, 2, 3, 7, 1000, 16384]) {
    t.same(coverageFaults(evenSlotRanges(count).map((range, owner) => ({ owner, range }))), [], `${count} shards`);
  }
});

t.test('paths are relative to the file, and what they name has to be there', { skip: noOpenssl }, async (t) => {
  const { cert, key } = pairs(t)[0]!;
  const files = sources({ '/etc/pgkv/tls/c.pem': cert, '/abs/k.pem': key });
  const settings = load(`[tls]\ncert_file = "tls/c.pem"\nkey_file = "/abs/k.pem"\n${SHARD}`, files);
  t.match(settings.tls, { certFile: '/etc/pgkv/tls/c.pem', keyFile: '/abs/k.pem' });
  const [first, second] = problems(
    `[tls]\ncert_file = "/none"\nkey_file = "/abs/x"\n${SHARD}`,
    sources({ '/abs/x': 'x' }),
  );
  t.match(first, /^2 tls\.cert_file: cannot be read: ENOENT/);
  t.equal(second, '3 tls.key_file: /abs/x is not a PEM file');
});

/** Two certificates with their keys, as texts. */
function pairs(t: Test): { readonly cert: string; readonly key: string }[] {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-load-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return ['one', 'other'].map((name) => {
    const { certFile, keyFile } = makeAuthority(folder, name);
    return { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
  });
}

t.test('certificates and keys that start would refuse are problems here', { skip: noOpenssl }, async (t) => {
  const [one, other] = pairs(t) as [{ cert: string; key: string }, { cert: string; key: string }];
  const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  const locked = createPrivateKey(one.key).export({
    type: 'pkcs8',
    format: 'pem',
    cipher: 'aes-256-cbc',
    passphrase: 'x',
  });
  const found = (cert: string, key: string, more = '') =>
    problems(`[tls]\ncert_file = "/c"\nkey_file = "/k"\n${more}${SHARD}`, sources({ '/c': cert, '/k': key }));
  t.strictSame(found(one.cert, one.key), []);
  t.strictSame(found(one.cert + other.cert, one.key), [], 'a chain');
  t.strictSame(found(one.key, one.cert), [
    '2 tls.cert_file: /c holds a private key, not a certificate',
    '3 tls.key_file: /k holds no private key',
  ]);
  t.strictSame(found(one.cert, other.key), ['3 tls.key_file: the key in /k does not belong to the certificate in /c']);
  t.match(found(broken, one.key), [/^2 tls\.cert_file: \/c holds no certificate that can be read: /]);
  t.match(found(one.cert, `${locked}`), [/^3 tls\.key_file: the private key in \/k cannot be used: it is encrypted/]);
  t.match(found(one.cert, one.key.replace(/\n[A-Za-z0-9+/]{9}/, '\n')), [
    /^3 tls\.key_file: the private key in \/k cannot/,
  ]);
  t.match(problems(`servers = { tls = "verify-ca", tls_ca_file = "/c" }\n${SHARD}`, sources({ '/c': broken })), [
    /^1 servers\.tls_ca_file: \/c holds no certificate/,
  ]);
});

t.test('what is no address and no network is said to be so, and what a network is', async (t) => {
  for (const host of ['10.0.0.0/99', '10.0.0/8', 'fd00::/129', 'db.example.com', '']) {
    t.match(problems(`[[auth.allow]]\nhosts = ["10.0.0.0/8", "${host}"]\n${SHARD}`), [
      /^2 auth\.allow\[0\]\.hosts\[1\]: the text "[^"]*" is neither an address, nor a network in CIDR notation .*0 to 32/,
    ]);
  }
});

t.test('secrets come from the environment or a file, and settings never show them', async (t) => {
  const env = load(`auth.service.password_env = "PW"\n${SHARD}`, sources({}, { PW: 'hunter2' }));
  t.equal(env.auth.service.password?.reveal(), 'hunter2');
  const file = load(`auth.service.password_file = "pw"\n${SHARD}`, sources({ '/etc/pgkv/pw': 'two words \r\n' }));
  t.equal(file.auth.service.password?.reveal(), 'two words ', 'only the line end is dropped');
  t.notMatch(`${JSON.stringify(env)}${inspect(env, { depth: 9 })}${env.auth.service.password}`, /hunter2/);

  const at = (line: string, given: SecretSources) => problems(`[auth.service]\n${line}\n${SHARD}`, given);
  t.same(at('password_env = "PW"', sources()), ['2 auth.service.password_env: the environment variable PW is not set']);
  t.same(at('password_env = "PW"', sources({}, { PW: '' })), [
    '2 auth.service.password_env: the environment variable PW is empty',
  ]);
  t.same(
    at('password_env = "hunter2"', sources()),
    ['2 auth.service.password_env: the environment variable it names is not set'],
    'what may be the password itself is not repeated',
  );
  t.same(at('password_file = "/pw"', sources()), ['2 auth.service.password_file: cannot read the file (ENOENT)']);
  t.same(at('password_file = "/pw"', sources({ '/pw': '\n' })), ['2 auth.service.password_file: the file is empty']);
  t.same(at('password_env = "A"\npassword_file = "/pw"', sources()), [
    '3 auth.service.password_file: give password_env or password_file, not both',
  ]);
});

t.test('default settings take overrides and refuse wrong ones', async (t) => {
  const settings = defaultSettings({ listen: { port: 0, socketDir: '/s' }, auth: { method: 'trust' } }, 'pw');
  t.match(settings.listen, { port: 0, socketDir: '/s', host: '127.0.0.1' });
  t.equal(settings.auth.service.password?.reveal(), 'pw');
  t.same(settings.shards, []);
  t.throws(() => defaultSettings({ pool: { sizeMax: 0 } }), { sqlstate: 'XX000', message: /pool\.size_max: expected/ });
  t.throws(() => defaultSettings({ tls: { required: true } }), { message: /tls\.required: needs/ });
});
