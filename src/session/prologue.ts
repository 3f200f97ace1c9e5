// What was said in a transaction that can be said again on another server, in order, so that a block can go there (D13): its
// BEGIN, what it sets, and, in place of all that it only read, that it has read: behind that it is too late for options of the
// transaction. Invariant: it has a bound; who can say no more of it stays where the transaction is.
import type { Said } from '../backend/connection/server-connection.js';
import { NEUTRAL_TEMPLATE, type Template } from '../sql/plan/template.js';
import { encodeQuery } from '../wire/client-messages.js';

/** Something said in a transaction that can be said again on another server. */
export interface PrologueStatement {
  readonly template: Template;
  readonly text: string;
  readonly said: Said;
}

export type Prologue = PrologueStatement[];

/** The statement at hand, or the one whose portal the Execute at hand runs, as messages that say it again. */
export type Say = (template: Template, text: string) => Said;

/** Statements kept for being said again. */
const PROLOGUE_MAX = 100;
/** And their messages: a block with more stays where it is. */
const PROLOGUE_BYTES_MAX = 65_536;

const ofPgkv = (sql: string): PrologueStatement => ({
  template: NEUTRAL_TEMPLATE,
  text: '',
  said: { isQuery: true, bytes: encodeQuery(sql) },
});
/** The transaction has taken a snapshot. */
const HAS_READ = ofPgkv('SELECT');
/** Opens the block in which is said what stood in front of the client's BEGIN, which is a warning behind it, and whose options hold. */
const BEGUN_BEFORE = ofPgkv('BEGIN');

/** A BEGIN without the options that it had. */
export const withoutOptions = ({ template }: PrologueStatement): PrologueStatement => ({
  template,
  text: 'BEGIN',
  said: BEGUN_BEFORE.said,
});

/** Of a batch that has done nothing yet, and of one that has only read: shared by all, and never changed. */
export const NOTHING_SAID: Prologue = [];
const ONLY_READ: Prologue = [HAS_READ];

export const hasRoom = (prologue: readonly PrologueStatement[], { bytes }: Said): boolean =>
  prologue.length < PROLOGUE_MAX &&
  prologue.reduce((sum, { said }) => sum + said.bytes.length, bytes.length) <= PROLOGUE_BYTES_MAX;

/** Something was read in the transaction. @returns false where it was known */
export function noteRead(prologue: Prologue): boolean {
  if (prologue.at(-1) === HAS_READ) return false;
  prologue.push(HAS_READ);
  return true;
}

/** Notes a statement whose Template is `movable`, or reads only. @returns false where there is no room */
export function noteSaid(prologue: Prologue, template: Template, text: string, say: Say): boolean {
  if (!template.readOnly && !template.releases) {
    const said = say(template, text);
    if (!hasRoom(prologue, said)) return false;
    prologue.push({ template, text, said });
  }
  if (template.takesSnapshot) noteRead(prologue);
  return true;
}

/** A batch whose statements have said `before` reads something. @returns what they have said then */
export function readBehind(before: Prologue): Prologue {
  if (before === NOTHING_SAID) return ONLY_READ;
  noteRead(before);
  return before;
}

/** The same of any statement that can be said again or is only a read. @returns null where there is no room */
export function saidBehind(before: Prologue, template: Template, text: string, say: Say): Prologue | null {
  if (template.readOnly || template.releases) return template.takesSnapshot ? readBehind(before) : before;
  const after = before === NOTHING_SAID || before === ONLY_READ ? [...before] : before;
  return noteSaid(after, template, text, say) ? after : null;
}

/** A server takes a snapshot to parse it. */
export const isReadToParse = ({ kind }: Template): boolean => kind === 'read' || kind === 'write';

/** @param before what was said in the same batch, in front of the BEGIN */
export function prologueOf(before: Prologue, template: Template, text: string, said: Said): Prologue {
  const prologue = before.length === 0 ? [] : [BEGUN_BEFORE, ...before];
  prologue.push({ template, text, said });
  if (template.takesSnapshot) noteRead(prologue);
  return prologue;
}

/** It stands for what was only read. */
export const isRead = (one: PrologueStatement): boolean => one === HAS_READ;

/** No more than reads were said. */
export const onlyReads = (prologue: Prologue): boolean => prologue.every((one) => one === HAS_READ);
