// What one server says of one role: a row of pgkv.role_login (config/auth.sql), or of a query written for pgkv 0.1, which
// has its first three columns only. What a row does not say is not known, and nothing is refused for it.
import type { RoleIdentity } from '../../backend/pool/pool-group.js';
import { arrayElements } from '../../route/text-array.js';
import { parseVerifier, type ScramVerifier } from '../../wire/scram-verifier.js';

export interface RoleRecord {
  /** Null: the role has no SCRAM verifier, or its password has expired. */
  readonly verifier: ScramVerifier | null;
  /** The same as the server keeps it. */
  readonly stored: string | null;
  readonly rights: RoleRights | null;
}

export interface RoleRights {
  readonly oid: string;
  readonly mayLogIn: boolean;
  readonly isSuperuser: boolean;
  /** -1: none. */
  readonly connectionLimit: number;
  /** Those it may connect to. */
  readonly databases: ReadonlySet<string>;
}

const FULL_ROW_COLUMNS = 8;

/** @param wallTime decides whether the password has expired */
export function readRoleRecord(row: readonly (string | null)[], wallTime: number): RoleRecord {
  const [, stored = null, validUntil = null] = row;
  const verifier = stored === null || hasExpired(validUntil, wallTime) ? null : parseVerifier(stored);
  return { verifier, stored, rights: readRights(row) };
}

function readRights(row: readonly (string | null)[]): RoleRights | null {
  if (row.length < FULL_ROW_COLUMNS) return null;
  const [, , , oid, mayLogIn, isSuperuser, connectionLimit, databases] = row;
  if (typeof oid !== 'string') return null;
  return {
    oid,
    mayLogIn: mayLogIn === 't',
    isSuperuser: isSuperuser === 't',
    connectionLimit: Number(connectionLimit ?? -1),
    databases: new Set((arrayElements(databases ?? '{}') ?? []).filter((name) => name !== null)),
  };
}

function hasExpired(validUntil: string | null, wallTime: number): boolean {
  if (validUntil === null || validUntil === 'infinity') return false;
  // "2026-11-23 08:00:00+00": ISO 8601 but for the blank and the short offset.
  const expiry = Date.parse(validUntil.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00'));
  return !(expiry > wallTime);
}

/** By which the connections of that server are told apart; null where the row does not say. */
export function identityOf({ stored, rights }: RoleRecord, database: string): RoleIdentity | null {
  if (rights === null) return null;
  return {
    oid: rights.oid,
    verifier: stored ?? '',
    isLimited: rights.connectionLimit >= 0,
    barred: !rights.mayLogIn || (!rights.isSuperuser && !rights.databases.has(database)),
  };
}
