// Names in texts that are too long or too odd to be read: searched as words, in lower case, in a few milliseconds for a megabyte
// whatever stands in it (regular expressions with look-behind took 25, and one of them grew as the square).
// Errs on the side of finding a name.

const UNDERSCORE = 95;
const DOLLAR = 36;
const LETTER_OR_DIGIT = /[\p{L}\p{N}]/u;

function belongsToWord(code: number): boolean {
  if (code < 128) return (code >= 48 && code <= 57) || (code >= 97 && code <= 122) || code === DOLLAR;
  return LETTER_OR_DIGIT.test(String.fromCharCode(code));
}

/** Whether `name` stands in the text as a word, or as the beginning of one that goes on with an underscore (kv_get). */
export function isWordIn(lowerText: string, name: string): boolean {
  for (let at = lowerText.indexOf(name); at >= 0; at = lowerText.indexOf(name, at + 1)) {
    const before = at === 0 ? 0 : lowerText.charCodeAt(at - 1);
    const end = at + name.length;
    const after = end < lowerText.length ? lowerText.charCodeAt(end) : 0;
    if (before !== UNDERSCORE && !belongsToWord(before) && !belongsToWord(after)) return true;
  }
  return false;
}

/** U&"…" with a backslash in it, or with another escape character: characters of a name may be given by number. */
export function mayEscapeNames(lowerText: string): boolean {
  const first = lowerText.indexOf('u&"');
  if (first < 0) return false;
  if (lowerText.includes('uescape', first)) return true;
  for (let at = first; at >= 0; ) {
    const end = lowerText.indexOf('"', at + 3);
    const backslash = lowerText.indexOf('\\', at + 3);
    if (backslash < 0) return false;
    if (end < 0 || backslash < end) return true;
    // Quotes before the backslash end here: only names around it matter.
    at = lowerText.indexOf('u&"', Math.max(end, lowerText.lastIndexOf('u&"', backslash)));
  }
  return false;
}
