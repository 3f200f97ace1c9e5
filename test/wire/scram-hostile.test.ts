// Whatever bytes a client sends, the server half answers with a verdict or a PgkvError of the catalogue, never accepts
// without the right proof and never breaks an invariant of its own (XX000). The same for servers and the client half,
// and for certificates.
import fc from 'fast-check';
import t from 'tap';
import { PgkvError } from '../../src/base/errors.js';
import { ScramClient } from '../../src/wire/scram-client.js';
import { BINDING_TYPE, type ChannelBinding } from '../../src/wire/scram-message.js';
import { ScramServer } from '../../src/wire/scram-server.js';
import { makeVerifier, parseVerifier } from '../../src/wire/scram-verifier.js';
import { tlsServerEndPoint } from '../../src/wire/tls-server-end-point.js';

const binding: ChannelBinding = { type: BINDING_TYPE, data: Buffer.alloc(32, 7) };
const verifier = makeVerifier('pencil', { salt: Buffer.alloc(16, 1), iterations: 1 });
const ALLOWED = new Set([
  'protocol_violation',
  'unsupported',
  'invalid_authorization',
  'authentication_failed',
  'unsupported_protocol',
]);

/** Runs one side; true if it went through, false for an error that may be told to the other side. */
function survives(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof PgkvError && ALLOWED.has(error.errorName)) return false;
    throw error;
  }
}

const serverFor = (plus: boolean) =>
  new ScramServer({ verifier, channelBinding: plus ? binding : null, nonce: 'server-nonce', mock: false });

const clientFor = (plus: boolean) =>
  new ScramClient({
    credential: { kind: 'password', password: 'pencil' },
    nonce: 'client-nonce',
    channelBinding: plus ? binding : null,
    offered: plus ? ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'] : ['SCRAM-SHA-256'],
  });

// Near misses find more than noise: attributes of real messages in any order, and the pieces they are made of.
const ATTRIBUTES = [
  'n',
  'y',
  'p=tls-server-end-point',
  '',
  'n=',
  'n=ann',
  'r=abc',
  'm=x',
  'a=x',
  'x=1',
  'e=x',
  'i=1',
  'i=0',
];
const FINALS = [
  'c=biws',
  'c=eSws',
  'r=client-nonceserver-nonce',
  'r=abcserver-nonce',
  's=AAAA',
  `p=${'A'.repeat(43)}=`,
  'v=AAAA',
];
const PIECES = ['=', ',', '\0', '\xff', 'r=\x07', 'p='];
const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 1100 }).map((array) => Buffer.from(array)),
  fc
    .array(fc.constantFrom(...ATTRIBUTES, ...FINALS, ...PIECES), { maxLength: 7 })
    .map((parts) => Buffer.from(parts.join(','), 'latin1')),
);
const CLIENT_FIRSTS = ['n,,n=,r=abc', 'n,,n=ann,r=abc,x=1', 'y,,n=,r=abc', 'p=tls-server-end-point,,n=,r=abc'].map(
  (text) => Buffer.from(text),
);
const WRONG_PROOF = Buffer.from(`c=biws,r=abcserver-nonce,p=${'A'.repeat(43)}=`);

t.test('no client-first and client-final of noise is accepted', (t) => {
  let challenged = 0;
  let judged = 0;
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.boolean(),
      fc.oneof(hostile, fc.constantFrom(...CLIENT_FIRSTS)),
      hostile,
      (plus, choosePlus, clientFirst, clientFinal) => {
        const scram = serverFor(plus);
        const mechanism = choosePlus ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256';
        if (!survives(() => scram.first(mechanism, clientFirst))) return;
        challenged++;
        survives(() => {
          if (scram.final(clientFinal).kind === 'accepted') throw new Error('accepted');
          judged++;
        });
      },
    ),
    { numRuns: 3000, examples: [[false, false, CLIENT_FIRSTS[0]!, WRONG_PROOF]] },
  );
  t.ok(challenged > 0, 'some got as far as the challenge');
  t.ok(judged > 0, 'the example at least had its proof judged');
  t.end();
});

t.test('a right client-final with any byte changed, added or cut is not accepted', (t) => {
  const edit = fc.record({ at: fc.nat(), drop: fc.nat({ max: 2 }), insert: fc.uint8Array({ maxLength: 2 }) });
  fc.assert(
    fc.property(fc.boolean(), edit, (plus, { at, drop, insert }) => {
      const scram = serverFor(plus);
      const client = clientFor(plus);
      const right = client.continue(scram.first(client.mechanism, client.first()));
      const from = at % (right.length + 1);
      const changed = Buffer.concat([right.subarray(0, from), insert, right.subarray(from + drop)]);
      let accepted = false;
      survives(() => {
        accepted = scram.final(changed).kind === 'accepted';
      });
      // Postgres, too, lets one comma pass behind the proof: it changes nothing that is signed or proven.
      return accepted === (changed.equals(right) || changed.equals(Buffer.concat([right, Buffer.from(',')])));
    }),
    { numRuns: 3000 },
  );
  t.end();
});

t.test('no server of noise is believed', (t) => {
  let answered = 0;
  fc.assert(
    fc.property(fc.boolean(), hostile, hostile, (plus, serverFirst, serverFinal) => {
      const client = clientFor(plus);
      client.first();
      if (!survives(() => client.continue(serverFirst))) return true;
      answered++;
      return !survives(() => client.verify(serverFinal));
    }),
    { numRuns: 3000, examples: [[false, Buffer.from('r=client-nonceX,s=AAAA,i=1'), Buffer.from('v=AAAA')]] },
  );
  t.ok(answered > 0, 'the example at least got as far as the proof');
  t.end();
});

t.test('parsers of stored and shown bytes answer null instead of throwing', (t) => {
  fc.assert(
    fc.property(hostile, (noise) => {
      parseVerifier(noise.toString('latin1'));
      parseVerifier(`SCRAM-SHA-256$${noise.toString('latin1')}`);
      tlsServerEndPoint(noise);
    }),
    { numRuns: 2000 },
  );
  // DER-like: real tags and lengths that lie.
  const der = fc.array(fc.constantFrom(0x30, 0x06, 0xa0, 0x82, 0x84, 0x80, 0x00, 0x01, 0x02, 0x09, 0x2a, 0x86, 0xff), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(der, (array) => {
      tlsServerEndPoint(Buffer.from(array));
    }),
    { numRuns: 3000 },
  );
  t.end();
});
