// Where the SCRAM verifiers of roles come from: the home shard, asked through a SECURITY DEFINER function
// (config/auth.sql) with pgkv's service role. Answers are kept for `cacheMs`; nothing is written anywhere.
import { LRUCache } from 'lru-cache';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import { serviceQuery } from '../../backend/pool/service-query.js';
import type { Clock } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { ITERATIONS_DEFAULT, parseVerifier, type ScramVerifier } from '../../wire/scram-verifier.js';

export interface VerifierSourceOptions {
  readonly pool: NodePool;
  readonly group: PoolGroup;
  /** Gives name, verifier and expiry of the role `$1`, or no row. */
  readonly query: string;
  readonly cacheMs: number;
  readonly clock: Clock;
  /** Tells processes that keep verifiers of their own. */
  readonly forgotten?: (role: string) => void;
}

/** Roles remembered at one time. */
const ROLES_MAX = 10_000;

export class VerifierSource {
  /** The count of the verifier read last: what a stand-in for an unknown role has to show as well. */
  iterations = ITERATIONS_DEFAULT;
  readonly #options: VerifierSourceOptions;
  readonly #cache = new LRUCache<string, { verifier: ScramVerifier | null; until: number }>({ max: ROLES_MAX });

  constructor(options: VerifierSourceOptions) {
    this.#options = options;
  }

  /** Null for a role that does not exist, has no SCRAM verifier, or whose password has expired. Rejects with 08006. */
  async lookUp(user: string): Promise<ScramVerifier | null> {
    const { pool, group, query, cacheMs, clock } = this.#options;
    const now = clock.now();
    const known = this.#cache.get(user);
    if (known !== undefined && known.until > now) return known.verifier;
    const sql = query.replaceAll('$1', () => quoteLiteral(user));
    let rows: (string | null)[][];
    try {
      rows = await serviceQuery(pool, group, clock, sql);
    } catch (error) {
      // No detail: it would tell somebody who has not logged in where the server is and who pgkv is there.
      throw new PgkvError('server_unreachable', { message: 'the role cannot be looked up at present', cause: error });
    }
    const verifier = usableVerifier(rows[0], clock.wallTime());
    if (verifier !== null) this.iterations = verifier.iterations;
    // An expiry is checked at each look-up only, so a cached one lives on for at most `cacheMs`.
    this.#cache.set(user, { verifier, until: now + cacheMs });
    return verifier;
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
}

function usableVerifier(row: (string | null)[] | undefined, wallTime: number): ScramVerifier | null {
  const [, password, validUntil] = row ?? [];
  if (password === null || password === undefined) return null;
  if (validUntil !== null && validUntil !== undefined && validUntil !== 'infinity') {
    // "2026-11-23 08:00:00+00": ISO 8601 but for the blank and the short offset.
    const expiry = Date.parse(validUntil.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00'));
    if (!(expiry > wallTime)) return null;
  }
  return parseVerifier(password);
}
