// Where pgkv may answer 0A000 and Postgres does not (D10, D13, D14), and what Postgres is sent in its place: the same message
// fails there too, so that what must follow (the block has failed, 25P02, ROLLBACK, nothing of it persists) is compared.
import { hashSlotOf } from '../../../src/cluster/key-hash.js';
import type { ErrorFields } from '../../support/backend-message.js';
import type { Unit } from './answers.js';
import type { FuzzMessage, Statement, Touch } from './script.js';

const HASH_SLOTS = 16_384;
const STAND_IN: Statement = { sql: 'select refused_by_pgkv', touch: { kind: 'none' } };
const NOBODY = 'refused by pgkv';

/** Kinds of answers that end what a message of the extended protocol is owed. */
const ENDS = new Set(['ParseComplete', 'BindComplete', 'CloseComplete', 'NoData', 'RowDescription']);
const STATEMENT_ENDS = new Set(['CommandComplete', 'EmptyQueryResponse', 'PortalSuspended']);

export interface Refusal {
  /** Of the statement in the Query, or of the message in the batch. */
  readonly at: number;
  readonly fields: ErrorFields;
}

/** The refusal in an answer: an error of pgkv's own with the code of a rule. */
export function refusalIn(unit: Unit, part: readonly FuzzMessage[]): Refusal | null {
  const isBatch = part.some((message) => typeof message !== 'string' && !('query' in message));
  let at = 0;
  for (const message of unit) {
    if (STATEMENT_ENDS.has(message.type) || (isBatch && ENDS.has(message.type))) at++;
    if (message.type !== 'ErrorResponse') continue;
    const { fields } = message;
    return fields['C'] === '0A000' && fields['F'] === undefined ? { at, fields } : null;
  }
  return null;
}

/** The messages with what fails in place of what was refused; null where there is no such place. */
export function standIn(part: readonly FuzzMessage[], at: number): FuzzMessage[] | null {
  const [first] = part;
  if (part.length === 1 && typeof first !== 'string' && first !== undefined && 'query' in first) {
    if (at >= first.query.length) return null;
    return [{ ...first, query: first.query.map((statement, index) => (index === at ? STAND_IN : statement)) }];
  }
  let index = -1;
  let isPlaced = false;
  const messages = part.map((message): FuzzMessage => {
    if (typeof message === 'string' || ++index !== at) return message;
    isPlaced = true;
    if ('parse' in message) return { ...message, parse: STAND_IN, types: [] };
    if ('bind' in message) return { ...message, statement: NOBODY };
    if ('execute' in message) return { ...message, execute: NOBODY };
    if ('query' in message) return { ...message, query: [STAND_IN] };
    if ('describe' in message || 'close' in message) return { describe: 'portal', name: NOBODY };
    return message;
  });
  return isPlaced ? messages : null;
}

const bindsPortal = (part: readonly FuzzMessage[]): boolean =>
  part.some((message) => typeof message !== 'string' && 'bind' in message && message.portal !== '');

/** What a session's statements have bound it to since its block began, and its statements by name. */
export class Bindings {
  readonly #shards: number;
  readonly #bound = new Set<number>();
  /** The block has failed once: it stays where that was, even if it goes on from a savepoint. */
  #hasFailed = false;
  readonly #named = new Map<string, Touch[]>();
  /** The session may hold on home what a transaction elsewhere cannot give up. */
  #holds = false;
  /** A portal with a name is bound in the block, or batch. */
  #hasPortal = false;
  /** The open batch, in earlier packets, has run what is no read. */
  #batchSets = false;
  /** The block has held nothing but single statements on keys, BEGIN and savepoints. */
  #isPlain = true;
  /** When the open batch began. */
  #inBlock = false;
  /** A batch was begun in an earlier packet. */
  #isOpen = false;

  constructor(shards: number) {
    this.#shards = shards;
  }

  /** Why pgkv may refuse something in this part, null where it may not. */
  allows(part: readonly FuzzMessage[], { at, fields }: Refusal): string | null {
    const touches = this.#touches(part);
    const reached = touches.slice(0, isQuery(part) ? at + 1 : touches.length);
    const all = isQuery(part) ? touches : reached;
    const unsupported = all.find(({ kind }) => kind === 'unsupported');
    if (unsupported?.kind === 'unsupported') return `not supported: ${unsupported.what}`;
    if (isCopiedBadly(part)) return 'COPY by the extended protocol, or beside others';
    if (/encoding/.test(`${fields['M']} ${fields['D']}`) && isForeign(part))
      return 'a text in another encoding than UTF8 (A10)';
    if (this.#shards === 1 && !mixes(part, touches)) return null;
    if (mixes(part, touches)) return 'a text of statements on key-value tables and others';
    for (const touch of all) {
      const { size } = new Set(this.#shardsOf(touch));
      const writes = (touch.kind === 'every' || touch.kind === 'keys') && touch.writes;
      if (size > 1 && writes && !this.#standsAlone(part)) return 'a write on several shards beside others (D14)';
    }
    const needed = new Set([...this.#bound, ...all.flatMap((touch) => this.#shardsOf(touch))]);
    if (needed.size > 1) return this.#overShards(part, `${fields['M']}`);
    if (/copies to several shards, and its isolation level/.test(`${fields['M']}`))
      return 'a COPY in a block that has one snapshot';
    if (this.#batchSets) return 'a batch in pieces that has set something before its key came (D12)';
    if (this.#hasPortal || bindsPortal(part)) return 'a portal with a name was bound before the first key';
    if (this.#holds && RELEASES.test(JSON.stringify(part)))
      return 'what home holds is given up in a transaction elsewhere';
    if (this.#hasFailed) return 'a block that has failed where it had no key yet, and goes on with a key elsewhere';
    return null;
  }

  /** Why statements on several shards may be refused, which blocks over them are not (D31, R57). */
  #overShards(part: readonly FuzzMessage[], message: string): string | null {
    if (/query of several statements/.test(message)) return 'a text with keys on several shards';
    if (/reads? (over )?several shards/.test(message)) return 'a read of several shards in a block that has begun';
    if (/several statements ends it|sets something|AND CHAIN|not executed next/.test(message))
      return 'what is for all branches of a block, in a form that is not';
    if (!/cannot leave its shard/.test(message)) return 'a statement that cannot be answered from several shards';
    // Of others it may not be known what opens a further branch.
    return this.#isPlain && isPlain(part) ? null : 'a block of which it is not known what opens a further branch (R57)';
  }

  /** Outside a block, and nothing else is in its text or batch, as far as that is known. */
  #standsAlone(part: readonly FuzzMessage[]): boolean {
    if (this.#inBlock || this.#isOpen) return false;
    const [first, ...rest] = part;
    if (first === undefined || typeof first === 'string') return false;
    if ('query' in first) return rest.length === 0 && first.query.length === 1;
    if (!('parse' in first)) return false;
    return (
      rest.filter((message) => typeof message !== 'string' && ('bind' in message || 'execute' in message)).length === 2
    );
  }

  /** The part was answered; `status` is that of its ReadyForQuery, if it had one. */
  answered(part: readonly FuzzMessage[], status: string | null): void {
    for (const touch of this.#touches(part)) {
      if (touch.kind !== 'catalog') for (const shard of this.#shardsOf(touch)) this.#bound.add(shard);
    }
    this.#holds ||= HOLDS.test(JSON.stringify(part));
    this.#isOpen = status === null;
    if (status === null) this.#batchSets ||= JSON.stringify(part).match(SETS) !== null;
    else {
      // What was set in front of a BEGIN of the same batch is the block's.
      this.#batchSets &&= status !== 'I' && !this.#inBlock;
      this.#inBlock = status !== 'I';
    }
    if (bindsPortal(part)) this.#hasPortal = true;
    if (!isPlain(part) || status !== 'T') this.#isPlain = false;
    if (status === 'E') this.#hasFailed = true;
    if (status === 'I') {
      this.#isPlain = true;
      this.#hasPortal = false;
      this.#bound.clear();
      this.#hasFailed = false;
    }
  }

  #touches(part: readonly FuzzMessage[]): Touch[] {
    const touches: Touch[] = [];
    for (const message of part) {
      if (typeof message === 'string') continue;
      if ('query' in message) touches.push(...message.query.map(({ touch }) => touch));
      if ('parse' in message) {
        // Which of them the name stands for hangs on errors.
        this.#named.set(message.name, [...(this.#named.get(message.name) ?? []), message.parse.touch]);
        touches.push(message.parse.touch);
      }
      if ('bind' in message) touches.push(...(this.#named.get(message.statement) ?? []));
      if ('describe' in message && message.describe === 'statement')
        touches.push(...(this.#named.get(message.name) ?? []));
    }
    return touches;
  }

  #shardsOf(touch: Touch): number[] {
    switch (touch.kind) {
      case 'home':
      case 'catalog':
        return [0];
      case 'every':
        return Array.from({ length: this.#shards }, (_, shard) => shard);
      case 'keys':
        return touch.keys.map(([tenant, key]) => shardOf(hashSlotOf(tenant, key), this.#shards));
      default:
        return [];
    }
  }
}

export function shardOf(slot: number, shards: number): number {
  let shard = 0;
  while (Math.floor(((shard + 1) * HASH_SLOTS) / shards) <= slot) shard++;
  return shard;
}

const HOLDS = /"sql":"(?:listen|prepare|create temp)|advisory|with hold/i;
const RELEASES = /"sql":"(?:deallocate|unlisten|close all|discard)|unlock/i;
const SETS = /"sql":"(?:(?:re)?set |discard )|set_config/i;

/** Only a simple query of nothing else gets a COPY. */
const isCopiedBadly = (part: readonly FuzzMessage[]): boolean =>
  part.some((message) => {
    if (typeof message === 'string') return false;
    if ('parse' in message) return isCopy(message.parse);
    return 'query' in message && message.query.length > 1 && message.query.some(isCopy);
  });
const isCopy = ({ sql }: Statement): boolean => /^copy .*\bkv\b/.test(sql);

/** One statement on keys, a BEGIN of the usual isolation, or a savepoint. */
function isPlain(part: readonly FuzzMessage[]): boolean {
  const [first] = part;
  if (part.length !== 1 || first === undefined || typeof first === 'string' || !('query' in first)) return false;
  const [only, ...more] = first.query;
  if (only === undefined || more.length > 0) return false;
  if (only.touch.kind === 'keys') return true;
  return /^(begin|start transaction|savepoint \w+|release( savepoint)? \w+)$/.test(only.sql);
}

const isQuery = (part: readonly FuzzMessage[]): boolean =>
  part.some((message) => typeof message !== 'string' && 'query' in message);

const isForeign = (part: readonly FuzzMessage[]): boolean => /[\u0080-\u00ff]/.test(JSON.stringify(part));

/** Several statements in one text, some on key-value tables and others that need a server of their own. */
function mixes(part: readonly FuzzMessage[], touches: readonly Touch[]): boolean {
  if (!isQuery(part) || touches.length < 2) return false;
  const kinds = new Set(touches.map(({ kind }) => kind));
  const isOnTables = kinds.has('keys') || kinds.has('every');
  return isOnTables && ['home', 'catalog', 'every', 'none'].some((kind) => kinds.has(kind as Touch['kind']));
}
