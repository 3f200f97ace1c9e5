// Statements with more or fewer types declared than their text uses, and Binds with as many values as that takes, with more or with
// fewer: how many a statement takes is the server's to say, whichever lane the Bind goes to. Each is run first as it should be, so
// that the merged lane knows it, and then in all ways: named and unnamed, parsed with its Bind or before, alone and pipelined, in a
// block and outside, by its own session and by another one.
import { control, type Keys, keysFor, query, TENANT } from './by-hand.js';
import { Random } from './random.js';
import type { FuzzMessage, Packet, Script, Statement, Touch } from './script.js';
import { TYPES } from './slots.js';

interface Counted {
  readonly statement: Statement;
  /** Of its parameters, in order: a gap in the text is one that nobody uses. */
  readonly types: readonly number[];
  readonly values: readonly string[];
}

const { text, int4, int8, jsonb } = TYPES;
const NONE: Touch = { kind: 'none' };
const HOME: Touch = { kind: 'home' };
const EVERY: Touch = { kind: 'every', writes: false };
const CONTROL: Touch = { kind: 'control' };

const onKey = (key: string, writes: boolean): Touch => ({ kind: 'keys', keys: [[TENANT, key]], writes });

function formsFor(keys: Keys, random: Random): readonly Counted[] {
  const key = random.pick([keys.home, keys.other, keys.third]);
  const counted = (sql: string, touch: Touch, types: readonly number[], values: readonly string[]): Counted => ({
    statement: { sql, touch },
    types,
    values,
  });
  const reads = onKey(key, false);
  const writes = onKey(key, true);
  const where = 'where tenant_id = $1 and key = $2';
  return [
    counted(`select value, version from kv_get($1, $2)`, reads, [text, text], [TENANT, key]),
    counted(`select value from kv ${where}`, reads, [text, text], [TENANT, key]),
    counted(`select value from kv where tenant_id = $1 and key = $3`, reads, [text, int4, text], [TENANT, '7', key]),
    counted(`select value from kv where tenant_id = '${TENANT}' and key = $1`, reads, [text], [key]),
    counted(`select value from kv where tenant_id = '${TENANT}' and key = '${key}'`, reads, [], []),
    counted(`select value from kv ${where} and version > $3`, reads, [text, text, int8], [TENANT, key, '0']),
    counted(`update kv set value = $3 ${where}`, writes, [text, text, jsonb], [TENANT, key, '5']),
    counted(`delete from kv ${where}`, writes, [text, text], [TENANT, key]),
    counted(
      'insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict do nothing',
      writes,
      [text, text, jsonb],
      [TENANT, key, '6'],
    ),
    counted('select kv_put($1, $2, $3)', writes, [text, text, jsonb], [TENANT, key, '7']),
    counted('select key from kv where tenant_id = $1 order by key', EVERY, [text], [TENANT]),
    counted('select key from kv where tenant_id = $1 order by key limit $2', EVERY, [text, int8], [TENANT, '2']),
    counted('select count(*) from kv', EVERY, [], []),
    counted('select text from note where id = $1', HOME, [int4], ['1']),
    counted('select $1::int + 1 as n', NONE, [int4], ['1']),
    counted('select 1 as one', NONE, [], []),
    counted('', NONE, [], []),
    counted('begin', CONTROL, [], []),
    counted('commit', CONTROL, [], []),
  ];
}

/** What a session has prepared under a name. */
interface Prepared extends Counted {
  readonly declared: readonly number[];
}

class ValueWriter {
  readonly #random: Random;
  readonly #prepared = new Map<string, Prepared>();
  readonly #forms: readonly Counted[];

  constructor(random: Random, shards: number) {
    this.#random = random;
    const forms = formsFor(keysFor(shards), random);
    this.#forms = [random.pick(forms), random.pick(forms)];
  }

  /** As declared, as used, one more that has a type or none, or fewer. */
  declared(types: readonly number[]): readonly number[] {
    const more = this.#random.pick([int4, text, 0]);
    return this.#random.weighted<readonly number[]>([
      [3, [...types, more]],
      [1, [...types, more, int4]],
      [3, types],
      [1, types.slice(0, -1)],
      [1, []],
    ]);
  }

  parse(name: string): FuzzMessage[] {
    const form = this.#random.pick(this.#forms);
    const declared = this.declared(form.types);
    this.#prepared.set(name, { ...form, declared });
    const close: FuzzMessage[] = name === '' ? [] : [{ close: 'statement', name }];
    return [...close, { parse: form.statement, name, types: declared }];
  }

  /** The same text and types, once more. */
  again(name: string): FuzzMessage[] {
    const known = this.#prepared.get(name);
    return known === undefined || name !== '' ? [] : [{ parse: known.statement, name, types: known.declared }];
  }

  /** @param isRight with as many values as the statement takes */
  run(name: string, isRight: boolean): FuzzMessage[] {
    const random = this.#random;
    const { values, declared } = this.#prepared.get(name) ?? { values: [], declared: [] };
    const right = [...values, ...declared.slice(values.length).map(() => '8')];
    const supplied = isRight
      ? right
      : random.weighted<readonly string[]>([
          [3, values],
          [2, [...right, '9']],
          [2, right.slice(0, -1)],
          [1, []],
          [2, right],
        ]);
    const describe: FuzzMessage[] = random.chance(0.3) ? [{ describe: 'portal', name: '' }] : [];
    const bound: FuzzMessage = { bind: supplied, portal: '', statement: name, resultFormats: [] };
    return [bound, ...describe, { execute: '', rows: 0 }];
  }

  packets(session: number): Packet[] {
    const random = this.#random;
    const packets: Packet[] = [];
    const send = (...messages: FuzzMessage[]): void => {
      packets.push({ session, messages });
    };
    const names = random.chance(0.5) ? ['', 's1'] : [''];
    for (const name of names) {
      const parsed = this.parse(name);
      if (random.chance(0.5)) send(...parsed, ...this.run(name, true), 'sync');
      else {
        send(...parsed, { describe: 'statement', name }, 'sync');
        send(...this.run(name, true), 'sync');
      }
      // By then the merged lane has learnt it.
      for (let count = random.between(1, 3); count > 0; count--)
        send(...this.again(name), ...this.run(name, true), 'sync');
    }
    if (random.chance(0.2)) send(query(control('begin')));
    for (let count = random.between(2, 6); count > 0; count--) send(...this.#anyhow(names));
    send(query(control('rollback')));
    return packets;
  }

  #anyhow(names: readonly string[]): FuzzMessage[] {
    const random = this.#random;
    const one = (): FuzzMessage[] => {
      const name = random.pick(names);
      return [...(random.chance(0.5) ? this.again(name) : []), ...this.run(name, random.chance(0.4))];
    };
    return random.weighted<() => FuzzMessage[]>([
      [5, () => [...one(), 'sync']],
      [2, () => [...one(), ...one(), 'sync']],
      [2, () => [...one(), 'sync', ...one(), 'sync']],
      [1, () => [...this.parse(random.pick(names)), 'sync']],
    ])();
  }
}

export function valueScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new ValueWriter(random, shards);
  const packets = writer.packets(0);
  // What the merged lane knows of a statement is all sessions'.
  if (random.chance(0.3)) packets.push(...new ValueWriter(new Random(seed), shards).packets(1));
  return { seed, packets };
}
