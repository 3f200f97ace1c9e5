// What a client will do, written down before the run from the run's seed: messages, where it waits, pauses, cancels and
// goes. Scripts know nothing of answers, so many of their statements fail; the mirror knows how.
import { encode, type FrontendMessage } from '../support/frontend-message.js';
import type { SeededRandom } from '../support/seeded-random.js';
import type { SentMessage } from './expectations.js';
import { messageOf } from './frames.js';
import { probeText, type Source } from './model-sql.js';

export type Step =
  | { readonly kind: 'send'; readonly messages: readonly SentMessage[]; readonly waits: boolean }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'pause'; readonly ms: number };

/**
 * How a client goes: after all answers, at once behind its last message, by tearing its connection, or by saying goodbye
 * in the middle of a batch, which nobody is going to answer.
 */
export type Farewell = 'terminate' | 'half-close' | 'terminate at once' | 'half-close at once' | 'tear' | 'abandon';

export interface Script {
  readonly steps: readonly Step[];
  readonly farewell: Farewell;
}

/** Which subjects a run is about, 0 (never) to 1; a run about few of them goes deeper into those. */
export interface Subjects {
  readonly extended: number;
  readonly transactions: number;
  readonly settings: number;
  readonly state: number;
  readonly errors: number;
  readonly copies: number;
  readonly schema: number;
  readonly multi: number;
  readonly cancels: number;
  readonly pipelining: number;
  readonly rows: number;
  readonly tears: number;
  /** Statements that all clients run, under settings of their own. */
  readonly sharing: number;
}

/** What all clients run: statements are shared where texts are equal. */
const COMMON_TEXT = probeText({ kind: 'select', tag: 't1', nonce: null, source: null, sleeps: false });

/** Blocks of the extended protocol and nothing else, in which names and settings change. */
const BLOCKS: Partial<Subjects> = {
  extended: 0.9,
  transactions: 1,
  settings: 0.3,
  state: 0,
  errors: 0.2,
  copies: 0,
  schema: 0,
  multi: 0,
  cancels: 0,
  rows: 0,
  sharing: 0,
};

export function chooseSubjects(random: SeededRandom): Subjects {
  const weight = (): number => (random.chance(0.45) ? 0 : random.fraction());
  const some = random.chance(0.15) ? BLOCKS : {};
  return {
    extended: weight(),
    transactions: weight(),
    settings: weight(),
    state: weight() * 0.5,
    errors: weight() * 0.5,
    copies: weight() * 0.5,
    schema: weight() * 0.3,
    multi: weight() * 0.5,
    cancels: weight() * 0.6,
    pipelining: weight(),
    rows: weight(),
    tears: weight(),
    sharing: weight(),
    ...some,
  };
}

export function writeScript(random: SeededRandom, owner: string, subjects: Subjects, hasName: boolean): Script {
  return new ScriptWriter(random, owner, subjects, hasName).write();
}

class ScriptWriter {
  readonly #random: SeededRandom;
  readonly #owner: string;
  readonly #subjects: Subjects;
  /** The client has an application_name from its start-up: RESET does not take pgkv back to it (see docs/DIFFERENCES.md). */
  readonly #hasName: boolean;
  #nonces = 0;
  /** All texts that were ever parsed without a name. */
  #unnamed = '';
  /** The last of them takes a value. */
  #unnamedTakes = false;
  /** What the portal of `#controlPortal` was bound to last. */
  #control = '';

  constructor(random: SeededRandom, owner: string, subjects: Subjects, hasName: boolean) {
    this.#random = random;
    this.#owner = owner;
    this.#subjects = subjects;
    this.#hasName = hasName;
  }

  write(): Script {
    const random = this.#random;
    const { tears } = this.#subjects;
    const steps: Step[] = [];
    for (let count = random.between(2, 12); count > 0; count--) {
      steps.push(...(random.chance(this.#subjects.transactions * 0.2) ? this.#transaction() : this.#step()));
      if (random.chance(0.2)) steps.push({ kind: 'pause', ms: random.fraction() * 100 });
    }
    if (random.chance(tears * 0.5)) {
      // Gone in the middle of a batch, of which some has been answered.
      const messages = [this.#parseUnnamed(this.#probe(false, false)), ...this.#run('', 0.3), this.#message('flush')];
      steps.push({ kind: 'send', messages, waits: random.chance(0.7) });
      if (random.chance(0.5)) steps.push({ kind: 'pause', ms: random.fraction() * 200 });
      return { steps, farewell: random.pick(['tear', 'abandon']) };
    }
    const polite = ['terminate', 'half-close', 'terminate at once', 'half-close at once'] as const;
    return { steps, farewell: random.chance(tears * 0.7) ? 'tear' : random.pick(polite) };
  }

  #step(): Step[] {
    const random = this.#random;
    const { cancels } = this.#subjects;
    const sleeps = random.chance(cancels * 0.5);
    const messages = sleeps ? [this.#query(this.#probe(true, true))] : this.#unit();
    if (!random.chance(cancels * (sleeps ? 2 : 0.5))) return [this.#send(messages)];
    const pause: Step[] = random.chance(0.7) ? [{ kind: 'pause', ms: random.fraction() * 40 }] : [];
    return [{ kind: 'send', messages, waits: false }, ...pause, { kind: 'cancel' }];
  }

  #send(messages: readonly SentMessage[]): Step {
    return { kind: 'send', messages, waits: !this.#random.chance(this.#subjects.pipelining) };
  }

  /** A transaction as programs write them. */
  #transaction(): Step[] {
    const random = this.#random;
    const extended = random.chance(this.#subjects.extended);
    const say = (text: string): Step =>
      this.#send(
        extended ? [this.#parseUnnamed(text), ...this.#run('', 0.5), this.#message('sync')] : [this.#query(text)],
      );
    const sets = (): boolean => random.chance(this.#subjects.settings * 0.5);
    const said = (): string => (sets() ? this.#marked(this.#setting()) : this.#probe(!extended, false));
    const work = Array.from({ length: random.between(1, 3) }, () => say(said()));
    const end = (): Step => say(this.#marked(random.chance(0.7) ? 'COMMIT' : 'ROLLBACK'));
    if (!extended || random.chance(0.5)) return [say(this.#marked('BEGIN')), ...work, end()];
    const ended: Step = { kind: 'send', messages: this.#endBatch(), waits: true };
    // What names stand for behind it.
    const uses = this.#run(random.chance(0.5) ? '' : this.#name(), 0.3);
    const used: Step = { kind: 'send', messages: [...uses, this.#message('sync')], waits: true };
    return [say(this.#marked('BEGIN')), ...work, ended, used];
  }

  #unit(): SentMessage[] {
    const random = this.#random;
    if (random.chance(this.#subjects.sharing * 0.5)) {
      const set = random.pick([`SET DateStyle = '${this.#nonce()}'`, 'RESET DateStyle']);
      if (random.chance(0.2)) return [this.#query(set)];
      return [this.#parseUnnamed(COMMON_TEXT), ...this.#run('', 0.5), this.#message('sync')];
    }
    if (random.chance(this.#subjects.copies)) return this.#copy();
    if (!random.chance(this.#subjects.extended)) return [this.#query(this.#simpleText())];
    return random.chance(0.5) ? this.#batch() : this.#pipeline();
  }

  #nonce(): string {
    return `${this.#owner}.${++this.#nonces}`;
  }

  /** A name of this client's own: table, channel, cursor, column. */
  #own(): string {
    return `${this.#owner}_${this.#random.between(1, 2)}`;
  }

  #simpleText(): string {
    const random = this.#random;
    if (random.chance(0.02)) return random.pick(['', ' ; ', '/* nothing */']);
    const count = random.chance(this.#subjects.multi) ? random.between(2, 4) : 1;
    return Array.from({ length: count }, () => this.#statement()).join('; ');
  }

  /** One statement, with a nonce somewhere in it. */
  #statement(): string {
    const random = this.#random;
    const subjects = this.#subjects;
    if (random.chance(subjects.transactions * 0.6)) return this.#marked(this.#transactionControl());
    if (random.chance(subjects.settings * 0.4)) return this.#marked(this.#setting());
    if (random.chance(subjects.state * 0.5)) return this.#marked(this.#stateful());
    if (random.chance(subjects.errors * 0.4)) {
      const wrong = ['SELECT 1/0', 'SELECT no_such_column', 'SELEC 1', `INSERT INTO kv VALUES ('duplicate')`];
      return this.#marked(random.pick(wrong));
    }
    if (random.chance(subjects.schema * 0.3)) {
      return this.#marked(`ALTER TABLE shape ADD COLUMN IF NOT EXISTS ${this.#own()} int`);
    }
    return this.#probe(true, false);
  }

  #marked(text: string): string {
    return `${text} /* ${this.#nonce()} */`;
  }

  #probe(isLiteral: boolean, sleeps: boolean): string {
    const random = this.#random;
    const kind = random.chance(0.35) && !sleeps ? 'insert' : 'select';
    return probeText({
      kind,
      tag: `t${random.between(1, 3)}`,
      nonce: isLiteral ? this.#nonce() : null,
      source: kind === 'insert' ? null : this.#source(),
      sleeps,
    });
  }

  #source(): Source | null {
    const random = this.#random;
    if (random.chance(this.#subjects.rows * 0.6)) {
      return { kind: 'rows', count: random.chance(0.1) ? 500 : random.between(1, 6) };
    }
    if (random.chance(this.#subjects.schema)) return { kind: 'table', name: 'shape' };
    if (random.chance(this.#subjects.state * 0.5)) return { kind: 'table', name: this.#own() };
    return null;
  }

  #transactionControl(): string {
    const random = this.#random;
    const roll = random.fraction();
    if (roll < 0.4) return 'BEGIN';
    if (roll < 0.65) return 'COMMIT';
    if (roll < 0.8) return 'ROLLBACK';
    const name = random.pick(['a', 'b']);
    return random.pick([`SAVEPOINT ${name}`, `SAVEPOINT ${name}`, `ROLLBACK TO ${name}`, `RELEASE ${name}`]);
  }

  #setting(): string {
    const random = this.#random;
    const name = random.pick(['work_mem', 'app.x', 'DateStyle', 'application_name']);
    const value = this.#nonce();
    const roll = random.fraction();
    if (roll < 0.45) return `SET ${name} = '${value}'`;
    if (roll < 0.6) return `SET LOCAL ${name} = '${value}'`;
    if (roll < 0.75) return `SELECT set_config('${name}', '${value}', ${random.pick(['true', 'false'])})`;
    if (this.#hasName) return `SET ${name} = '${value}'`;
    if (roll < 0.9) return `RESET ${name}`;
    return random.pick(['RESET ALL', 'DISCARD ALL']);
  }

  #stateful(): string {
    const random = this.#random;
    const own = this.#own();
    const lock = Number(this.#owner.slice(1)) * 10 + random.between(1, 2);
    return random.pick([
      `CREATE TEMP TABLE ${own} (a int)`,
      `DROP TABLE ${own}`,
      `LISTEN ${own}`,
      `UNLISTEN ${own}`,
      `NOTIFY c${random.between(1, 4)}_${random.between(1, 2)}, 'from ${this.#nonce()}'`,
      `DECLARE ${own} CURSOR WITH HOLD FOR SELECT 1`,
      `CLOSE ${own}`,
      `SELECT pg_try_advisory_lock(${lock})`,
      `SELECT pg_advisory_unlock(${lock})`,
      `PREPARE q1 AS ${this.#readOnly(this.#nonce())}`,
      random.pick(['EXECUTE q1', 'EXECUTE e1']),
      `DEALLOCATE ${random.pick(['q1', 'e1', 's1', 'ALL'])}`,
      `SELECT nextval('s')`,
      'SELECT lastval()',
      `SELECT opaque('${this.#nonce()}')`,
    ]);
  }

  #query(text: string): SentMessage {
    return this.#message({ query: text }, text);
  }

  /** @param text what it runs: says which keys it may insert, and whether it may end a transaction */
  #message(message: FrontendMessage, text = '', keys: readonly string[] = keysOf(text)): SentMessage {
    return {
      message: messageOf(encode(message)),
      keys,
      endsBlock: /COMMIT|ROLLBACK/.test(text),
      seemsToDraw:
        /;|SELEC |INSERT|COPY|EXECUTE|ALTER|CREATE|DROP|opaque|set_config/.test(text) ||
        (typeof message !== 'string' && 'execute' in message),
    };
  }

  /** The text stays under the name '' until something replaces it: who knows when it is run. */
  #parseUnnamed(text: string): SentMessage {
    this.#unnamed += `;${text}`;
    this.#unnamedTakes = text.includes('$1');
    return this.#message({ parse: text });
  }

  /** What most drivers send for one statement. */
  #batch(): SentMessage[] {
    const random = this.#random;
    const messages: SentMessage[] = [];
    let text = random.chance(0.5) ? COMMON_TEXT : this.#probe(false, false);
    if (random.chance(0.25)) text = this.#pipelinedStatement();
    if (random.chance(this.#subjects.transactions * 0.2)) return this.#endBatch();
    if (random.chance(0.8)) messages.push(this.#parseUnnamed(text), ...this.#run('', 0.7));
    else messages.push(...this.#run(this.#name(), 0.3));
    if (random.chance(0.05)) messages.push(this.#message('flush'));
    messages.push(this.#message('sync'));
    return messages;
  }

  /** The end of a block, beside messages that change what names stand for. */
  #endBatch(): SentMessage[] {
    const random = this.#random;
    const messages: SentMessage[] = [];
    const change = (): void => {
      if (random.chance(0.6)) return;
      const name = this.#name();
      const text = name === 'e1' ? this.#readOnly(this.#nonce()) : this.#probe(false, false);
      if (random.chance(0.5)) messages.push(this.#message({ close: 'statement', name: random.pick([name, '']) }));
      if (random.chance(0.3)) messages.push(this.#message({ parse: text, name }));
    };
    change();
    const end = this.#marked(random.pick(['COMMIT', 'ROLLBACK', 'ROLLBACK']));
    messages.push(this.#parseUnnamed(end), ...this.#run('', 0.4));
    change();
    if (random.chance(0.1)) messages.push(...this.#run('', 0.2));
    messages.push(this.#message('sync'));
    return messages;
  }

  /** The end or the beginning of a block under a name: what binds it, or what runs it, perhaps in a later batch. */
  #controlPortal(): SentMessage[] {
    const random = this.#random;
    const portal = 'p3';
    if (this.#control !== '' && random.chance(0.6)) return [this.#message({ execute: portal }, this.#control)];
    this.#control = this.#marked(this.#transactionControl());
    return [this.#parseUnnamed(this.#control), this.#message({ bind: [], portal })];
  }

  #name(): string {
    return this.#random.pick(['s1', 's2', 'e1']);
  }

  /** Bind, perhaps Describe, Execute. */
  #run(statement: string, describes: number): SentMessage[] {
    const random = this.#random;
    const nonce = this.#nonce();
    const messages = [this.#message({ bind: this.#values(statement, nonce), statement })];
    if (random.chance(describes)) messages.push(this.#message({ describe: 'portal' }));
    // Only under '' are there texts other than probes.
    const text = statement === '' ? this.#unnamed : '';
    messages.push(this.#message({ execute: '' }, text, [...keysOf(text), nonce]));
    return messages;
  }

  /** As many as the statement takes, unless the Bind is to be refused. */
  #values(statement: string, nonce: string): string[] {
    const takes = statement === '' ? this.#unnamedTakes : statement !== 'e1';
    const isWrong = this.#random.chance(this.#subjects.errors * 0.2);
    return takes === isWrong ? [] : [nonce];
  }

  #pipeline(): SentMessage[] {
    const random = this.#random;
    const messages: SentMessage[] = [];
    for (let count = random.between(1, 5); count > 0; count--) {
      messages.push(...this.#pipelined());
      if (random.chance(0.2)) messages.push(this.#message('flush'));
      if (random.chance(0.1)) messages.push(this.#message('sync'));
    }
    messages.push(this.#message('sync'));
    return messages;
  }

  #pipelined(): SentMessage[] {
    const random = this.#random;
    if (random.chance(this.#subjects.transactions * 0.1)) return this.#controlPortal();
    const roll = random.fraction();
    if (roll < 0.4) {
      const text = random.chance(0.6) ? this.#probe(false, false) : this.#pipelinedStatement();
      return [this.#parseUnnamed(text), ...this.#run('', 0.3)];
    }
    if (roll < 0.55) {
      const name = this.#name();
      // What EXECUTE runs takes no parameters.
      const text = name === 'e1' ? this.#readOnly(this.#nonce()) : this.#probe(false, false);
      return [this.#message({ parse: text, name })];
    }
    if (roll < 0.75) return this.#run(this.#name(), 0.2);
    if (roll < 0.8) return this.#run('', 0.2);
    if (roll < 0.87) return [this.#message({ close: 'statement', name: this.#name() })];
    if (roll < 0.92) return [this.#message({ describe: 'statement', name: random.pick([this.#name(), '']) })];
    if (roll < 0.95) {
      this.#unnamedTakes = true;
      return [this.#message({ parse: this.#readOnly(null) })];
    }
    return this.#portal();
  }

  /**
   * What drops prepared statements takes effect, in pgkv, when its answer comes: too late for the rest of its batch.
   * And a text that names statements means those there are when it is parsed, not when it is run.
   */
  #pipelinedStatement(): string {
    const text = this.#statement();
    return /DISCARD|DEALLOCATE|EXECUTE/.test(text) ? this.#probe(true, false) : text;
  }

  #readOnly(nonce: string | null): string {
    return probeText({ kind: 'select', tag: 't1', nonce, source: this.#source(), sleeps: false });
  }

  /** Rows fetched in parts. */
  #portal(): SentMessage[] {
    this.#unnamedTakes = true;
    const portal = this.#random.pick(['p1', 'p2']);
    const source: Source = { kind: 'rows', count: this.#random.between(1, 5) };
    return [
      this.#message({ parse: probeText({ kind: 'select', tag: 't2', nonce: null, source, sleeps: false }) }),
      this.#message({ bind: [this.#nonce()], portal }),
      this.#message({ execute: portal, rows: 2 }),
      this.#message({ execute: portal, rows: this.#random.pick([0, 2]) }),
      this.#message({ close: 'portal', name: portal }),
    ];
  }

  #copy(): SentMessage[] {
    const random = this.#random;
    const text = this.#marked(random.chance(0.3) ? 'COPY kv TO STDOUT' : 'COPY kv FROM STDIN');
    const data: SentMessage[] = [];
    if (text.includes('FROM')) {
      for (let count = random.between(0, 4); count > 0; count--) {
        const key = this.#nonce();
        data.push(this.#message({ copyData: `${key}\n` }, '', [key]));
      }
      data.push(this.#message(random.chance(0.8) ? 'copyDone' : { copyFail: 'no more' }));
    }
    // The answer to the query is that to the data.
    if (random.chance(0.6)) {
      const keys = data.flatMap((message) => message.keys);
      return [this.#message({ query: text }, text, keys), ...data];
    }
    // Under a name of its own: run again without data, it would take what follows for data.
    const name = 'copy';
    const messages = [
      this.#message({ close: 'statement', name }),
      this.#message({ parse: text, name }),
      this.#message({ bind: [], statement: name }),
      this.#message({ execute: '' }),
    ];
    return [...messages, ...data, this.#message('sync')];
  }
}

const keysOf = (text: string): string[] =>
  [...text.matchAll(/INSERT INTO kv VALUES \('(c\d+\.\d+)'\)/g)].map((match) => match[1]!);
