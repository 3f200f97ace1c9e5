// Where the SCRAM verifiers of roles come from: the home shard, asked through a SECURITY DEFINER function
// (config/auth.sql) with pgkv's service role. Answers are kept for `cacheMs`; nothing is written anywhere.
import { LRUCache } from 'lru-cache';
import pg from 'pg';
import type { Clock } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import { parseVerifier, type ScramVerifier } from '../wire/scram-verifier.js';

export interface VerifierSource {
  /** Null for a role that does not exist, has no SCRAM verifier, or whose password has expired. */
  lookUp(user: string): Promise<ScramVerifier | null>;
  close(): Promise<void>;
}

export interface VerifierSourceOptions {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: string | null;
  readonly query: string;
  readonly cacheMs: number;
  readonly connectTimeoutMs: number;
  readonly tls: 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';
  readonly clock: Clock;
}

interface Row {
  rolpassword: string | null;
  rolvaliduntil: Date | string | null;
}

/** Roles remembered at one time. */
const ROLES_MAX = 10_000;
/** Look-ups at one time; more wait in the driver's queue, whose length start-up limits bound. */
const CONNECTIONS_MAX = 2;

export function createVerifierSource(options: VerifierSourceOptions): VerifierSource {
  const encrypted = options.tls === 'require' || options.tls.startsWith('verify');
  const pool = new pg.Pool({
    host: options.host,
    port: options.port,
    user: options.user,
    database: options.database,
    max: CONNECTIONS_MAX,
    connectionTimeoutMillis: options.connectTimeoutMs,
    query_timeout: options.connectTimeoutMs,
    application_name: 'pgkv',
    allowExitOnIdle: true,
    ...(options.password === null ? {} : { password: options.password }),
    ...(encrypted && !options.host.startsWith('/') ? { ssl: { rejectUnauthorized: options.tls !== 'require' } } : {}),
  });
  // A pooled connection that breaks while idle is replaced at the next look-up, which reports what is wrong then.
  pool.on('error', () => undefined);
  const cache = new LRUCache<string, { verifier: ScramVerifier | null; until: number }>({ max: ROLES_MAX });
  return {
    async lookUp(user) {
      const now = options.clock.now();
      const known = cache.get(user);
      if (known !== undefined && known.until > now) return known.verifier;
      let rows: Row[];
      try {
        ({ rows } = await pool.query<Row>(options.query, [user]));
      } catch (error) {
        throw new PgkvError('server_unreachable', {
          message: 'the role cannot be looked up at present',
          detail: messageOf(error),
          cause: error,
        });
      }
      const verifier = usableVerifier(rows[0], options.clock.wallTime());
      // An expiry is checked at each look-up only, so a cached one lives on for at most `cacheMs`.
      cache.set(user, { verifier, until: now + options.cacheMs });
      return verifier;
    },
    async close() {
      await pool.end();
    },
  };
}

function usableVerifier(row: Row | undefined, wallTime: number): ScramVerifier | null {
  if (row === undefined || row.rolpassword === null) return null;
  if (row.rolvaliduntil !== null && new Date(row.rolvaliduntil).getTime() < wallTime) return null;
  return parseVerifier(row.rolpassword);
}
