// Plays one script to pgkv and to plain Postgres, packet by packet, and says where they part: the first difference, for what
// follows it proves nothing.
import { describeViolation } from '../../oracle/watch.js';
import { asksForOrder, linesOf, partsAnswered, type Unit, unitsOf } from './answers.js';
import type { Ring } from './arena.js';
import { type Answers, FuzzClient } from './fuzz-client.js';
import { isListed } from './listed-differences.js';
import { Bindings, refusalIn, standIn } from './refusals.js';
import type { FuzzMessage, Packet, Script } from './script.js';

export type FaultKind = 'answer' | 'refusal' | 'protocol' | 'hang' | 'closed' | 'settings' | 'content' | 'left behind';

export interface Fault {
  readonly kind: FaultKind;
  /** Index of the packet; its number of packets where it shows at the end. */
  readonly packet: number;
  readonly text: string;
}

/** How often each reason for a refusal was met. */
export type RefusalCounts = Map<string, number>;

interface Session {
  readonly pgkv: FuzzClient;
  readonly postgres: FuzzClient;
  readonly bindings: Bindings;
  /** A portal was refused that Postgres still has: what is asked of it from then on proves nothing. */
  isOver: boolean;
}

/** `portal_left` in base/refusals.ts. */
const PORTAL_LEFT = /is on a shard that the batch has left/;

export async function playScript(
  script: Script,
  ring: Ring,
  refusals: RefusalCounts = new Map(),
): Promise<Fault | null> {
  await Promise.all([ring.postgres.side.reset(), ring.pgkv.side.reset()]);
  const sessions = new Map<number, Session>();
  try {
    for (const [index, packet] of script.packets.entries()) {
      let session = sessions.get(packet.session);
      if (session === undefined) {
        session = await openSession(ring);
        sessions.set(packet.session, session);
      }
      if (session.isOver) continue;
      const found = await playPacket(packet, session, refusals);
      if (found !== null) return { ...found, packet: index };
    }
    for (const session of sessions.values()) await Promise.all([session.pgkv.end(), session.postgres.end()]);
    const found = await compareEnds(ring);
    return found === null ? null : { ...found, packet: script.packets.length };
  } finally {
    for (const { pgkv, postgres } of sessions.values()) {
      pgkv.destroy();
      postgres.destroy();
    }
  }
}

async function openSession(ring: Ring): Promise<Session> {
  return {
    pgkv: await FuzzClient.connect(ring.pgkv.target),
    postgres: await FuzzClient.connect(ring.postgres.target),
    bindings: new Bindings(ring.shards),
    isOver: false,
  };
}

type Found = Omit<Fault, 'packet'>;

async function playPacket({ messages }: Packet, session: Session, refusals: RefusalCounts): Promise<Found | null> {
  const { pgkv, postgres } = session;
  const { skipping } = pgkv;
  const answered = await pgkv.send(messages);
  const { violation } = pgkv.oracle;
  if (violation !== null) return { kind: 'protocol', text: describeViolation(violation) };
  const units = unitsOf(answered.messages);
  const parts = partsAnswered(messages, units, skipping);
  const replaced: FuzzMessage[] = [];
  const isRefused: boolean[] = [];
  for (const [index, part] of parts.entries()) {
    const unit = units[index];
    const refusal = unit === undefined ? null : refusalIn(unit, part);
    isRefused.push(refusal !== null);
    if (refusal === null) {
      replaced.push(...part);
    } else {
      const reason = session.bindings.allows(part, refusal);
      const instead = standIn(part, refusal.at);
      const said = `${refusal.fields['M']} (${refusal.fields['D'] ?? ''})`;
      if (reason === null || instead === null) return { kind: 'refusal', text: `refused without need: ${said}` };
      session.isOver ||= PORTAL_LEFT.test(said);
      refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
      replaced.push(...instead);
    }
    session.bindings.answered(part, statusOf(unit));
  }
  const expected = await postgres.send(replaced);
  if (postgres.oracle.violation !== null) {
    throw new Error(`plain Postgres breaks the rules: ${describeViolation(postgres.oracle.violation)}`);
  }
  return (
    compareOutcomes(expected, answered) ??
    compareUnits(parts, unitsOf(expected.messages), units, isRefused) ??
    // A server tells them with ReadyForQuery, pgkv with that of any server that it has asked.
    (statusOf(units.at(-1)) === null ? null : compareSettings(postgres, pgkv))
  );
}

function statusOf(unit: Unit | undefined): string | null {
  const last = unit?.at(-1);
  return last?.type === 'ReadyForQuery' ? last.status : null;
}

function compareOutcomes(expected: Answers, answered: Answers): Found | null {
  if (expected.outcome === answered.outcome) return null;
  const kind = answered.outcome === 'hangs' ? 'hang' : answered.outcome === 'closed' ? 'closed' : 'answer';
  const last = linesOf(answered.messages.slice(-4), true).join('\n+ ');
  return { kind, text: `Postgres: ${expected.outcome}, pgkv: ${answered.outcome}, behind\n+ ${last}` };
}

function compareUnits(
  parts: readonly FuzzMessage[][],
  expected: readonly Unit[],
  answered: readonly Unit[],
  isRefused: readonly boolean[],
): Found | null {
  for (let index = 0; index < Math.max(expected.length, answered.length); index++) {
    const part = parts[index] ?? [];
    const isOrdered = asksForOrder(part);
    // A text that ends a failed block is refused as it stands; Postgres says 25P02 of what stands in for its end.
    const ends = endsBlock(part);
    const refusedLine = (line: string) => {
      const isError = isRefused[index] === true && line.startsWith('ERROR ');
      return isError && (ends || !line.startsWith('ERROR 25P02')) ? 'ERROR refused' : line;
    };
    const lines = (units: readonly Unit[]) => linesOf(units[index] ?? [], isOrdered).map(refusedLine);
    const [wanted, told] = [lines(expected), lines(answered)];
    if (wanted.join('\n') === told.join('\n') || isListed(part, wanted, told)) continue;
    const text = [...wanted.map((line) => `- ${line}`), ...told.map((line) => `+ ${line}`)].join('\n');
    return { kind: 'answer', text: `part ${index + 1} of the packet: - Postgres, + pgkv\n${text}` };
  }
  return null;
}

function endsBlock(part: readonly FuzzMessage[]): boolean {
  const [first] = part;
  if (
    part.some(
      (message) => typeof message !== 'string' && 'parse' in message && message.parse.touch.kind === 'unsupported',
    )
  )
    return true;
  if (first === undefined || typeof first === 'string' || !('query' in first)) return false;
  // An empty statement is none to a server.
  const statements = first.query.filter(({ sql }) => sql !== '');
  const kind = statements[0]?.touch.kind;
  return kind === 'unsupported' || (kind === 'control' && statements.length > 1);
}

/** What the client was told of settings in the end; in which message is not compared. */
function compareSettings(postgres: FuzzClient, pgkv: FuzzClient): Found | null {
  for (const [name, value] of postgres.told) {
    const told = pgkv.told.get(name);
    // R1: application_name travels as a setting.
    if (told !== value && name !== 'application_name') {
      return { kind: 'settings', text: `${name}: Postgres has told ${value}, pgkv ${told}` };
    }
  }
  return null;
}

async function compareEnds({ postgres, pgkv }: Ring): Promise<Found | null> {
  const left = await pgkv.side.left(await postgres.side.prepared());
  if (left.length > 0) return { kind: 'left behind', text: left.join('\n') };
  const [wanted, there] = await Promise.all([postgres.side.content(), pgkv.side.content()]);
  const missing = wanted.filter((row) => !there.includes(row)).map((row) => `- ${row}`);
  const surplus = there.filter((row) => !wanted.includes(row)).map((row) => `+ ${row}`);
  const doubled = wanted.length === there.length ? [] : [`${wanted.length} rows and ${there.length}`];
  const text = [...missing, ...surplus, ...doubled].join('\n');
  return text === '' ? null : { kind: 'content', text: `rows in the end: - Postgres, + pgkv\n${text}` };
}
