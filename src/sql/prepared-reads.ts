// Statements that SQL PREPARE has made in the client's block and that only read, as pg_dump makes them: what their EXECUTE does is
// known, and need not be said on other shards. Of all other EXECUTE nothing is known: they may set something.
import { readTemplate } from './read-template.js';

const NAMES_MAX = 100;
const PREPARE = /^\s*prepare\s+([a-z_]\w*)\s*(?:\([^)']*\)\s*)?as\s+(\S[\s\S]*)$/i;
/** By plain values. */
const EXECUTE = /^\s*execute\s+([a-z_]\w*)\s*(?:\(\s*(?:'[^'\\]*'|\d+)(?:\s*,\s*(?:'[^'\\]*'|\d+))*\s*\)\s*)?;?\s*$/i;
/** Whose functions count as known. */
const OLDEST_MAJOR = 15;

export class PreparedReads {
  readonly #names = new Set<string>();

  /** @returns it makes one, or runs one */
  takes(text: string): boolean {
    const [, name, body] = PREPARE.exec(text) ?? [];
    if (name === undefined) return this.#names.has(EXECUTE.exec(text)?.[1]?.toLowerCase() ?? '');
    const { template } = readTemplate(body!, true, null, OLDEST_MAJOR);
    const isRead = template.readOnly && template.kinds.length === 1;
    if (isRead && this.#names.size < NAMES_MAX) this.#names.add(name.toLowerCase());
    return isRead;
  }

  /** Something has failed: perhaps a PREPARE, whose name is that of a statement from before then. */
  forget(): void {
    this.#names.clear();
  }
}
