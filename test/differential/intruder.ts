// A second client that uses the same pool between the steps of a scenario, and leaves as much dirt as a client can.
// Whatever it does must not show in the scenario's answers.
import { setTimeout as sleep } from 'node:timers/promises';
import type { FrontendMessage } from '../support/frontend-message.js';
import type { Target } from '../support/target.js';
import { type Until, WireClient } from '../support/wire-client.js';

/** How long a scenario waits for the intruder: it stays blocked where the scenario holds the last connection. */
const PATIENCE_MS = 25;
/** Every how many turns it is a fleeting client: connections are what the suite spends most of its time on. */
const FLEETING_EVERY = 10;
const LEAVE_TIMEOUT_MS = 30_000;
const FOREVER_MS = 60_000;

/** Done by a client that stays: its settings and statements belong to it alone. */
const LASTING: readonly (readonly FrontendMessage[])[] = [
  [{ query: `set datestyle = 'German'; set timezone = 'Asia/Tokyo'; set extra_float_digits = -5` }],
  [{ parse: `select 'intruder', $1::text`, name: 's1' }, { parse: `select 'intruder unnamed'` }, 'sync'],
  [{ query: `set search_path = pg_catalog; set bytea_output = escape; set intervalstyle = 'sql_standard'` }],
  [{ query: `begin; set local work_mem = '77MB'; select 1; rollback` }],
  [{ parse: 'select 1/0' }, { bind: [] }, { execute: '' }, 'sync'],
  [{ query: `select set_config('app.tenant', 'intruder', false), set_config('app.user', 'intruder', false)` }],
  [{ query: `set client_encoding = 'LATIN1'; set application_name = 'intruder'; set statement_timeout = '9s'` }],
  [{ query: `set default_transaction_isolation = 'serializable'; set default_transaction_read_only = on` }],
  [{ parse: 'select 5', name: 's2' }, { bind: [], statement: 's2', portal: 'p1' }, { execute: 'p1' }, 'sync'],
];

interface Visit {
  readonly messages: readonly FrontendMessage[];
  /** The client is gone when this has come, whatever else is under way. */
  readonly until: Until;
}

/** Done by a client that leaves at once, some of them in the middle of something. */
const FLEETING: readonly Visit[] = [
  visit(`create temp table intruder_temp (x int); create temp sequence intruder_seq; select nextval('intruder_seq')`),
  visit(`listen news; prepare s1 as select 'intruder'; select pg_advisory_lock(987654)`),
  visit(`begin; declare intruder cursor with hold for select generate_series(1, 9); commit`),
  visit('begin; select 1'),
  visit('set session characteristics as transaction read only; set row_security = off'),
  {
    messages: [
      { parse: 'select generate_series(1, 9)' },
      { bind: [], portal: 'p1' },
      { execute: 'p1', rows: 2 },
      'flush',
    ],
    until: { type: 'PortalSuspended' },
  },
  visit('begin; select no_such_column'),
  visit(`set role pg_monitor; set app.trace = 'intruder'`),
  visit('create temp table intruder_copy (x text); copy intruder_copy from stdin', { type: 'CopyInResponse' }),
];

function visit(query: string, until: Until = 1): Visit {
  return { messages: [{ query }], until };
}

export class Intruder {
  readonly #target: Target;
  readonly #lasting: WireClient;
  #turn = 0;
  #busy = false;
  #current: Promise<void> = Promise.resolve();
  #fleeting: WireClient | undefined;

  private constructor(target: Target, lasting: WireClient) {
    this.#target = target;
    this.#lasting = lasting;
  }

  /** `turn` says where in its repertoire it begins, so that scenarios meet different dirt. */
  static async enter(target: Target, turn: number): Promise<Intruder> {
    const lasting = await WireClient.open(target, FOREVER_MS);
    await lasting.startUp(target);
    const intruder = new Intruder(target, lasting);
    intruder.#turn = turn;
    return intruder;
  }

  /** Does the next thing, and waits for it unless it is blocked. Does nothing while the last is still blocked. */
  async disturb(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    const turn = this.#turn++;
    const work =
      turn % FLEETING_EVERY === 0 ? this.#disturbFleeting(turn / FLEETING_EVERY) : this.#disturbLasting(turn);
    this.#current = work.finally(() => {
      this.#busy = false;
    });
    await Promise.race([this.#current, sleep(PATIENCE_MS, undefined, { ref: false })]);
  }

  /** Leaves; resolves to whether everything it began came to an end. */
  async leave(): Promise<boolean> {
    const stuck = await Promise.race([
      this.#current.then(() => false),
      sleep(LEAVE_TIMEOUT_MS, true, { ref: false }), // an unref'd timer: it must not hold up the end of the tests
    ]);
    this.#lasting.destroy();
    this.#fleeting?.destroy();
    return !stuck;
  }

  async #disturbLasting(turn: number): Promise<void> {
    await this.#lasting.exchange(LASTING[turn % LASTING.length] ?? []);
  }

  async #disturbFleeting(turn: number): Promise<void> {
    const client = await WireClient.open(this.#target, FOREVER_MS);
    this.#fleeting = client;
    await client.startUp(this.#target);
    const { messages, until } = FLEETING[turn % FLEETING.length] ?? visit('select 1');
    await client.exchange(messages, until);
    client.destroy();
  }
}
