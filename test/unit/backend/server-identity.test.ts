// What is asked of a server before it is used, and what an answer is worth (D28): every pair of expectation and finding.
import t from 'tap';
import {
  type ExpectedServer,
  type FoundServer,
  identityQuestions,
  mismatch,
} from '../../../src/backend/connection/server-identity.js';

const NAMED: ExpectedServer = {
  shard: 's1',
  clusterId: 'ours',
  systemIdentifier: '11',
  database: 'app',
  role: 'primary',
};
const FOUND: FoundServer = { shard: 's1', clusterId: 'ours', systemIdentifier: '11', role: 'primary' };

t.test('a difference in any one thing that is known is named; what is not known is not held against it', async (t) => {
  const foreign = { shard: 's2', clusterId: 'theirs', systemIdentifier: '22', role: 'replica' } as const;
  for (let known = 0; known < 8; known++) {
    const expected: ExpectedServer = {
      ...NAMED,
      clusterId: (known & 1) > 0 ? NAMED.clusterId : null,
      systemIdentifier: (known & 2) > 0 ? NAMED.systemIdentifier : null,
      role: (known & 4) > 0 ? NAMED.role : null,
    };
    t.equal(mismatch(expected, true, FOUND), null);
    t.match(mismatch(expected, true, { ...FOUND, shard: 's2' }), /expected shard "s1".*, found shard "s2"/);
    for (const field of ['clusterId', 'systemIdentifier', 'role'] as const) {
      const fault = mismatch(expected, true, { ...FOUND, [field]: foreign[field] });
      if (expected[field] === null) t.equal(fault, null, `${field} is not known`);
      else t.match(fault, field === 'role' ? /as a primary, found a standby/ : new RegExp(`found .*${foreign[field]}`));
    }
  }
});

t.test('a server that says nothing of itself', async (t) => {
  const silent: FoundServer = { ...FOUND, shard: null, clusterId: null };
  t.match(mismatch(NAMED, true, silent), /found a server that is no shard/);
  t.equal(mismatch({ ...NAMED, clusterId: null }, true, silent), null, 'set up by an older pgkv');
  t.equal(mismatch(NAMED, false, silent), null, 'in a database where none does');
  t.match(mismatch(NAMED, false, { ...silent, systemIdentifier: null }), /found null/, 'but this much it must');
});

t.test('a shard of an older extension is known by its name', async (t) => {
  t.equal(mismatch(NAMED, true, { ...FOUND, clusterId: null }), null);
  t.match(mismatch(NAMED, true, { ...FOUND, clusterId: null, shard: 's2' }), /found shard "s2"/);
});

t.test('questions: as many as there is something to hold the answers against', async (t) => {
  t.equal(identityQuestions(NAMED, 'app').length, 3);
  t.equal(identityQuestions(NAMED, 'postgres').length, 2);
  t.equal(identityQuestions({ ...NAMED, database: null }, 'app').length, 1, 'without a catalogue: the role');
  t.equal(identityQuestions({ ...NAMED, database: null, role: null }, 'app').length, 0);
});
