// Answers that are equal though their lines are not: rows without an order, and refusals.

const ROW = 'DataRow ';
/** What comes before an error, depending on which message it answers. */
const PREPARATION = /^(ParseComplete|BindComplete|NoData|ParameterDescription|RowDescription)\b/;

/** Sorts rows that follow each other. */
export function rowsInAnyOrder(lines: readonly string[]): string[] {
  const sorted: string[] = [];
  let rows: string[] = [];
  for (const line of [...lines, '']) {
    if (line.startsWith(ROW)) rows.push(line);
    else {
      sorted.push(...rows.sort(), line);
      rows = [];
    }
  }
  return sorted.slice(0, -1);
}

export const withoutTimes = (line: string): string => line.replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+/g, 'a time');

/** Column descriptions without the table and column they come from. */
export const withoutOrigins = (line: string): string =>
  line.startsWith('RowDescription ') ? line.replace(/ from \w+\.\d+/g, '') : line;

/**
 * An error and nothing but the preparation before it, reduced to the fact.
 * @param reason what the refusal's message must say; null: any error will do
 */
export function asRefusal(lines: readonly string[], reason: string | null): string[] {
  return lines
    .filter((line) => !PREPARATION.test(line))
    .map((line) => (line.startsWith('ErrorResponse ') && isRefusal(line, reason) ? 'refused' : line));
}

function isRefusal(line: string, reason: string | null): boolean {
  if (reason === null) return true;
  return (
    line.includes(' C="0A000" ') &&
    fieldOf(line, 'H') !== '' &&
    fieldOf(line, 'M').toLowerCase().includes(reason.toLowerCase())
  );
}

function fieldOf(line: string, code: string): string {
  const quoted = new RegExp(` ${code}=("(?:[^"\\\\]|\\\\.)*")`).exec(line)?.[1];
  return quoted === undefined ? '' : JSON.parse(quoted);
}
