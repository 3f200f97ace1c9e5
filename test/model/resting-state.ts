// What must hold when everybody has gone: connections are what pgkv believes them to be, and the rows are those of which
// the clients were told.
import type { ServerConnection } from '../../src/backend/connection/server-connection.js';
import type { Expectations } from './expectations.js';
import type { ModelSession } from './model-session.js';

type Violated = (what: string) => void;

export function checkIdleConnection(connection: ServerConnection, model: ModelSession, violated: Violated): void {
  const { pid } = connection;
  const left = model.pins();
  if (model.state.transaction !== null) left.push('an open transaction');
  if (left.length > 0) violated(`connection ${pid} is idle with ${left.join(', ')}`);
  const settings = new Map(model.state.revertible.settings);
  for (const [name, value] of connection.settings.values) {
    // A custom setting that is '' need not be set: it only exists.
    if (model.setting(name) !== value) {
      violated(`connection ${pid} has ${name} '${model.setting(name)}', pgkv believes '${value}'`);
    }
    settings.delete(name);
  }
  if (settings.size > 0) violated(`connection ${pid} keeps ${JSON.stringify([...settings])}`);
  const { statements } = model.state;
  const known = new Set<string>();
  for (const [source, { name }] of connection.prepared) {
    known.add(name);
    const text = statements.get(name)?.statement?.text;
    if (text === undefined || !source.text.includes(text)) {
      violated(`connection ${pid} has ${text} as ${name}, pgkv believes ${source.text}`);
    }
  }
  for (const { name } of connection.orphans.keys()) known.add(name);
  // What a name that was taken is refused by stays, one of it.
  known.add('pgkv_taken');
  for (const name of statements.keys()) {
    if (name.startsWith('pgkv_') && !known.has(name))
      violated(`connection ${pid} has ${name}, which pgkv has forgotten`);
  }
}

function count(keys: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return counts;
}

/** Acknowledged commits are there, once; what was reported as not done is not; transactions are whole. */
export function checkDatabase(
  committed: readonly string[],
  clients: readonly Expectations[],
  violated: Violated,
): void {
  const actual = count(committed);
  for (const { owner, uncertainKeys, atomicKeys, database } of clients) {
    const expected = count(database.committed);
    for (const [key, times] of expected) {
      if (uncertainKeys.has(key) || (actual.get(key) ?? 0) >= times) continue;
      violated(`${key} was acknowledged to ${owner}, and is lost`);
    }
    for (const [key, found] of actual) {
      if (!key.startsWith(`${owner}.`) || uncertainKeys.has(key)) continue;
      const times = expected.get(key) ?? 0;
      if (found > times) violated(`${key} of ${owner} is there ${found} times, acknowledged ${times} times`);
    }
    for (const keys of atomicKeys) {
      const there = keys.filter((key) => actual.has(key));
      if (there.length === 0 || there.length === keys.length) continue;
      violated(`of a transaction of ${owner} with ${keys.join(', ')} only ${there.join(', ')} are there`);
    }
  }
}
