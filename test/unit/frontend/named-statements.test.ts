// Names of statements are read from bytes, and the last one is kept: it must never be taken for another.
import fc from 'fast-check';
import t from 'tap';
import { NamedStatements } from '../../../src/frontend/unit/named-statements.js';

type Parameters = ConstructorParameters<typeof NamedStatements>;
/** Only names are read here. */
const named = (): NamedStatements => new NamedStatements(...([{}, {}, {}] as unknown as Parameters));

const wanted = (bytes: Buffer): string => bytes.subarray(0, 63).toString('utf8');

t.test('a name is what its bytes say, whatever was read before', async (t) => {
  const statements = named();
  const read = (text: string): string => {
    const bytes = Buffer.from(`..${text}..`);
    return statements.name(bytes, 2, bytes.length - 2);
  };
  for (const text of [
    '',
    's1',
    's1',
    's2',
    's',
    's2x',
    '',
    'é',
    'Ã©',
    'é',
    'x'.repeat(63),
    'x'.repeat(64),
    'x'.repeat(62),
  ]) {
    t.equal(read(text), wanted(Buffer.from(text)), JSON.stringify(text));
  }
});

t.test('so it is for any bytes', async (t) => {
  // Few different ones, so that names often begin alike or are the same.
  const byte = fc.constantFrom(0x61, 0x62, 0x7f, 0x80, 0xa9, 0xc3);
  const name = fc.array(byte, { maxLength: 4 });
  fc.assert(
    fc.property(fc.array(name, { minLength: 2, maxLength: 20 }), (names) => {
      const statements = named();
      for (const bytes of names.map((one) => Buffer.from(one))) {
        if (statements.name(bytes, 0, bytes.length) !== wanted(bytes)) return false;
      }
      return true;
    }),
    { numRuns: 2_000 },
  );
  t.pass('2,000 sequences');
});
