// Statements that concern key-value tables without naming one (unnamed-tables.ts), by their words, in texts that are not read.
// The rarer word of each is searched for, and the words before it are looked at: linear, whatever the text is made of.

/** The last word of a statement's name, and what may stand before it. `in`: … of everything in a schema. */
const LAST_WORDS: readonly (readonly [string, readonly string[]])[] = [
  ['transaction', ['prepare']],
  ['prepared', ['commit', 'rollback']],
  ['schema', ['in', 'alter', 'drop']],
  ['privileges', ['default']],
  ['extension', ['alter', 'drop']],
  ['owned', ['drop', 'reassign']],
];
const CALLS = ['create_table', 'drop_table'];
const KINDS_IN_SCHEMAS = ['tables', 'functions', 'procedures', 'routines'];
/** No word looked for is longer. */
const WORD_MAX = 12;

const isBlank = (code: number): boolean => code === 32 || (code >= 9 && code <= 13);
const isWordCharacter = (code: number): boolean =>
  (code >= 97 && code <= 122) || (code >= 48 && code <= 57) || code === 95 || code >= 128;

/** The word that ends before `at` and the blanks there, with its start; COMMENT for a comment, which may hide one. */
function wordBefore(text: string, at: number): { word: string; start: number } {
  let end = at;
  let isNewLine = false;
  while (end > 0 && isBlank(text.charCodeAt(end - 1))) {
    end--;
    if (text.charCodeAt(end) === LINE_FEED || text.charCodeAt(end) === CARRIAGE_RETURN) isNewLine = true;
  }
  if (isNewLine && hasLineComment(text, end)) return { word: COMMENT, start: end };
  if (text.endsWith('*/', end)) return { word: COMMENT, start: end };
  if (end === at) return { word: '', start: end };
  let start = end;
  while (start > 0 && end - start <= WORD_MAX && isWordCharacter(text.charCodeAt(start - 1))) start--;
  return { word: text.slice(start, end), start };
}

const COMMENT = '*/';
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/** Whether a comment may have begun in the line that ends at `end`. */
const hasLineComment = (text: string, end: number): boolean =>
  text.slice(text.lastIndexOf('\n', end - 1) + 1, end).includes('--');

function isBehind(text: string, at: number, firstWords: readonly string[]): boolean {
  const { word, start } = wordBefore(text, at);
  if (word === COMMENT) return true;
  if (!firstWords.includes(word)) return false;
  if (word !== 'in') return true;
  const kind = wordBefore(text, start);
  if (kind.word === COMMENT) return true;
  if (!KINDS_IN_SCHEMAS.includes(kind.word)) return false;
  const { word: all } = wordBefore(text, kind.start);
  return all === 'all' || all === COMMENT;
}

function standsAlone(text: string, at: number, word: string): boolean {
  const end = at + word.length;
  if (end < text.length && isWordCharacter(text.charCodeAt(end))) return false;
  return at === 0 || !isWordCharacter(text.charCodeAt(at - 1));
}

/** @param lowerText in lower case; better without comments, and without literals, whose words count as well */
export function concernsByWords(lowerText: string): boolean {
  const finds = (word: string, holds: (at: number) => boolean): boolean => {
    for (let at = lowerText.indexOf(word); at >= 0; at = lowerText.indexOf(word, at + 1)) {
      if (standsAlone(lowerText, at, word) && holds(at)) return true;
    }
    return false;
  };
  return (
    LAST_WORDS.some(([word, firstWords]) => finds(word, (at) => isBehind(lowerText, at, firstWords))) ||
    CALLS.some((word) => finds(word, () => true))
  );
}
