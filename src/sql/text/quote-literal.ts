// SQL literals for statements of pgkv's own.

/** What is escaped: the server reads bytes beyond ASCII as client_encoding says, and that is the session's. */
const ESCAPED = /[\\\u0080-\u{10ffff}]/gu;

/** A text as a SQL literal in ASCII, whatever standard_conforming_strings and client_encoding say. */
export function quoteLiteral(text: string): string {
  const doubled = text.replaceAll("'", "''");
  const escaped = doubled.replace(ESCAPED, (character) =>
    character === '\\' ? '\\\\' : `\\U${character.codePointAt(0)!.toString(16).padStart(8, '0')}`,
  );
  return escaped === doubled ? `'${doubled}'` : ` E'${escaped}'`;
}
