// The judge of the model can tell right from wrong: each history here is one that a broken lane would produce, beside the
// one it should have been.
import t from 'tap';
import { type Expiry, type KeyEvent, NEVER } from './key-events.js';
import { judge } from './verdict.js';

const V = 5_000_000;

const at = (from: number, to: number, client = 1, what = `client ${client} at ${from}`) => ({ from, to, client, what });
type At = ReturnType<typeof at>;

const write = (
  moment: At,
  version: number | null,
  text: string,
  more: { makes?: 'birth' | 'update' | 'any'; sure?: boolean; expiry?: Expiry } = {},
): KeyEvent => ({
  ...moment,
  kind: 'write',
  version,
  value: { text },
  makes: more.makes ?? 'any',
  sure: more.sure ?? true,
  expiryOfBirth: more.expiry ?? NEVER,
  expiryOfUpdate: more.expiry ?? 'kept',
});
const seen = (moment: At, version: number, value: string): KeyEvent => ({ ...moment, kind: 'seen', version, value });
const gone = (moment: At, version: number | null, sure = true): KeyEvent => ({
  ...moment,
  kind: 'delete',
  version,
  sure,
});
const claim = (moment: At, what: 'present' | 'absent' | { not: number }): KeyEvent => ({
  ...moment,
  kind: 'claim',
  claim: what,
});

/** Two writes one behind the other. */
const TWO = [write(at(0, 10), V, 'a', { makes: 'birth' }), write(at(20, 30), V + 1, 'b', { makes: 'update' })];
const UNTIL = Number.POSITIVE_INFINITY;

const RIGHT: Readonly<Record<string, readonly KeyEvent[]>> = {
  'reads beside a write see either state': [...TWO, seen(at(15, 25, 2), V, 'a'), seen(at(15, 25, 3), V + 1, 'b')],
  'a key that was deleted is absent until it is made again': [
    ...TWO,
    gone(at(40, 50), V + 1),
    claim(at(45, 60, 2), 'absent'),
    write(at(70, 80), 2 * V, 'c', { makes: 'birth' }),
    seen(at(90, 91, 2), 2 * V, 'c'),
  ],
  'a write whose client vanished may have been done': [
    ...TWO,
    write(at(40, UNTIL, 2), null, 'c', { sure: false }),
    seen(at(60, 70, 3), V + 2, 'c'),
  ],
  'or not': [...TWO, write(at(40, UNTIL, 2), null, 'c', { sure: false }), seen(at(60, 70, 3), V + 1, 'b')],
  'or is known by the version behind it only': [
    ...TWO,
    write(at(40, UNTIL, 2), null, 'c', { sure: false }),
    write(at(60, 70, 3), V + 3, 'd'),
  ],
  'writes that were told no version made those that are missing, in any order': [
    ...TWO,
    write(at(40, 60, 2), null, 'c', { makes: 'update' }),
    write(at(41, 50, 3), null, 'd', { makes: 'update' }),
    write(at(70, 80), V + 4, 'e'),
  ],
  'the last of them may have been deleted unseen': [
    ...TWO,
    write(at(40, 60, 2), null, 'c', { makes: 'update' }),
    gone(at(50, 70, 3), null),
    write(at(80, 90), 2 * V, 'd', { makes: 'birth' }),
  ],
  'an expired key is absent, and made again': [
    write(at(0, 10), V, 'a', { makes: 'birth', expiry: { low: 100, high: 100 } }),
    seen(at(50, 60, 2), V, 'a'),
    claim(at(150, 160, 2), 'absent'),
    write(at(170, 180), 2 * V, 'b', { makes: 'birth' }),
  ],
};

const WRONG: Readonly<Record<string, readonly [RegExp, readonly KeyEvent[]]>> = {
  'a read gets the value of another key': [/nobody wrote here/, [...TWO, seen(at(40, 50, 2), 3 * V, 'other')]],
  'a read gets the version of one write and the value of another': [
    /which is b/,
    [...TWO, seen(at(40, 50), V + 1, 'a')],
  ],
  'a read does not see what was acknowledged before': [/begins behind/, [...TWO, seen(at(40, 50, 2), V, 'a')]],
  'a read sees what is written later': [/begins behind/, [...TWO, seen(at(11, 12, 2), V + 1, 'b')]],
  'a client reads back in time, within one packet': [
    /had met a later one/,
    [...TWO, seen(at(15, 25, 2), V + 1, 'b'), seen(at(15, 26, 2), V, 'a')],
  ],
  'two clients read in opposite orders': [
    /begins behind/,
    [...TWO, seen(at(21, 22, 2), V + 1, 'b'), seen(at(23, 24, 3), V, 'a')],
  ],
  'a key that is there is told to be absent': [/never was/, [...TWO, claim(at(15, 25, 2), 'absent')]],
  'a key that was never made is told to be there': [/never was/, [claim(at(15, 25, 2), 'present')]],
  'an INSERT succeeds over a row': [
    /made version .* of version/,
    [...TWO, write(at(40, 50), V + 2, 'c', { makes: 'birth' })],
  ],
  'an update changes nothing that was there': [
    /made by nobody/,
    [write(at(0, 10), V, 'a', { makes: 'update' }), seen(at(20, 30), V, 'a')],
  ],
  'a write is done twice': [/made by nobody/, [...TWO, write(at(40, 50), V + 3, 'c')]],
  'a write that failed is done': [/made by nobody/, [...TWO, write(at(60, 70, 2), V + 3, 'd')]],
  'and is seen': [/nobody wrote here/, [...TWO, seen(at(60, 70, 2), V + 2, 'failed')]],
  'a write is acknowledged and lost': [
    /made by/,
    [...TWO, write(at(40, 50, 2), V + 2, 'c'), write(at(60, 70, 3), V + 2, 'd')],
  ],
  'so is one that was told no version': [
    /made no version/,
    [
      ...TWO,
      write(at(40, 50, 2), null, 'c', { makes: 'update' }),
      write(at(60, 70, 3), V + 2, 'd', { makes: 'update' }),
      gone(at(80, 90), V + 2),
    ],
  ],
  'two clients delete the same row': [
    /was deleted by/,
    [...TWO, gone(at(40, 60, 2), V + 1), gone(at(41, 61, 3), V + 1)],
  ],
  'so they do where no version is told': [
    /which was not there/,
    [...TWO, gone(at(40, 60, 2), null), gone(at(41, 61, 3), null)],
  ],
  'a key lives again, and nobody has deleted it': [
    /nobody ended/,
    [...TWO, write(at(40, 50), 2 * V, 'c', { makes: 'birth' })],
  ],
  'a deleted row is changed': [/was changed afterwards/, [...TWO, gone(at(40, 50), V)]],
  'an expired row is seen': [
    /had expired/,
    [write(at(0, 10), V, 'a', { expiry: { low: 100, high: 100 } }), seen(at(150, 160, 2), V, 'a')],
  ],
  'a row is gone before it expires': [
    /never was/,
    [write(at(0, 10), V, 'a', { expiry: { low: 100, high: 100 } }), claim(at(20, 60, 2), 'absent')],
  ],
  'an expired row is changed': [
    /had expired/,
    [
      write(at(0, 10), V, 'a', { expiry: { low: 100, high: 100 } }),
      write(at(150, 160), V + 1, 'b', { makes: 'update' }),
    ],
  ],
  'a compare-and-swap fails though the version was right': [
    /never was/,
    [...TWO, claim(at(40, 50, 2), { not: V + 1 })],
  ],
};

/** The second life was born at the third's version's time and later; it was deleted while the third's author waited. */
const late = (answered: number): readonly KeyEvent[] => [
  ...TWO,
  gone(at(40, 50, 2), null),
  write(at(45, answered, 3), 2 * V, 'waited'),
  write(at(60, 65, 2), 3 * V, 'short', { makes: 'birth' }),
  gone(at(66, 68, 4), null),
  write(at(80, 90, 2), 2 * V + 1, 'changed', { makes: 'update' }),
  gone(at(100, 110, 2), 2 * V + 1),
  write(at(120, 130, 2), 4 * V, 'last', { makes: 'birth' }),
];

t.test('a life that was born late is told apart', async (t) => {
  t.same(judge(late(75)), { problems: [], isBornLate: true });
  const { problems } = judge(late(59));
  t.match(problems.join('\n'), /nobody ended[\s\S]*was not there/, 'one that was answered before cannot be late');
});

for (const [name, events] of Object.entries(RIGHT)) {
  t.test(`right: ${name}`, async (t) => t.same(judge(events), { problems: [], isBornLate: false }));
}

for (const [name, [problem, events]] of Object.entries(WRONG)) {
  t.test(`wrong: ${name}`, async (t) => {
    const { problems } = judge(events);
    t.match(problems.join('\n'), problem);
    t.not(problems.length, 0);
  });
}
