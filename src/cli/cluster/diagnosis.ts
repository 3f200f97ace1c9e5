// What `pgkv doctor` concludes from what it found. Pure: collecting is doctor.ts's business.
import type { CatalogState } from '../../catalog/catalog-state.js';
import { connectionSum } from '../../config/server-connections.js';
import type { Settings } from '../../config/settings.js';
import { type InstalledExtension, isOlder, VERSION_UNKNOWN } from './extension.js';
import type { LoginFunction } from './login-function.js';
import type { LoginRoles } from './login-roles.js';
import { RECOVER_ROLE, type RecoveryRights } from './recovery-check.js';
import type { RowCounts } from './row-check.js';
import { SERVER_MAJOR_MAX, SERVER_MAJOR_MIN, type ServerFacts } from './server-facts.js';
import type { ShardPlace } from './shard-connection.js';
import { type ShardState, sameRanges } from './shard-state.js';
import { slotText } from './slot-text.js';
import { definitionDifferences, kvFault, type TableDefinition } from './table-definition.js';

/** `wrong` keeps pgkv from doing its work; `warning` limits it; `info` is worth knowing. */
export type Severity = 'ok' | 'info' | 'warning' | 'wrong';

export interface Finding {
  readonly severity: Severity;
  /** Null: the cluster as a whole. */
  readonly shard: string | null;
  readonly check: string;
  readonly message: string;
}

/** What a shard's primary said; each part a text where asking failed. */
export interface ShardReport {
  readonly facts: ServerFacts;
  readonly extension: InstalledExtension | string;
  /** What of the extension is missing; null: not asked, as of another version. */
  readonly missing: readonly string[] | null | string;
  readonly state: ShardState | null | string;
  /** In the order of the catalogue's tables; null: not there. */
  readonly tables: readonly (TableDefinition | null | string)[];
  readonly roles: LoginRoles | string;
  /** As `tables`; null: not counted. */
  readonly rows: readonly (RowCounts | DeniedRows | null | string)[];
  /** As `tables`: functions that are missing; null: not asked. */
  readonly functions: readonly (readonly string[] | null | string)[];
  /** Whether pgkv's own role may; null: there is no such role, or the extension is missing. */
  readonly mayBeat: boolean | null | string;
  /** Null: the extension is missing, or another one. */
  readonly recovery: RecoveryRights | null | string;
  /** How pgkv's own role logs in: null: well, or it is who asks; a text: why it does not. */
  readonly service: string | null;
  /** Null: passwords are not checked by pgkv, or by a query of the user's own. */
  readonly login: LoginFunction | null | string;
}

/** Who asks may not read the table. */
export interface DeniedRows {
  readonly deniedTo: string;
}

export interface ShardExamination {
  readonly place: ShardPlace;
  /** A text: why it could not be reached. */
  readonly report: ShardReport | string;
}

/** More than this between two clocks and keys expire noticeably at another moment on one of them. */
const CLOCK_SKEW_MAX_MS = 500;

export function diagnose(
  settings: Settings,
  catalog: CatalogState | null,
  extensionVersion: string,
  shards: readonly ShardExamination[],
): Finding[] {
  const findings: Finding[] = [];
  const reached: { readonly name: string; readonly report: ShardReport }[] = [];
  for (const { place, report } of shards) {
    const add = adder(findings, place.name);
    if (typeof report === 'string') {
      add('wrong', 'reach', report);
      continue;
    }
    reached.push({ name: place.name, report });
    add('ok', 'reach', `${place.primary.host}:${place.primary.port} answers, PostgreSQL ${report.facts.version}`);
    examineServer(report.facts, settings, add);
    if (report.service !== null) {
      add('wrong', 'service', `${settings.auth.service.user} cannot log in as pgkv does: ${report.service}`);
    }
    examineLogin(report.login, settings, add);
    if (catalog === null) continue;
    examineExtension(report, extensionVersion, add);
    if (typeof report.extension !== 'string' && report.extension.kind !== 'none') {
      examineState(report, place.name, catalog, add);
      examineHeartbeat(report.mayBeat, settings, add);
      examineRecovery(report, add);
    }
  }
  if (catalog !== null) examineTables(catalog, reached, findings);
  examineRoles(settings, reached, findings);
  examineClocks(reached, findings);
  examineTwins(reached, findings);
  return findings;
}

type Add = (severity: Severity, check: string, message: string) => void;

function adder(findings: Finding[], shard: string | null): Add {
  return (severity, check, message) => findings.push({ severity, shard, check, message });
}

function examineServer(facts: ServerFacts, settings: Settings, add: Add): void {
  const { major, version, encoding, collation, sortsByBytes, inRecovery, preparedTransactionsMax } = facts;
  if (major < SERVER_MAJOR_MIN || major > SERVER_MAJOR_MAX) {
    add('wrong', 'version', `PostgreSQL ${version}: pgkv works with ${SERVER_MAJOR_MIN} to ${SERVER_MAJOR_MAX}`);
  }
  if (inRecovery) add('wrong', 'primary', 'is a replica (in recovery), not the primary of this shard');
  if (encoding === 'UTF8') add('ok', 'encoding', 'UTF8');
  else add('wrong', 'encoding', `${encoding}, not UTF8: keys would hash to other slots here`);
  if (!sortsByBytes) {
    add('warning', 'collation', `${collation}: text of columns without COLLATE "C" cannot be merged in order by pgkv`);
  }
  examineConnections(facts, settings, add);
  if (preparedTransactionsMax === 0) {
    add('info', 'prepared', 'max_prepared_transactions = 0: no atomic transactions across shards');
  } else add('ok', 'prepared', `max_prepared_transactions = ${preparedTransactionsMax}`);
}

function examineConnections(facts: ServerFacts, settings: Settings, add: Add): void {
  const { fits, text } = connectionSum(settings, facts);
  add(fits ? 'ok' : 'wrong', 'connections', fits ? text : `${text}: does not fit`);
}

function examineExtension({ extension, missing }: ShardReport, wanted: string, add: Add): void {
  if (typeof extension === 'string') return add('wrong', 'extension', extension);
  if (extension.kind === 'none') return add('wrong', 'extension', 'pgkv is not installed in this database');
  const manner = extension.kind === 'plain' ? ' (plain SQL)' : '';
  if (typeof missing === 'string') return add('wrong', 'extension', missing);
  if (missing !== null && missing.length > 0)
    return add(
      'wrong',
      'extension',
      `lacks, or has otherwise, ${namesOf(missing.map((name) => ({ name })))}: run pgkv init again`,
    );
  if (extension.version === wanted) return add('ok', 'extension', `pgkv ${wanted}${manner}`);
  const remedy = isOlder(extension.version, wanted) ? ': run pgkv init again' : '';
  if (extension.version === VERSION_UNKNOWN) return add('wrong', 'extension', `pgkv.version() is missing${remedy}`);
  add('wrong', 'extension', `pgkv ${extension.version}${manner}, this program needs ${wanted}${remedy}`);
}

function examineState({ state, facts }: ShardReport, name: string, catalog: CatalogState, add: Add): void {
  if (typeof state === 'string') return add('wrong', 'state', state);
  if (state === null) return add('wrong', 'state', 'pgkv.shard_state is empty: this database is no shard yet');
  if (state.name !== name) return add('wrong', 'state', `says that it is shard ${state.name}: addresses are mixed up`);
  const { hashSlots, systemIdentifier } = catalog.shards.find((shard) => shard.name === name) ?? { hashSlots: [] };
  if (systemIdentifier !== undefined && systemIdentifier !== facts.systemIdentifier) {
    const found = facts.systemIdentifier;
    return add('wrong', 'state', `is another server than the catalogue knows: ${found}, not ${systemIdentifier}`);
  }
  if (catalog.clusterId === undefined) {
    add('warning', 'state', 'the cluster has no id yet, by which mixed-up servers are known: run pgkv init again');
  } else if (state.clusterId !== catalog.clusterId) {
    const found = state.clusterId ?? 'none';
    return add('wrong', 'state', `belongs to another cluster: ${found}, not ${catalog.clusterId}`);
  }
  if (!sameRanges(state.hashSlots, hashSlots)) {
    const differ = `holds hash slots ${slotText(state.hashSlots)}, the catalogue says ${slotText(hashSlots)}`;
    return add('wrong', 'state', differ);
  }
  if (state.epoch > catalog.epoch) {
    return add('wrong', 'state', `is at epoch ${state.epoch}, the catalogue at ${catalog.epoch}: an old catalogue`);
  }
  const behind = state.epoch < catalog.epoch ? `epoch ${state.epoch}, behind the catalogue's ${catalog.epoch}` : null;
  add(behind === null ? 'ok' : 'warning', 'state', behind ?? `hash slots ${slotText(hashSlots)}, epoch ${state.epoch}`);
}

function examineLogin(login: ShardReport['login'], { auth }: Settings, add: Add): void {
  if (login === null) return;
  const { database } = auth.service;
  if (login === 'present') return add('ok', 'auth', `pgkv.role_login in database ${database}`);
  if (login === 'none') return add('wrong', 'auth', `config/auth.sql has not been run in its database ${database}`);
  if (login !== 'old') return add('warning', 'auth', `database ${database} cannot be asked: ${login}`);
  add(
    'warning',
    'auth',
    `has pgkv.role_verifier of an older pgkv, which does not tell who may log in: run config/auth.sql in its database ${database} again`,
  );
}

function examineHeartbeat(mayBeat: ShardReport['mayBeat'], { auth }: Settings, add: Add): void {
  if (mayBeat === null || mayBeat === true) return;
  const why = mayBeat === false ? `${auth.service.user} may not run pgkv.beat(): run pgkv init again` : mayBeat;
  add('warning', 'heartbeat', `is not written: ${why}`);
}

/** Transactions over several shards need prepared transactions, and who finishes those that were left behind (D14). */
function examineRecovery({ recovery, facts }: ShardReport, add: Add): void {
  if (recovery === null || facts.preparedTransactionsMax === 0) return;
  if (typeof recovery === 'string') return add('warning', 'recovery', recovery);
  const { exists, maySettle, unrecoverable, orphans } = recovery;
  if (orphans.length > 0) {
    const held = `prepared transactions lock their rows and hold back vacuum of all tables: ${namesOf(orphans.map((name) => ({ name })))}`;
    add('warning', 'prepared', held);
  }
  if (!exists) return add('info', 'recovery', `no role ${RECOVER_ROLE}: run config/auth.sql, then pgkv init, again`);
  if (!maySettle) return add('warning', 'recovery', `${RECOVER_ROLE} may not run pgkv.settle(): run pgkv init again`);
  if (unrecoverable.length === 0)
    return add('ok', 'recovery', `${RECOVER_ROLE} can finish the transactions of all roles`);
  const named = namesOf(unrecoverable.map((name) => ({ name })));
  add('warning', 'recovery', `not granted to ${RECOVER_ROLE} (run pgkv init again as a superuser): ${named}`);
}

function examineFunctions(table: string, missing: ShardReport['functions'][number] | undefined, add: Add): void {
  if (missing === null || missing === undefined || missing.length === 0) return;
  if (typeof missing === 'string') return add('warning', 'functions', `${table}: ${missing}`);
  const shown = missing.slice(0, NAMES_SHOWN).join('; ');
  const more = missing.length > NAMES_SHOWN ? ` and ${missing.length - NAMES_SHOWN} more` : '';
  add('wrong', 'functions', `${table} lacks ${shown}${more}: run pgkv init again`);
}

/** Rows that nobody finds, or that are there twice. */
function examineRows(table: string, rows: ShardReport['rows'][number] | undefined, add: Add): void {
  if (rows === null || rows === undefined) return;
  if (typeof rows === 'string') return add('warning', 'rows', `${table}: ${rows}`);
  if ('deniedTo' in rows) {
    const remedy = 'ask as a role that may (--user)';
    return add('info', 'rows', `${table}: not looked at: ${rows.deniedTo} may not read it, ${remedy}`);
  }
  const { examined, isWhole, wrongSlot, notOwned } = rows;
  const among = isWhole ? `of ${examined}` : `of ${examined} looked at (a sample)`;
  if (wrongSlot > 0) add('wrong', 'rows', `${table}: ${wrongSlot} ${among} have a hash slot that is not their key's`);
  if (notOwned > 0) add('wrong', 'rows', `${table}: ${notOwned} ${among} have hash slots of other shards`);
  if (wrongSlot + notOwned === 0) add('ok', 'rows', `${table}: ${examined}${isWhole ? '' : ' looked at (a sample)'}`);
}

/** Each table against what a key-value table is, and against the first shard that has it. */
function examineTables(
  { tables }: CatalogState,
  reached: readonly { readonly name: string; readonly report: ShardReport }[],
  findings: Finding[],
): void {
  for (const [index, { schema, name, valueType }] of tables.entries()) {
    const table = `${schema}.${name}`;
    let first: { readonly shard: string; readonly definition: TableDefinition } | null = null;
    for (const { name: shard, report } of reached) {
      const add = adder(findings, shard);
      const definition = report.tables[index] ?? null;
      if (typeof definition === 'string') add('wrong', 'table', `${table}: ${definition}`);
      else if (definition === null) add('wrong', 'table', `${table} is missing`);
      else {
        const fault = kvFault(definition, valueType);
        const differences = first === null ? [] : definitionDifferences(first.definition, definition);
        if (fault !== null) add('wrong', 'table', `${table} is no key-value table: ${fault}`);
        else if (differences.length > 0) {
          add('wrong', 'table', `${table} differs from shard ${first?.shard}: ${differences.join('; ')}`);
        } else add('ok', 'table', `${table} (${valueType})`);
        examineFunctions(table, report.functions[index], add);
        examineRows(table, report.rows[index], add);
        first ??= { shard, definition };
      }
    }
  }
}

const NAMES_SHOWN = 5;

function namesOf(roles: readonly { readonly name: string }[]): string {
  const shown = roles.slice(0, NAMES_SHOWN).map(({ name }) => name);
  return `${shown.join(', ')}${roles.length > NAMES_SHOWN ? ` and ${roles.length - NAMES_SHOWN} more` : ''}`;
}

/** Each shard's roles against those of the home shard, which clients are checked against. */
function examineRoles(
  { auth, shards }: Settings,
  reached: readonly { readonly name: string; readonly report: ShardReport }[],
  findings: Finding[],
): void {
  const home = reached.find(({ name }) => name === shards[0]?.name)?.report.roles;
  for (const { name, report } of reached) {
    const add = adder(findings, name);
    const { roles } = report;
    if (typeof roles === 'string') {
      add('wrong', 'roles', roles);
      continue;
    }
    const md5 = roles.roles.filter(({ isMd5 }) => isMd5 && auth.method === 'scram-sha-256');
    if (md5.length > 0) {
      const remedy = `set them again under password_encryption = 'scram-sha-256'`;
      add('warning', 'roles', `pgkv refuses passwords stored as MD5 (${remedy}): ${namesOf(md5)}`);
    }
    if (name === shards[0]?.name || home === undefined || typeof home === 'string') continue;
    const here = new Map(roles.roles.map((role) => [role.name, role]));
    const missing = home.roles.filter((role) => !here.has(role.name));
    const comparesVerifiers = auth.method === 'scram-sha-256' && home.withVerifiers && roles.withVerifiers;
    const differing = home.roles.filter(({ name: role, verifierHash }) => {
      // The service role logs in with its password, of which every server has a verifier of its own.
      if (!comparesVerifiers || !here.has(role) || role === auth.service.user) return false;
      return verifierHash !== here.get(role)!.verifierHash;
    });
    const tell = (which: typeof missing, what: string): void => {
      if (which.length === 0) return;
      // Few clients log in as one; whoever does is told so by pgkv.
      const severity = which.every(({ isSuperuser }) => isSuperuser) ? 'info' : 'warning';
      add(severity, 'roles', `${what}: ${namesOf(which)}`);
    };
    tell(missing, `of shard ${shards[0]?.name}, these may not log in here`);
    tell(
      differing,
      `stored passwords differ from shard ${shards[0]?.name}'s (copy rolpassword: set anew it has another salt)`,
    );
    if (missing.length + differing.length > 0) continue;
    const unseen =
      auth.method !== 'scram-sha-256' || comparesVerifiers ? '' : ' (passwords are compared for superusers only)';
    add('ok', 'roles', `those of shard ${shards[0]?.name} may log in${unseen}`);
  }
}

function examineClocks(
  reached: readonly { readonly name: string; readonly report: ShardReport }[],
  findings: Finding[],
) {
  for (const { name, report } of reached) {
    const { clockOffsetMs, clockDoubtMs } = report.facts;
    const ahead = clockOffsetMs > 0 ? 'ahead of' : 'behind';
    const text = `${Math.abs(clockOffsetMs).toFixed(0)} ms ${ahead} this machine, give or take ${clockDoubtMs.toFixed(0)}`;
    const isFar = Math.abs(clockOffsetMs) - clockDoubtMs > CLOCK_SKEW_MAX_MS;
    adder(findings, name)(isFar ? 'warning' : 'ok', 'clock', text);
  }
  const sorted = [...reached].sort((a, b) => a.report.facts.clockOffsetMs - b.report.facts.clockOffsetMs);
  const [slow, fast] = [sorted[0], sorted.at(-1)];
  if (slow === undefined || fast === undefined) return;
  const apart = fast.report.facts.clockOffsetMs - slow.report.facts.clockOffsetMs;
  const doubt = fast.report.facts.clockDoubtMs + slow.report.facts.clockDoubtMs;
  if (apart - doubt <= CLOCK_SKEW_MAX_MS) return;
  const message = `the clock of ${fast.name} is ${apart.toFixed(0)} ms ahead of that of ${slow.name}: keys expire at different moments`;
  adder(findings, null)('warning', 'clock', message);
}

function examineTwins(
  reached: readonly { readonly name: string; readonly report: ShardReport }[],
  findings: Finding[],
) {
  const seen = new Map<string, string>();
  for (const { name, report } of reached) {
    const twin = seen.get(report.facts.identity);
    if (twin !== undefined) adder(findings, null)('wrong', 'reach', `shards ${twin} and ${name} are one server`);
    seen.set(report.facts.identity, name);
  }
}
