// Where pgkv learns of roles: every shard is asked at once, through a SECURITY DEFINER function (config/auth.sql) with
// pgkv's service role. The first shard in order that answers says who may log in, so that none is needed for it; what the
// others say is compared. Answers are kept for `cacheMs`; nothing is written anywhere.
import { LRUCache } from 'lru-cache';
import { StatementRefused } from '../../backend/pool/service-query.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import type { ShardView } from '../../cluster/cluster-view.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { ITERATIONS_DEFAULT } from '../../wire/scram-verifier.js';
import { type RoleRecord, readRoleRecord } from './role-record.js';

export interface RoleSourceOptions {
  /** The home shard's first. */
  shards(): readonly ShardView[];
  /** Rows of a statement that the service role runs on the shard's primary. */
  ask(shard: ShardView, sql: string): Promise<(string | null)[][]>;
  /** Gives name, verifier and expiry of the role `$1`, and its rights, or no row. */
  readonly query: string;
  readonly cacheMs: number;
  readonly clock: Clock;
  /** Tells processes that keep records of their own. */
  readonly forgotten?: (role: string) => void;
}

export interface RoleAnswer {
  readonly shard: ShardView;
  /** Null: the role does not exist there. */
  readonly record: RoleRecord | null;
}

/** In the order of the shards; those that have not answered yet are not among them. */
export type RoleAnswers = readonly RoleAnswer[];

interface Known {
  answers: RoleAnswers;
  readonly until: number;
}

/** Roles remembered at one time. */
const ROLES_MAX = 10_000;
/** Longer names are nobody's (NAMEDATALEN), and may be as long as a start-up packet. */
const NAME_LENGTH_MAX = 63;
/** So long the first answer waits for the others: a shard that is down keeps nobody out, and delays a login by no more. */
const OTHERS_WAIT_MS = 250;
/** The query for servers on which auth.sql of pgkv 0.1 was run; for so long it is known that one is. */
const FORMER_QUERY = 'SELECT rolname, rolpassword, rolvaliduntil FROM pgkv.role_verifier($1)';
const FORMER_MS = 60_000;

const UNDEFINED_FUNCTION = '42883';
/** Neither function, nor schema, nor right. */
const NOT_SET_UP: ReadonlySet<string> = new Set([UNDEFINED_FUNCTION, '3F000', '42501']);

export class RoleSource {
  /** The count of the verifier read last: what a stand-in for an unknown role has to show as well. */
  iterations = ITERATIONS_DEFAULT;
  readonly #options: RoleSourceOptions;
  readonly #cache = new LRUCache<string, Known>({ max: ROLES_MAX });
  /** Clients that log in at one time as the same role ask once. */
  readonly #underWay = new Map<string, Promise<RoleAnswers>>();
  /** By shard: until when the former query is asked. */
  readonly #former = new Map<string, number>();

  constructor(options: RoleSourceOptions) {
    this.#options = options;
  }

  /** At least one answer. Rejects with 08006 where no shard gives one. */
  lookUp(user: string): Promise<RoleAnswers> {
    const known = this.#cache.get(user);
    if (known !== undefined && known.until > this.#options.clock.now()) return Promise.resolve(known.answers);
    let asked = this.#underWay.get(user);
    if (asked === undefined) {
      asked = this.#askAll(user).finally(() => this.#underWay.delete(user));
      this.#underWay.set(user, asked);
    }
    return asked;
  }

  /** The verifier did not fit: it may have been changed, so the next login asks again. */
  forget(user: string): void {
    this.forgottenElsewhere(user);
    this.#options.forgotten?.(user);
  }

  /** The same, where another process found out. */
  forgottenElsewhere(user: string): void {
    this.#cache.delete(user);
  }

  #askAll(user: string): Promise<RoleAnswers> {
    const { clock, cacheMs } = this.#options;
    const shards = this.#options.shards();
    const records: (RoleRecord | null | undefined)[] = shards.map(() => undefined);
    const failures: unknown[] = [];
    // Expiry is checked at each look-up only, so a cached password lives on for at most `cacheMs`.
    const known: Known = { answers: [], until: clock.now() + cacheMs };
    return new Promise((resolve, reject) => {
      let patience: { cancel(): void } | null = null;
      let left = shards.length;
      const finish = (): void => {
        patience?.cancel();
        if (known.answers.length > 0) resolve(known.answers);
        else reject(cannotLookUp(failures[0]));
      };
      const settled = (): void => {
        left--;
        if (left === 0) finish();
      };
      for (const [index, shard] of shards.entries()) {
        this.#ask(shard, user).then(
          (record) => {
            records[index] = record;
            known.answers = shards.flatMap((of, at) => {
              const found = records[at];
              return found === undefined ? [] : [{ shard: of, record: found }];
            });
            if (patience === null) {
              if (user.length <= NAME_LENGTH_MAX) this.#cache.set(user, known);
              patience = clock.after(OTHERS_WAIT_MS, finish);
            }
            settled();
          },
          (error: unknown) => {
            failures.push(error);
            settled();
          },
        );
      }
    });
  }

  /** Null: there is no such role. */
  async #ask(shard: ShardView, user: string): Promise<RoleRecord | null> {
    const { clock, query } = this.#options;
    const isFormer = (this.#former.get(shard.name) ?? 0) > clock.now();
    let rows: (string | null)[][];
    try {
      rows = await this.#run(shard, isFormer ? FORMER_QUERY : query, user);
    } catch (error) {
      if (isFormer || refusalOf(error)?.sqlstate !== UNDEFINED_FUNCTION) throw error;
      rows = await this.#run(shard, FORMER_QUERY, user);
      this.#former.set(shard.name, clock.now() + FORMER_MS);
    }
    const [row] = rows;
    if (row === undefined) return null;
    const record = readRoleRecord(row, clock.wallTime());
    if (record.verifier !== null) this.iterations = record.verifier.iterations;
    return record;
  }

  #run(shard: ShardView, query: string, user: string): Promise<(string | null)[][]> {
    return this.#options.ask(
      shard,
      query.replaceAll('$1', () => quoteLiteral(user)),
    );
  }
}

const refusalOf = (error: unknown): StatementRefused | null =>
  error instanceof PgkvError && error.cause instanceof StatementRefused ? error.cause : null;

/** Without detail: it would tell somebody who has not logged in where the server is and who pgkv is there. */
function cannotLookUp(cause: unknown): PgkvError {
  const isNotSetUp = NOT_SET_UP.has(refusalOf(cause)?.sqlstate ?? '');
  return new PgkvError('server_unreachable', {
    message: isNotSetUp
      ? 'roles cannot be looked up: auth.sql has to be run on the servers, in the database of [auth.service]'
      : 'the role cannot be looked up at present',
    cause,
  });
}
