// `pgkv doctor`: asks every shard what it is and says what is wrong with the cluster. Changes nothing.
import { messageOf } from '../base/errors.js';
import type { CatalogState } from '../catalog/catalog-state.js';
import { openCatalog } from '../catalog/open-catalog.js';
import { viewFrom } from '../catalog/view-from.js';
import type { Settings } from '../config/settings.js';
import { type ClusterAccess, clusterAccess } from './cluster/cluster-access.js';
import { diagnose, type Finding, type Severity, type ShardExamination, type ShardReport } from './cluster/diagnosis.js';
import { extensionSource, installedExtension } from './cluster/extension.js';
import { missingObjects } from './cluster/extension-objects.js';
import { mayBeat, missingFunctions } from './cluster/function-check.js';
import { readLoginFunction } from './cluster/login-function.js';
import { readLoginRoles } from './cluster/login-roles.js';
import { readRecovery } from './cluster/recovery-check.js';
import { countRows, type RowCounts } from './cluster/row-check.js';
import { readServerFacts } from './cluster/server-facts.js';
import {
  accessFrom,
  endAll,
  type ShardAccess,
  type ShardPlace,
  shardPlaces,
  tryShards,
} from './cluster/shard-connection.js';
import { readShardState } from './cluster/shard-state.js';
import { kvFault, readTableDefinition } from './cluster/table-definition.js';
import type { DriverClient } from './connect.js';
import { DEFAULT_DATABASE, type DoctorOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import type { Terminal } from './terminal.js';

/** @returns 1 when something is wrong */
export async function runDoctor(options: DoctorOptions, terminal: Terminal): Promise<number> {
  const cluster = clusterAccess(options);
  const { state, findings } = await examineCatalog(cluster);
  const database = options.database ?? state?.database ?? DEFAULT_DATABASE;
  const access = accessFrom(cluster.settings, { user: cluster.user, database }, terminal.env);
  const askPassword = passwordPrompt(terminal.input, terminal.errors);
  const outcomes = await tryShards(shardPlaces(cluster.settings), access, askPassword);
  try {
    const examinations = await Promise.all(
      outcomes.map(async (outcome): Promise<ShardExamination> => {
        const { name, primary } = outcome.shard;
        const place = { name, primary };
        if (outcome.kind === 'failed') return { place, report: outcome.failure.message };
        const report = await examineShard(outcome.shard.client, { name, state, access, settings: cluster.settings });
        if (typeof report === 'string') return { place, report };
        const login = await loginFunction(cluster.settings, place, access);
        return { place, report: { ...report, login, service: await serviceLogin(cluster.settings, place, access) } };
      }),
    );
    findings.push(...diagnose(cluster.settings, state, extensionSource().version, examinations));
  } finally {
    await endAll(outcomes.flatMap((outcome) => (outcome.kind === 'connected' ? [outcome.shard] : [])));
  }
  const isWell = findings.every(({ severity }) => severity !== 'wrong');
  if (options.json) terminal.output.write(`${JSON.stringify({ ok: isWell, findings })}\n`);
  else terminal.output.write(`${reportLines(findings).join('\n')}\n`);
  return isWell ? 0 : 1;
}

/** A cluster whose catalogue is missing or damaged is examined all the same. */
async function examineCatalog({
  settings,
}: ClusterAccess): Promise<{ state: CatalogState | null; findings: Finding[] }> {
  const finding = (severity: Severity, message: string): Finding => {
    return { severity, shard: null, check: 'catalogue', message };
  };
  const catalog = openCatalog(settings);
  if (catalog === null) {
    return { state: null, findings: [finding('info', 'none is configured: pgkv only pools the first shard')] };
  }
  try {
    const state = await catalog.read();
    if (state === null) return { state, findings: [finding('wrong', `${catalog.place} is missing: run pgkv init`)] };
    viewFrom(settings.shards, state);
    const { epoch, shards, tables } = state;
    const text = `${catalog.place}: epoch ${epoch}, 16384 hash slots on ${shards.length} shards, ${tables.length} tables`;
    return { state, findings: [finding('ok', text)] };
  } catch (error) {
    return { state: null, findings: [finding('wrong', messageOf(error))] };
  }
}

/** In another database than the tables, as a rule. */
async function loginFunction(
  { auth }: Settings,
  place: ShardPlace,
  access: ShardAccess,
): Promise<ShardReport['login']> {
  const { database, query } = auth.service;
  if (auth.method !== 'scram-sha-256' || !/\bpgkv\.role_(login|verifier)\b/.test(query)) return null;
  const [outcome] = await tryShards([place], { ...access, database }, async () => access.password ?? '');
  if (outcome?.kind !== 'connected') return outcome?.failure.message ?? 'it cannot be reached';
  try {
    return await orReason(readLoginFunction(outcome.shard.client));
  } finally {
    await endAll([outcome.shard]);
  }
}

/** Whoever else asks: pgkv's own role is to get in with its own password. @returns why it does not; null: it does */
async function serviceLogin(settings: Settings, place: ShardPlace, { user }: ShardAccess): Promise<string | null> {
  const { service } = settings.auth;
  if (user === service.user) return null;
  const own = accessFrom(settings, { user: undefined, database: service.database }, {});
  const [outcome] = await tryShards([place], own, async () => undefined);
  if (outcome?.kind !== 'connected') return outcome?.failure.message ?? 'it cannot be reached';
  await endAll([outcome.shard]);
  return null;
}

interface Question {
  readonly name: string;
  readonly state: CatalogState | null;
  readonly access: ShardAccess;
  readonly settings: Settings;
}

async function examineShard(
  client: DriverClient,
  { name, state, access, settings }: Question,
): Promise<Omit<ShardReport, 'login' | 'service'> | string> {
  try {
    const facts = await readServerFacts(client);
    const extension = await orReason(installedExtension(client));
    const isInstalled = typeof extension !== 'string' && extension.kind !== 'none';
    const isCurrent = isInstalled && extension.version === extensionSource().version;
    const missing = isCurrent ? await orReason(missingObjects(client, extensionSource())) : null;
    const shardState = isInstalled ? await orReason(readShardState(client)) : null;
    const tables: ShardReport['tables'][number][] = [];
    const rows: ShardReport['rows'][number][] = [];
    const functions: ShardReport['functions'][number][] = [];
    const { hashSlots } = state?.shards.find((shard) => shard.name === name) ?? { hashSlots: null };
    for (const table of state?.tables ?? []) {
      const definition = await orReason(readTableDefinition(client, table));
      tables.push(definition);
      const isUsable =
        definition !== null && typeof definition !== 'string' && kvFault(definition, table.valueType) === null;
      functions.push(isUsable && isCurrent ? await orReason(missingFunctions(client, table)) : null);
      rows.push(isUsable && hashSlots !== null ? await rowsOf(countRows(client, table, hashSlots), access) : null);
    }
    const roles = await orReason(readLoginRoles(client));
    const beats = isCurrent ? await orReason(mayBeat(client, settings.auth.service.user)) : null;
    const recovery = isCurrent ? await orReason(readRecovery(client, settings.auth.service.user)) : null;
    return { facts, extension, missing, state: shardState, tables, roles, rows, functions, mayBeat: beats, recovery };
  } catch (error) {
    return messageOf(error);
  }
}

const INSUFFICIENT_PRIVILEGE = '42501';

/** The service role has no business with rows: that it may not read them is as it should be. */
async function rowsOf(answer: Promise<RowCounts>, { user }: ShardAccess): Promise<ShardReport['rows'][number]> {
  try {
    return await answer;
  } catch (error) {
    return (error as { code?: unknown }).code === INSUFFICIENT_PRIVILEGE ? { deniedTo: user } : messageOf(error);
  }
}

/** What one question gives, or why it failed: the other questions are asked all the same. */
async function orReason<T>(answer: Promise<T>): Promise<T | string> {
  try {
    return await answer;
  } catch (error) {
    return messageOf(error);
  }
}

const MARKS: Readonly<Record<Severity, string>> = { ok: 'ok', info: 'info', warning: 'WARNING', wrong: 'WRONG' };

function reportLines(findings: readonly Finding[]): string[] {
  const shards = [...new Set(findings.map(({ shard }) => shard))];
  const lines = shards.flatMap((shard) => [
    shard === null ? 'cluster' : `shard ${shard}`,
    ...findings
      .filter((finding) => finding.shard === shard)
      .map(({ severity, check, message }) => `  ${MARKS[severity].padEnd(8)} ${check.padEnd(12)} ${message}`),
  ]);
  const count = (severity: Severity) => findings.filter((finding) => finding.severity === severity).length;
  return [...lines, `${count('wrong')} wrong, ${count('warning')} warnings`];
}
