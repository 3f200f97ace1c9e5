// SCRAM against the real thing: our client signs in to Postgres, psql (libpq) signs in to our server half, and both
// servers refuse the same bad messages with the same words. Certificates are made by openssl, one of each kind.
import { execFile, spawnSync } from 'node:child_process';
import { randomBytes, X509Certificate } from 'node:crypto';
import { chmodSync, chownSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import t from 'tap';
import { md5Password } from '../../src/wire/md5-password.js';
import { ScramClient, type ScramCredential } from '../../src/wire/scram-client.js';
import { BINDING_TYPE, type ChannelBinding } from '../../src/wire/scram-message.js';
import { makeVerifier, parseVerifier, type ScramVerifier } from '../../src/wire/scram-verifier.js';
import { tlsServerEndPoint } from '../../src/wire/tls-server-end-point.js';
import { findPostgres, serverAccount } from '../support/postgres-binaries.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { listenForScram, RawClient } from '../support/scram-peers.js';

const PASSWORD = 'pencil ✏\u00a0IX';
const AUTHENTICATION = { ok: 0, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 };
const KINDS = {
  'RSA with SHA-256': ['rsa:2048', '-sha256'],
  'RSA with SHA-512': ['rsa:2048', '-sha512'],
  'RSA-PSS with SHA-384': ['rsa:2048', '-sha384', '-sigopt', 'rsa_padding_mode:pss'],
  'ECDSA with SHA-384': ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-sha384'],
  'Ed25519, which has no binding data': ['ed25519'],
};

const missing = !findPostgres('15')
  ? 'Postgres 15 is not installed'
  : spawnSync('openssl', ['version']).status !== 0 && 'openssl is not installed';
let postgres: PostgresServer;
let folder: string;

const skip = missing ? { skip: missing } : {};

t.before(async () => {
  if (missing) return;
  folder = mkdtempSync(join(tmpdir(), 'pgkv-scram-'));
  chmodSync(folder, 0o755);
  makeCertificate('RSA with SHA-256');
  const files = { ssl_cert_file: join(folder, 'server.crt'), ssl_key_file: join(folder, 'server.key') };
  postgres = await startPostgres({ version: '15', hba: 'scram', parameters: { ssl: 'on', ...files } });
  const sql = await superuser();
  await sql.query(`CREATE ROLE ann LOGIN PASSWORD ${sql.escapeLiteral(PASSWORD)}`);
  await sql.query(`SET password_encryption = 'md5'; CREATE ROLE mad LOGIN PASSWORD ${sql.escapeLiteral(PASSWORD)}`);
  await sql.end();
  const hba = join(postgres.dataDir, 'pg_hba.conf');
  writeFileSync(hba, `host all mad 127.0.0.1/32 md5\n${readFileSync(hba, 'utf8')}`);
  await reload();
});

t.teardown(async () => {
  await postgres?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

/** A connection over the Unix socket, which trusts. */
async function superuser(): Promise<pg.Client> {
  const client = new pg.Client({
    host: postgres.socketDir,
    port: postgres.port,
    user: postgres.superuser,
    database: 'postgres',
  });
  await client.connect();
  return client;
}

/** Makes new connections see changed files: pg_reload_conf() itself only sends a signal. */
async function reload(): Promise<void> {
  const loadTime = async () => {
    const sql = await superuser();
    const { rows } = await sql.query<{ at: string }>('SELECT pg_conf_load_time()::text AS at');
    await sql.end();
    return rows[0]!.at;
  };
  const before = await loadTime();
  const sql = await superuser();
  await sql.query('SELECT pg_reload_conf()');
  await sql.end();
  while ((await loadTime()) === before) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A self-signed certificate as server.crt and server.key, which the server may read. */
function makeCertificate(kind: keyof typeof KINDS): { cert: Buffer; key: Buffer; der: Buffer } {
  const [key, cert] = [join(folder, 'new.key'), join(folder, 'new.crt')];
  const args = ['req', '-x509', '-nodes', '-subj', '/CN=localhost', '-days', '2', '-keyout', key, '-out', cert];
  const made = spawnSync('openssl', [...args, '-newkey', ...KINDS[kind]], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(made.stderr);
  for (const name of ['key', 'crt']) {
    const target = join(folder, `server.${name}`);
    copyFileSync(join(folder, `new.${name}`), target);
    chmodSync(target, 0o600);
    const account = serverAccount();
    if (account) chownSync(target, account.uid, account.gid);
  }
  const pem = readFileSync(cert);
  return { cert: pem, key: readFileSync(key), der: new X509Certificate(pem).raw };
}

const bindingTo = (certificate: Buffer | null): ChannelBinding | null => {
  const data = certificate && tlsServerEndPoint(certificate);
  return data && { type: BINDING_TYPE, data };
};

async function storedVerifier(role: string): Promise<ScramVerifier> {
  const sql = await superuser();
  const { rows } = await sql.query<{ text: string }>('SELECT rolpassword AS text FROM pg_authid WHERE rolname = $1', [
    role,
  ]);
  await sql.end();
  const verifier = parseVerifier(rows[0]!.text);
  if (verifier === null) throw new Error(`not a verifier: ${rows[0]!.text}`);
  return verifier;
}

interface Login {
  readonly mechanism: string;
  /** 'ok', or the fields of the server's error. */
  readonly outcome: string;
}

/** Signs in as `user` with our client half; `credential` may also be used for md5. */
async function logIn(port: number, user: string, tls: boolean, credential: ScramCredential): Promise<Login> {
  const client = await RawClient.open(port, user, tls);
  let scram: ScramClient | null = null;
  let mechanism = '';
  try {
    for (;;) {
      const message = await client.next();
      if (message === null) return { mechanism, outcome: 'closed' };
      if (message.type === 'E') return { mechanism, outcome: errorText(message.body) };
      const data = message.body.subarray(4);
      switch (message.body.readInt32BE(0)) {
        case AUTHENTICATION.sasl:
          scram = new ScramClient({
            credential,
            nonce: randomBytes(18),
            channelBinding: bindingTo(client.certificate),
            offered: data.toString().split('\0').filter(Boolean),
          });
          mechanism = scram.mechanism;
          client.sendInitial(mechanism, scram.first());
          break;
        case AUTHENTICATION.saslContinue:
          client.send(scram!.continue(data));
          break;
        case AUTHENTICATION.saslFinal:
          scram!.verify(data);
          break;
        case AUTHENTICATION.md5:
          if (credential.kind !== 'password') throw new Error('md5 needs the password');
          mechanism = 'md5';
          client.send(Buffer.from(`${md5Password(user, credential.password, data)}\0`));
          break;
        case AUTHENTICATION.ok:
          return { mechanism, outcome: 'ok' };
        default:
          throw new Error(`unexpected ${message.type} ${message.body.toString('hex')}`);
      }
    }
  } finally {
    client.close();
  }
}

/** Severity, SQLSTATE, message and detail: what a client shows. The rest says where in the source it came from. */
function errorText(body: Buffer): string {
  const fields = body
    .toString('utf8')
    .split('\0')
    .filter((field) => 'SCMDH'.includes(field.charAt(0) || '-'));
  return fields.join(' | ');
}

/** Runs psql against a port of this process; resolves with its output and never rejects. */
function psql(port: number, user: string, password: string, options: Record<string, string>): Promise<string> {
  const env = { ...process.env, PGPASSWORD: password, PGCONNECT_TIMEOUT: '10', LC_ALL: 'C.UTF-8', ...options };
  const args = ['-X', '-At', '-h', '127.0.0.1', '-p', String(port), '-U', user, '-d', 'postgres', '-c', 'SELECT 1'];
  return new Promise((resolve) => {
    execFile(postgres.psql!, args, { env }, (_error, stdout, stderr) => resolve((stdout + stderr).trim()));
  });
}

t.test('verifiers Postgres stores are read, and ours are equal for every kind of password', skip, async (t) => {
  const passwords = [
    ...['pencil', 'a b', 'I\u00adX', 'a\u00a0b', '\u200b', '\u2168', '\u00ad', '\x07', 'ü', 'u\u0308', '\u1e9b\u0323'],
    ...[
      '\u0627',
      '\u06271',
      '\u0627\u0031\u0628',
      'a\u0627',
      '\u05d0\u05d1',
      '\ue000',
      '\u{1f600}',
      '\u{1f600}\u00a0',
      '\ufdfa',
    ],
    // the characters named in scram-password.ts, one of each range
    ...'\u0340\u03f9\u10fc\u1d2c\u2090\u213b\u2150\u2189\u2c7c\u321d\u3244\u327c\u32cc\u32ff\u3377\u33de\u33ff\ua69c',
    ...'\ufa2e\ufa6b\ufe10\ufe47\u{10781}\u{1d4c1}\u{1d6a4}\u{1d7ca}\u{1e030}\u{1ee00}\u{1f100}\u{1f21a}\u{1fbf0}',
  ];
  const sql = await superuser();
  for (const password of passwords) {
    await sql.query(`DROP ROLE IF EXISTS probe; CREATE ROLE probe PASSWORD ${sql.escapeLiteral(password)}`);
    const stored = await storedVerifier('probe');
    t.same(makeVerifier(password, stored), stored, JSON.stringify(password));
  }
  await sql.end();
});

t.test(
  'our client signs in to Postgres with the password, then with the ClientKey recovered from a client',
  skip,
  async (t) => {
    const verifier = await storedVerifier('ann');
    const listener = await listenForScram({ verifiers: new Map([['ann', verifier]]), tls: null, channelBinding: null });
    t.teardown(() => listener.close());
    t.match(await psql(listener.port, 'ann', PASSWORD, { PGSSLMODE: 'disable' }), 'signed in');
    const verdict = listener.verdicts[0]!;
    if (verdict.kind !== 'accepted') throw new Error('refused');
    const clientKey: ScramCredential = { kind: 'clientKey', clientKey: verdict.clientKey, ...verifier };
    const password: ScramCredential = { kind: 'password', password: PASSWORD };
    for (const credential of [password, clientKey]) {
      t.same(await logIn(postgres.port, 'ann', false, credential), { mechanism: 'SCRAM-SHA-256', outcome: 'ok' });
      t.same(await logIn(postgres.port, 'ann', true, credential), { mechanism: 'SCRAM-SHA-256-PLUS', outcome: 'ok' });
    }
    const wrong: ScramCredential = { kind: 'password', password: 'wrong' };
    t.match((await logIn(postgres.port, 'ann', true, wrong)).outcome, /28P01.*password authentication failed/);
    await t.rejects(
      logIn(postgres.port, 'nobody', false, clientKey),
      /verifier on this server differs/,
      'no such role there',
    );
  },
);

t.test('our client answers md5', skip, async (t) => {
  const right: ScramCredential = { kind: 'password', password: PASSWORD };
  t.same(await logIn(postgres.port, 'mad', false, right), { mechanism: 'md5', outcome: 'ok' });
  t.match((await logIn(postgres.port, 'mad', false, { kind: 'password', password: 'wrong' })).outcome, /28P01/);
});

t.test('channel binding agrees with Postgres and libpq for every kind of certificate', skip, async (t) => {
  const verifiers = new Map([['ann', await storedVerifier('ann')]]);
  const credential: ScramCredential = { kind: 'password', password: PASSWORD };
  for (const kind of Object.keys(KINDS) as (keyof typeof KINDS)[]) {
    const { cert, key, der } = makeCertificate(kind);
    await reload();
    const channelBinding = bindingTo(der);
    t.equal(channelBinding === null, kind.startsWith('Ed25519'), kind);
    const mechanism = channelBinding === null ? 'SCRAM-SHA-256' : 'SCRAM-SHA-256-PLUS';
    t.same(await logIn(postgres.port, 'ann', true, credential), { mechanism, outcome: 'ok' }, `to Postgres: ${kind}`);

    const listener = await listenForScram({ verifiers, tls: { cert, key }, channelBinding });
    const ask = (password: string, binding: string) =>
      psql(listener.port, 'ann', password, { PGSSLMODE: 'require', PGCHANNELBINDING: binding });
    t.equal(await ask(PASSWORD, 'prefer'), 'signed in', `from psql: ${kind}`);
    t.equal(await ask(PASSWORD, 'disable'), 'signed in', `from psql that does not bind: ${kind}`);
    if (channelBinding === null) t.match(await ask(PASSWORD, 'require'), /channel binding/, kind);
    else t.equal(await ask(PASSWORD, 'require'), 'signed in', `from psql that insists: ${kind}`);
    t.match(await ask('wrong', 'prefer'), 'password authentication failed for user "ann"', kind);
    await listener.close();
  }
});

t.test('psql is refused where the binding data is of another certificate', skip, async (t) => {
  const { cert, key } = makeCertificate('RSA with SHA-256');
  const channelBinding: ChannelBinding = { type: BINDING_TYPE, data: randomBytes(32) };
  const listener = await listenForScram({
    verifiers: new Map([['ann', await storedVerifier('ann')]]),
    tls: { cert, key },
    channelBinding,
  });
  t.teardown(() => listener.close());
  const output = await psql(listener.port, 'ann', PASSWORD, { PGSSLMODE: 'require' });
  t.match(output, 'SCRAM channel binding check failed');
});

interface Script {
  readonly mechanism: string;
  readonly first: string | null;
  /** Sent after the challenge; NONCE stands for its nonce. */
  readonly final?: string;
}

const WRONG_PROOF = `${'A'.repeat(43)}=`;
const firsts = (mechanism: string, ...list: string[]): Script[] => list.map((first) => ({ mechanism, first }));
const finals = (mechanism: string, first: string | null, ...list: string[]): Script[] =>
  list.map((final) => ({ mechanism, first, final }));

const PLAIN_SCRIPTS: Script[] = [
  ...['SCRAM-SHA-1', 'SCRAM-SHA-256-PLUS', 'scram-sha-256', ''].flatMap((mechanism) =>
    firsts(mechanism, 'n,,n=,r=abc'),
  ),
  ...firsts(
    'SCRAM-SHA-256',
    '',
    'x',
    '\x1b',
    '\xff',
    '\0',
    'n',
    'nx',
    'n,',
    'n,x',
    'n,a=bob,n=,r=abc',
    'n,,',
    'n,,m=x,n=,r=a',
  ),
  ...firsts(
    'SCRAM-SHA-256',
    'n,,x=',
    'n,,n',
    'n,,nx',
    'n,,n=',
    'n,,n=bob',
    'n,,n=,',
    'n,,n=,r',
    'n,,n=,r=\x07',
    'n,,n=,r=a b',
  ),
  ...firsts(
    'SCRAM-SHA-256',
    'n,,n=,r=\xe9',
    'n,,n=,r=abc,,',
    'n,,n=,r=abc,1=2',
    'n,,n=,r=abc,x',
    'n,,n=\0,r=abc',
    'y',
    'yx',
  ),
  ...firsts('SCRAM-SHA-256', 'p', 'p=tls-server-end-point,,n=,r=abc'),
  ...finals(
    'SCRAM-SHA-256',
    'n,,n=,r=abc',
    '',
    '\0',
    'x',
    'c',
    'c=',
    'c=biws',
    'c=eSws,r=NONCE',
    'c=biws,x=1',
    'c=biws,r=NONCE',
  ),
  ...finals(
    'SCRAM-SHA-256',
    'n,,n=,r=abc',
    'c=biws,r=NONCE,',
    'c=biws,r=NONCE,1',
    'c=biws,r=NONCE,x',
    'c=biws,r=NONCE,p=',
  ),
  ...finals(
    'SCRAM-SHA-256',
    'n,,n=,r=abc',
    'c=biws,r=NONCE,p=AAAA',
    `c=biws,r=NONCE,p=${'*'.repeat(44)}`,
    'c=biws,r=NONCE,x=1',
  ),
  ...finals('SCRAM-SHA-256', 'n,,n=,r=abc', `c=biws,r=abc,p=${WRONG_PROOF}`, `c=biws,r=NONCEx,p=${WRONG_PROOF}`),
  ...finals('SCRAM-SHA-256', 'n,,n=,r=abc', `c=biws,r=NONCE,p=${WRONG_PROOF},x=1`, `c=biws,r=NONCE,p=${WRONG_PROOF},`),
  ...finals('SCRAM-SHA-256', 'n,,n=,r=abc', `c=biws,r=NONCE,p=${WRONG_PROOF}`, `c=biws,r=NONCE,x=1,p=${WRONG_PROOF}`),
  ...finals('SCRAM-SHA-256', 'n,,n=bob,r=,x=1', `c=biws,r=NONCE,p=${WRONG_PROOF}`),
  ...finals('SCRAM-SHA-256', 'n,,n=,r=abc,', `c=biws,r=NONCE,p=${WRONG_PROOF}`),
  ...finals('SCRAM-SHA-256', 'y,,n=,r=abc', `c=eSws,r=NONCE,p=${WRONG_PROOF}`, `c=biws,r=NONCE,p=${WRONG_PROOF}`),
  ...finals('SCRAM-SHA-256', null, 'n,,n=,r=abc', 'x', ''),
];

const TLS_SCRIPTS: Script[] = [
  ...firsts(
    'SCRAM-SHA-256-PLUS',
    'n,,n=,r=abc',
    'y,,n=,r=abc',
    'n',
    'p',
    'p=',
    'px',
    'p=tls-unique,,n=,r=abc',
    'p=tls-server-end-point',
  ),
  ...firsts(
    'SCRAM-SHA-256-PLUS',
    'p=tls-server-end-point,',
    'p=tls-server-end-point,a=x,',
    'p=tls-server-end-point,,m=x',
  ),
  ...firsts('SCRAM-SHA-256-PLUS', `p=\x07 \xff${'long'.repeat(20)},,n=,r=abc`),
  ...firsts('SCRAM-SHA-256', 'y,,n=,r=abc', 'y', 'p=tls-server-end-point,,n=,r=abc'),
  ...finals(
    'SCRAM-SHA-256-PLUS',
    'p=tls-server-end-point,,n=,r=abc',
    'c=biws,r=NONCE',
    'c=,r=NONCE',
    `c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=NONCE`,
  ),
  ...finals('SCRAM-SHA-256', 'n,,n=,r=abc', `c=biws,r=NONCE,p=${WRONG_PROOF}`),
];

/** All the server says to a script, with what is random replaced. */
async function play(port: number, user: string, tls: boolean, script: Script): Promise<string[]> {
  const client = await RawClient.open(port, user, tls);
  const said: string[] = [];
  try {
    for (let step = 0; ; step++) {
      const message = await client.next();
      if (message === null) return [...said, 'closed'];
      if (message.type === 'E') {
        said.push(errorText(message.body));
        continue;
      }
      const text = message.body.toString('latin1', 4);
      said.push(
        `${message.type} ${message.body.readInt32BE(0)} ${text.replace(/(r=(?:abc)?)[^,]{24}(,s=)[^,]{24},/, '$1(nonce)$2(salt),')}`,
      );
      const nonce = /^r=([^,]*)/.exec(text)?.[1] ?? '';
      if (step === 0)
        client.sendInitial(script.mechanism, script.first === null ? null : Buffer.from(script.first, 'latin1'));
      else if (step === 1 && script.final !== undefined)
        client.send(Buffer.from(script.final.replace('NONCE', nonce), 'latin1'));
      else return [...said, 'waiting'];
    }
  } finally {
    client.close();
  }
}

t.test(
  'bad messages are refused with the same SQLSTATE, message and detail as Postgres refuses them',
  skip,
  async (t) => {
    const verifiers = new Map([['ann', await storedVerifier('ann')]]);
    const { cert, key, der } = makeCertificate('RSA with SHA-256');
    await reload();
    const plain = await listenForScram({ verifiers, tls: null, channelBinding: null });
    const secure = await listenForScram({ verifiers, tls: { cert, key }, channelBinding: bindingTo(der) });
    t.teardown(async () => {
      await plain.close();
      await secure.close();
    });
    const compare = async (user: string, tls: boolean, script: Script) => {
      const theirs = await play(postgres.port, user, tls, script);
      const ours = await play((tls ? secure : plain).port, user, tls, script);
      t.same(ours, theirs, `${user}, ${tls ? 'TLS' : 'plain'}: ${JSON.stringify(script)}`);
    };
    for (const script of PLAIN_SCRIPTS) await compare('ann', false, script);
    for (const script of TLS_SCRIPTS) await compare('ann', true, script);
    const proof: Script = {
      mechanism: 'SCRAM-SHA-256',
      first: 'n,,n=,r=abc',
      final: `c=biws,r=NONCE,p=${WRONG_PROOF}`,
    };
    await compare('no such user', false, proof);
  },
);

t.test('an unknown user sees the same salt at every attempt, as a known one does', skip, async (t) => {
  const listener = await listenForScram({
    verifiers: new Map([['ann', await storedVerifier('ann')]]),
    tls: null,
    channelBinding: null,
  });
  t.teardown(() => listener.close());
  const saltOf = async (user: string) => {
    const client = await RawClient.open(listener.port, user, false);
    await client.next();
    client.sendInitial('SCRAM-SHA-256', Buffer.from('n,,n=,r=abc'));
    const challenge = (await client.next())!.body.toString('latin1', 4);
    client.close();
    return /,s=([^,]*),i=4096$/.exec(challenge)?.[1];
  };
  const salt = await saltOf('nobody');
  t.equal(Buffer.from(salt!, 'base64').length, 16);
  t.equal(await saltOf('nobody'), salt);
  t.not(await saltOf('somebody'), salt);
  t.equal(await saltOf('ann'), (await storedVerifier('ann')).salt.toString('base64'));
});
