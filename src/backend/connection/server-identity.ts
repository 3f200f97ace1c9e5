// Who a server says it is, held against who it should be (D28): a mistyped port or a restored machine would else give
// another shard's rows. What is asked depends on what is known: where the key-value tables are, the shard's own
// `pgkv.shard_state`; under a catalogue the system identifier, which a primary and its standbys share; and the role.
// Invariant: a connection is used only behind its proof.
import { readErrorFields } from '../../wire/error-fields.js';
import type { ControlSender } from './settings-change.js';

/** What a server has to be. Null stands for what is not known, which is then not asked for. */
export interface ExpectedServer {
  readonly shard: string;
  readonly clusterId: string | null;
  readonly systemIdentifier: string | null;
  /** The database in which the shard says who it is; null: set up without a catalogue. */
  readonly database: string | null;
  readonly role: 'primary' | 'replica' | null;
}

/** What it says. Null: not asked for, or not told. */
export interface FoundServer {
  readonly shard: string | null;
  readonly clusterId: string | null;
  readonly systemIdentifier: string | null;
  readonly role: 'primary' | 'replica' | null;
}

const ROLE = 'SELECT pg_catalog.pg_is_in_recovery()';
const SYSTEM_IDENTIFIER = 'SELECT system_identifier FROM pg_catalog.pg_control_system()';
/** As JSON: the extension's 0.1.0 had no cluster_id. */
const STATE = 'SELECT pg_catalog.to_jsonb(s) FROM pgkv.shard_state s';
/** There is no such table, or not its schema: the database has none of pgkv. */
const NOT_THERE: ReadonlySet<string> = new Set(['42P01', '3F000']);

/** What is asked of a connection to `database`; empty: nothing can be proven. */
export function identityQuestions(expected: ExpectedServer, database: string): readonly string[] {
  const questions: string[] = [];
  if (expected.role !== null) questions.push(ROLE);
  if (expected.database !== null) questions.push(SYSTEM_IDENTIFIER);
  if (expected.database === database) questions.push(STATE);
  return questions;
}

/**
 * Asks them all in one write; only of a connection at rest.
 * @param done hears what was found, or why a question was refused
 */
export function askIdentity(
  connection: ControlSender,
  questions: readonly string[],
  done: (found: FoundServer | string) => void,
): void {
  const answers = new Map<string, string | null>();
  let refusal: string | null = null;
  for (const [index, question] of questions.entries()) {
    connection.sendControl(question, {
      row: ([value]) => answers.set(question, value ?? null),
      failed: (message) => {
        const fields = readErrorFields(message, 0, message.length);
        if (question !== STATE || !NOT_THERE.has(fields['C'] ?? '')) refusal ??= fields['M'] ?? 'unknown error';
      },
      ready: () => {
        if (index === questions.length - 1) done(refusal ?? found(answers));
      },
    });
  }
  connection.output.flush();
}

function found(answers: ReadonlyMap<string, string | null>): FoundServer {
  const recovery = answers.get(ROLE) ?? null;
  const state = JSON.parse(answers.get(STATE) ?? '{}') as { shard_name?: string; cluster_id?: string | null };
  return {
    shard: state.shard_name ?? null,
    clusterId: state.cluster_id ?? null,
    systemIdentifier: answers.get(SYSTEM_IDENTIFIER) ?? null,
    role: recovery === null ? null : recovery === 't' ? 'replica' : 'primary',
  };
}

/**
 * In one sentence, what was expected and found; null where they agree.
 * @param saysState it was asked of the database in which the shard says who it is
 */
export function mismatch(expected: ExpectedServer, saysState: boolean, found: FoundServer): string | null {
  const { shard, clusterId, systemIdentifier, role } = expected;
  const wanted = `expected shard "${shard}"${clusterId === null ? '' : ` of cluster ${clusterId}`}`;
  if (saysState) {
    // Set up by an older pgkv, or by hand, it need not say anything; under a cluster's name it must.
    if (found.shard === null && clusterId !== null) return `${wanted}, found a server that is no shard`;
    if (found.clusterId !== null && clusterId !== null && found.clusterId !== clusterId)
      return `${wanted}, found shard "${found.shard}" of cluster ${found.clusterId}`;
    if (found.shard !== null && found.shard !== shard) return `${wanted}, found shard "${found.shard}"`;
  }
  if (systemIdentifier !== null && found.systemIdentifier !== systemIdentifier)
    return `${wanted} with system identifier ${systemIdentifier}, found ${found.systemIdentifier}`;
  if (role !== null && found.role !== role) {
    const names = { primary: 'a primary', replica: 'a standby' };
    return `${wanted} as ${names[role]}, found ${found.role === null ? 'neither' : names[found.role]}`;
  }
  return null;
}
