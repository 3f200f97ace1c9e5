// A text with holes for a client's literals: what is kept in a Template, since only the literals differ between the texts
// of one shape. kv-text.ts puts it together.

/** Text with the client's literals in their places: strings as they stand, numbers are indexes of literals. */
export type TextParts = readonly (string | number)[];

/** A quoted or plain identifier, in which a $ and a number is no parameter; or a parameter. Literals are no strings here. */
const PARAMETER = /"(?:[^"]|"")*"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|\$(\d+)/g;

/** The highest number of a parameter in a text; 0: it has none. */
export function highestParameter(parts: TextParts): number {
  let highest = 0;
  for (const part of parts) {
    if (typeof part === 'number') continue;
    for (const [, number] of part.matchAll(PARAMETER))
      if (number !== undefined) highest = Math.max(highest, Number(number));
  }
  return highest;
}
