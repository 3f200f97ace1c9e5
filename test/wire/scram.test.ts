// SCRAM without a network: RFC 7677's vector, our client against our server in every mode, and what either refuses.
// The same refusals are compared with a real Postgres in test/integration/scram.test.ts.
import t from 'tap';
import { PgkvError } from '../../src/base/errors.js';
import { md5Password } from '../../src/wire/md5-password.js';
import { ScramClient, type ScramCredential, SERVER_ITERATIONS_MAX } from '../../src/wire/scram-client.js';
import { sha256 } from '../../src/wire/scram-keys.js';
import { BINDING_TYPE, type ChannelBinding, SASL_MESSAGE_BYTES_MAX } from '../../src/wire/scram-message.js';
import { preparePassword } from '../../src/wire/scram-password.js';
import { ScramServer } from '../../src/wire/scram-server.js';
import {
  formatVerifier,
  makeVerifier,
  mockVerifier,
  parseVerifier,
  SALT_BYTES,
} from '../../src/wire/scram-verifier.js';

const SALT = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
const CLIENT_NONCE = 'rOprNGfwEbeRWgbNEkqO';
const SERVER_NONCE = '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
const pencil = makeVerifier('pencil', { salt: SALT });
const binding: ChannelBinding = { type: BINDING_TYPE, data: Buffer.alloc(32, 7) };
const otherBinding: ChannelBinding = { type: BINDING_TYPE, data: Buffer.alloc(32, 8) };

const bytes = (text: string) => Buffer.from(text, 'latin1');

function server(options: Partial<ConstructorParameters<typeof ScramServer>[0]> = {}): ScramServer {
  return new ScramServer({ verifier: pencil, channelBinding: null, nonce: SERVER_NONCE, mock: false, ...options });
}

function client(options: Partial<ConstructorParameters<typeof ScramClient>[0]> = {}): ScramClient {
  const credential: ScramCredential = { kind: 'password', password: 'pencil' };
  return new ScramClient({
    credential,
    nonce: CLIENT_NONCE,
    channelBinding: null,
    offered: ['SCRAM-SHA-256'],
    ...options,
  });
}

/** Error name, message and detail of what `action` throws; fails unless that is a PgkvError. */
function refusal(action: () => unknown): { name: string; message: string; detail: string | undefined } {
  try {
    action();
  } catch (error) {
    if (!(error instanceof PgkvError)) throw error;
    return { name: error.errorName, message: error.message, detail: error.detail };
  }
  throw new Error('nothing was thrown');
}

t.test('the exchange of RFC 7677 section 3 comes out byte for byte', (t) => {
  const scram = server();
  const serverFirst = scram.first('SCRAM-SHA-256', bytes(`n,,n=user,r=${CLIENT_NONCE}`));
  t.equal(serverFirst.toString(), `r=${CLIENT_NONCE}${SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`);
  const proof = 'dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=';
  const verdict = scram.final(bytes(`c=biws,r=${CLIENT_NONCE}${SERVER_NONCE},p=${proof}`));
  t.equal(verdict.kind, 'accepted');
  if (verdict.kind !== 'accepted') return t.end();
  t.equal(verdict.serverFinal.toString(), 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
  t.same(sha256(verdict.clientKey), pencil.storedKey, 'the recovered ClientKey hashes to the StoredKey');
  t.end();
});

t.test('client and server agree in every mode, by password and by the ClientKey recovered from it', (t) => {
  const modes = [
    { name: 'no TLS', ours: null, theirs: null, mechanism: 'SCRAM-SHA-256', opens: 'n,,' },
    {
      name: 'TLS on both sides',
      ours: binding,
      theirs: binding,
      mechanism: 'SCRAM-SHA-256-PLUS',
      opens: 'p=tls-server-end-point,,',
    },
    { name: 'a client that cannot bind', ours: null, theirs: binding, mechanism: 'SCRAM-SHA-256', opens: 'n,,' },
    { name: 'a server that cannot bind', ours: binding, theirs: null, mechanism: 'SCRAM-SHA-256', opens: 'y,,' },
  ];
  for (const mode of modes) {
    const logIn = (credential: ScramCredential) => {
      const serverSide = server({ channelBinding: mode.theirs, nonce: Buffer.alloc(18, 1) });
      const clientSide = client({
        credential,
        channelBinding: mode.ours,
        offered: serverSide.mechanisms(),
        nonce: Buffer.alloc(18, 2),
      });
      t.equal(clientSide.mechanism, mode.mechanism, mode.name);
      const clientFirst = clientSide.first();
      t.match(clientFirst.toString(), mode.opens, mode.name);
      const verdict = serverSide.final(clientSide.continue(serverSide.first(clientSide.mechanism, clientFirst)));
      if (verdict.kind !== 'accepted') throw new Error(`${mode.name}: refused`);
      clientSide.verify(verdict.serverFinal);
      return verdict.clientKey;
    };
    const clientKey = logIn({ kind: 'password', password: 'pencil' });
    t.same(logIn({ kind: 'clientKey', clientKey, ...pencil }), clientKey, mode.name);
  }
  t.end();
});

t.test('a wrong password and a mock verifier are refused alike, even if the proof fits the mock', (t) => {
  const answer = (credential: ScramCredential, options: Parameters<typeof server>[0]) => {
    const serverSide = server(options);
    const clientSide = client({ credential });
    return serverSide.final(clientSide.continue(serverSide.first('SCRAM-SHA-256', clientSide.first())));
  };
  const right: ScramCredential = { kind: 'password', password: 'pencil' };
  t.equal(answer(right, {}).kind, 'accepted');
  t.same(answer({ kind: 'password', password: 'pen' }, {}), { kind: 'refused' });
  t.same(answer(right, { mock: true }), { kind: 'refused' });
  t.same(answer(right, { verifier: mockVerifier('ann', Buffer.alloc(32)), mock: true }), { kind: 'refused' });
  t.end();
});

t.test('mock verifiers look real: constant for a user, different between users and secrets', (t) => {
  const secret = Buffer.from('secret');
  const ann = mockVerifier('ann', secret);
  t.same(mockVerifier('ann', secret), ann);
  t.equal(ann.salt.length, SALT_BYTES);
  t.equal(ann.iterations, 4096);
  t.equal(mockVerifier('ann', secret, 10_000).iterations, 10_000);
  t.notSame(mockVerifier('bob', secret).salt, ann.salt);
  t.notSame(mockVerifier('ann', Buffer.from('other')).salt, ann.salt);
  t.same(parseVerifier(formatVerifier(ann)), ann, 'it has the shape of a stored one');
  t.end();
});

t.test('verifiers are read and written in the text form of pg_authid', (t) => {
  const text = formatVerifier(pencil);
  t.match(text, /^SCRAM-SHA-256\$4096:W22ZaJ0SNY7soEsUEjb6gQ==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$/);
  t.same(parseVerifier(text), pencil);
  const [head, keys] = [text.slice(0, text.lastIndexOf('$')), text.slice(text.lastIndexOf('$') + 1)];
  const bad = [
    '',
    'md5a6343a68d964ca596d9752250d54bb8a',
    head,
    `${text}=`,
    `${text}:`,
    ` ${text}`,
    text.replace('SCRAM-SHA-256', 'SCRAM-SHA-512'),
    text.replace('4096', '0'),
    text.replace('4096', '-1'),
    text.replace('4096', '2147483648'),
    text.replace('4096', '4096x'),
    text.replace('W22', 'W2 '),
    `${head}$${keys.slice(4)}`,
    `${head}$${keys.slice(0, -4)}`,
  ];
  for (const line of bad) t.equal(parseVerifier(line), null, JSON.stringify(line));
  t.end();
});

t.test('PLUS is offered first, and only where there is binding data', (t) => {
  t.same(server().mechanisms(), ['SCRAM-SHA-256']);
  t.same(server({ channelBinding: binding }).mechanisms(), ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']);
  const wrong = {
    name: 'protocol_violation',
    message: 'client selected an invalid SASL authentication mechanism',
    detail: undefined,
  };
  t.same(
    refusal(() => server().first('SCRAM-SHA-256-PLUS', bytes('n,,n=,r=abc'))),
    wrong,
  );
  t.same(
    refusal(() => server().first('SCRAM-SHA-1', null)),
    wrong,
  );
  t.end();
});

t.test('a SASLInitialResponse without data gets an empty challenge, then the exchange goes on', (t) => {
  const serverSide = server();
  const clientSide = client();
  t.equal(serverSide.first('SCRAM-SHA-256', null).length, 0);
  const verdict = serverSide.final(clientSide.continue(serverSide.first('SCRAM-SHA-256', clientSide.first())));
  t.equal(verdict.kind, 'accepted');
  t.end();
});

t.test('messages Postgres refuses are refused with its words and its class of error', (t) => {
  const malformed = 'malformed SCRAM message';
  const proof = `${'A'.repeat(43)}=`;
  const nonce = `abc${SERVER_NONCE}`;
  const rows: [string, string | null, string, string, string | undefined][] = [
    ['x,,n=,r=abc', null, 'protocol_violation', malformed, `Unexpected channel-binding flag "'x'".`],
    [
      'n,a=bob,n=,r=abc',
      null,
      'unsupported_protocol',
      'client uses authorization identity, but it is not supported',
      undefined,
    ],
    ['n,,m=x,n=,r=abc', null, 'unsupported_protocol', 'client requires an unsupported SCRAM extension', undefined],
    ['n,,r=abc', null, 'protocol_violation', malformed, `Expected attribute "n" but found "'r'".`],
    ['n,,n=,r', null, 'protocol_violation', malformed, 'Expected character "=" for attribute "r".'],
    ['n,,n=,r=a b', null, 'protocol_violation', 'non-printable characters in SCRAM nonce', undefined],
    [
      'n,,n=,r=abc,1=x',
      null,
      'protocol_violation',
      malformed,
      `Attribute expected, but found invalid character "'1'".`,
    ],
    [
      'n,,n=,r=abc',
      `c=eSws,r=${nonce},p=${proof}`,
      'protocol_violation',
      'unexpected SCRAM channel-binding attribute in client-final-message',
      undefined,
    ],
    [
      'n,,n=,r=abc',
      `c=biws,r=${nonce}x,p=${proof}`,
      'protocol_violation',
      'invalid SCRAM response',
      'Nonce does not match.',
    ],
    [
      'n,,n=,r=abc',
      `c=biws,r=${nonce}`,
      'protocol_violation',
      malformed,
      'Attribute expected, but found end of string.',
    ],
    [
      'n,,n=,r=abc',
      `c=biws,r=${nonce},p=AAAA`,
      'protocol_violation',
      malformed,
      'Malformed proof in client-final-message.',
    ],
    [
      'n,,n=,r=abc',
      `c=biws,r=${nonce},p=${proof},x=1`,
      'protocol_violation',
      malformed,
      'Garbage found at the end of client-final-message.',
    ],
  ];
  for (const [clientFirst, clientFinal, name, message, detail] of rows) {
    const scram = server();
    const error = refusal(() => {
      scram.first('SCRAM-SHA-256', bytes(clientFirst));
      if (clientFinal !== null) scram.final(bytes(clientFinal));
    });
    t.same(error, { name, message, detail }, clientFinal ?? clientFirst);
  }
  const unknownType = bytes(`p=tls-unique\x07${'x'.repeat(40)},,n=,r=abc`);
  t.equal(
    refusal(() => server({ channelBinding: binding }).first('SCRAM-SHA-256-PLUS', unknownType)).message,
    `unsupported SCRAM channel-binding type "tls-unique?${'x'.repeat(19)}"`,
  );
  t.end();
});

t.test('messages of exactly the limit pass, one byte more does not', (t) => {
  const padded = (length: number) => {
    const head = 'n,,n=,r=abc,x=';
    return bytes(head + 'y'.repeat(length - head.length));
  };
  t.ok(server().first('SCRAM-SHA-256', padded(SASL_MESSAGE_BYTES_MAX)));
  t.match(
    refusal(() => server().first('SCRAM-SHA-256', padded(SASL_MESSAGE_BYTES_MAX + 1))),
    { name: 'protocol_violation' },
  );
  t.end();
});

t.test('channel binding to another certificate fails, and so does a stripped offer', (t) => {
  const serverSide = server({ channelBinding: binding });
  const clientSide = client({ channelBinding: otherBinding, offered: serverSide.mechanisms() });
  const clientFinal = clientSide.continue(serverSide.first(clientSide.mechanism, clientSide.first()));
  t.same(
    refusal(() => serverSide.final(clientFinal)),
    {
      name: 'invalid_authorization',
      message: 'SCRAM channel binding check failed',
      detail: undefined,
    },
  );
  const stripped = client({ channelBinding: binding, offered: ['SCRAM-SHA-256'] });
  t.match(
    refusal(() => server({ channelBinding: binding }).first(stripped.mechanism, stripped.first())),
    {
      name: 'invalid_authorization',
      message: 'SCRAM channel binding negotiation error',
    },
  );
  t.end();
});

t.test('an exchange is over after its first error or verdict', (t) => {
  const failed = server();
  refusal(() => failed.first('SCRAM-SHA-256', bytes('')));
  t.match(
    refusal(() => failed.first('SCRAM-SHA-256', client().first())),
    { name: 'internal' },
  );
  t.match(
    refusal(() => server().final(bytes('c=biws,r=a,p=b'))),
    { name: 'internal' },
    'final before first',
  );
  const serverSide = server();
  const clientSide = client();
  const clientFinal = clientSide.continue(serverSide.first('SCRAM-SHA-256', clientSide.first()));
  serverSide.final(clientFinal);
  t.match(
    refusal(() => serverSide.final(clientFinal)),
    { name: 'internal' },
    'a proof is judged once',
  );
  t.match(
    refusal(() => clientSide.continue(bytes('r=x,s=,i=1'))),
    { name: 'internal' },
  );
  t.end();
});

t.test('the client refuses servers that misbehave, in words that say what is wrong', (t) => {
  const opened = (credential?: ScramCredential) => {
    const scram = credential === undefined ? client() : client({ credential });
    scram.first();
    return scram;
  };
  const nonce = `${CLIENT_NONCE}xyz`;
  const salt = SALT.toString('base64');
  const rows: [string, string, RegExp][] = [
    ['', 'protocol_violation', /empty/],
    [`r=${nonce},s=${salt},i=4096\0`, 'protocol_violation', /length/],
    [`r=${nonce},s=${salt},i=4096,x=${'y'.repeat(2000)}`, 'protocol_violation', /longer/],
    [`r=other,s=${salt},i=4096`, 'protocol_violation', /Nonce/],
    [`r=${CLIENT_NONCE},s=${salt},i=4096`, 'protocol_violation', /Nonce/],
    [`r=${nonce}\x7f,s=${salt},i=4096`, 'protocol_violation', /Nonce/],
    [`m=1,r=${nonce},s=${salt},i=4096`, 'protocol_violation', /Expected attribute "r"/],
    [`r=${nonce},s=*,i=4096`, 'protocol_violation', /salt/],
    [`r=${nonce},s=${salt},i=0`, 'protocol_violation', /iteration/],
    [`r=${nonce},s=${salt},i=-5`, 'protocol_violation', /iteration/],
    [`r=${nonce},s=${salt},i=4e3`, 'protocol_violation', /iteration/],
    [`r=${nonce},s=${salt},i=${SERVER_ITERATIONS_MAX + 1}`, 'authentication_failed', /1000001 SCRAM iterations/],
    [`r=${nonce},s=${salt},i=4096,*`, 'protocol_violation', /invalid character/],
  ];
  for (const [serverFirst, name, words] of rows) {
    const error = refusal(() => opened().continue(bytes(serverFirst)));
    t.equal(error.name, name, serverFirst.slice(0, 80));
    t.match(`${error.message} ${error.detail}`, words);
  }
  t.ok(opened().continue(bytes(`r=${nonce},s=${salt},i=1,x=ignored`)), 'unknown optional extensions pass');

  const credential: ScramCredential = { kind: 'clientKey', clientKey: Buffer.alloc(32), ...pencil };
  t.ok(opened(credential).continue(bytes(`r=${nonce},s=${salt},i=4096`)));
  for (const other of [`s=${salt},i=4097`, `s=${Buffer.alloc(16).toString('base64')},i=4096`]) {
    const error = refusal(() => opened(credential).continue(bytes(`r=${nonce},${other}`)));
    t.equal(error.name, 'authentication_failed');
    t.match(error.message, /verifier on this server differs/);
  }
  t.match(
    refusal(() => client({ offered: ['SCRAM-SHA-512'] })),
    { name: 'authentication_failed', message: /SCRAM-SHA-512/ },
  );
  t.match(
    refusal(() => client({ offered: ['SCRAM-SHA-256-PLUS'] })),
    { name: 'authentication_failed' },
    'PLUS needs data',
  );
  t.end();
});

t.test('the client believes only a server that knows the ServerKey', (t) => {
  const proven = () => {
    const clientSide = client();
    const serverSide = server();
    const verdict = serverSide.final(clientSide.continue(serverSide.first('SCRAM-SHA-256', clientSide.first())));
    if (verdict.kind !== 'accepted') throw new Error('refused');
    return { clientSide, serverFinal: verdict.serverFinal.toString() };
  };
  const ok = proven();
  ok.clientSide.verify(bytes(ok.serverFinal));
  const rows: [(good: string) => string, string, RegExp][] = [
    [() => `v=${Buffer.alloc(32).toString('base64')}`, 'authentication_failed', /incorrect server signature/],
    [(good) => good.slice(0, -4), 'protocol_violation', /signature/],
    [() => 'v=', 'protocol_violation', /signature/],
    [() => 'e=other-error', 'authentication_failed', /other-error/],
    [() => '', 'protocol_violation', /empty/],
    [(good) => `x=1,${good}`, 'protocol_violation', /"v"/],
  ];
  for (const [change, name, words] of rows) {
    const { clientSide, serverFinal } = proven();
    const error = refusal(() => clientSide.verify(bytes(change(serverFinal))));
    t.equal(error.name, name);
    t.match(`${error.message} ${error.detail}`, words);
  }
  t.match(
    refusal(() => client().verify(bytes('v='))),
    { name: 'internal' },
    'no verdict before the proof',
  );
  t.end();
});

t.test('passwords are prepared by SASLprep where it allows them and taken raw where not', (t) => {
  const rows: [string, string, string][] = [
    ['pencil', 'pencil', 'ASCII'],
    ['', '', 'nothing'],
    ['I\u00adX', 'IX', 'soft hyphen goes'],
    ['a\u00a0b', 'a b', 'no-break space becomes a space'],
    ['\u2168', 'IX', 'NFKC'],
    ['\u00ad', '\u00ad', 'nothing left: raw'],
    ['a\x07\u2168', 'a\x07\u2168', 'control character: raw'],
    ['\u06271', '\u06271', 'right-to-left that ends otherwise: raw'],
    ['\u{1f600}\u2168', '\u{1f600}\u2168', 'unassigned in Unicode 3.2: raw'],
    ['\u{1f21a}', '\u{1f21a}', 'unassigned, though its NFKC form is not: raw as in Postgres'],
    ['e\u0340', 'e\u0340', 'prohibited, though its NFKC form is not: raw as in Postgres'],
  ];
  for (const [password, prepared, what] of rows) t.equal(preparePassword(password).toString(), prepared, what);
  t.end();
});

t.test('the md5 answer is the one of the manual', (t) => {
  // concat('md5', md5(concat(md5(concat(password, username)), random-salt))), computed with md5sum
  t.equal(md5Password('ann', 'secret', Buffer.from('01020304', 'hex')), 'md59009ce60b9ca97f1e752376843d1309e');
  t.end();
});
