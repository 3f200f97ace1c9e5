// What a statement on savepoints says, where that can be told without a parser: for who keeps them, and may keep one too many.

export interface SavepointText {
  readonly verb: 'savepoint' | 'release' | 'rollback';
  /** Quoted, as Postgres sees it. */
  readonly name: string;
}

const FORM =
  /^\s*(savepoint|release|rollback)(?:\s+(?:work|transaction))?(?:\s+to)?(?:\s+savepoint)?\s+("(?:[^"]|"")+"|[a-z_]\w*)\s*;?\s*$/i;

/** @param text one statement on a savepoint. @returns null: it has another form, as with comments */
export function readSavepoint(text: string): SavepointText | null {
  const found = FORM.exec(text);
  if (found === null) return null;
  const name = found[2]!;
  const verb = found[1]!.toLowerCase() as SavepointText['verb'];
  return { verb, name: name.startsWith('"') ? name : `"${name.toLowerCase()}"` };
}

/** Whether a text that sets something may set options of the transaction. */
export const mayNameTransaction = (text: string): boolean => /transaction/i.test(text);
