// Notifications from a seed: a session that listens hears its own, and others' of the same packet, where the transaction that sent
// them ends, outside of blocks and never in one; statements pipelined, so that a BEGIN is sent before what came in front of it is
// answered; blocks held here, on the listening server or on another one.
import { atHome, control, keysFor, neutral, query, read, run } from './by-hand.js';
import { Random } from './random.js';
import type { FuzzMessage, Packet, Script, Statement } from './script.js';

const LISTENING = ['listen c', 'listen c', 'unlisten c'];
const EDGES = [
  'begin',
  'begin',
  'begin isolation level repeatable read',
  'commit',
  'commit',
  'rollback',
  'commit and chain',
];

export function noticeScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const keys = keysFor(shards);
  const statement = (): Statement =>
    random.weighted<() => Statement>([
      [3, () => atHome(`notify c, '${random.between(1, 9)}'`)],
      [3, () => atHome(random.pick(LISTENING))],
      [4, () => control(random.pick(EDGES))],
      [2, () => neutral(random.pick(['select 1 as one', 'show work_mem', 'select 1 / 0']))],
      [2, () => read(random.pick([keys.home, keys.other]))],
    ])();
  const message = (): FuzzMessage[] => {
    if (random.chance(0.3)) return [...run(statement()), 'sync'];
    // What concerns keys stands alone.
    const count = random.chance(0.3) ? 2 : 1;
    const statements = random.list(count, statement);
    return [query(...(statements.some(({ touch }) => touch.kind === 'keys') ? statements.slice(0, 1) : statements))];
  };
  const packets: Packet[] = [{ session: 0, messages: [query(atHome('listen c'))] }];
  for (let count = random.between(3, 7); count > 0; count--)
    packets.push({ session: 0, messages: random.list(random.between(1, 4), message).flat() });
  return { seed, packets: [...packets, { session: 0, messages: [query(control('rollback'))] }] };
}
