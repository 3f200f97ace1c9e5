// How many terminal columns a text takes, by the rules of psql 15 (Unicode's East Asian Width), and how values that
// hold line ends, tabs or control characters are written. Ambiguous characters count one column, as in psql.

const PLAIN = /^[\x20-\x7e]*$/;
const ZERO_WIDTH = /[\p{Mn}\p{Me}]/u;
// East Asian Wide and Fullwidth blocks; the scattered single emoji follow from their Unicode property.
const WIDE =
  /[\u1100-\u115f\u2329\u232a\u2e80-\u3029\u302e-\u303e\u3041-\u3096\u309b-\u3247\u3250-\u4dbf\u4e00-\ua4c6\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{1b2fb}\u{1f200}-\u{1f320}\u{1f947}-\u{1f9ff}\u{20000}-\u{3fffd}]|(?![\u{1f1e6}-\u{1f1ff}])\p{Emoji_Presentation}/u;

/** Columns of one character (a whole code point); control characters count one here. */
export function characterWidth(character: string): 0 | 1 | 2 {
  if (character >= ' ' && character <= '~') return 1;
  if (ZERO_WIDTH.test(character)) return 0;
  return WIDE.test(character) ? 2 : 1;
}

export interface DisplayLine {
  readonly text: string;
  readonly width: number;
}

/** A value as the lines it takes in a table cell: split at line ends, tabs expanded, control characters spelt out. */
export function displayLines(value: string): DisplayLine[] {
  if (PLAIN.test(value)) return [{ text: value, width: value.length }];
  return value.split('\n').map(displayLine);
}

function displayLine(value: string): DisplayLine {
  if (PLAIN.test(value)) return { text: value, width: value.length };
  let text = '';
  let width = 0;
  for (const character of value) {
    const shown = spellOut(character, width);
    text += shown;
    width += shown === character ? characterWidth(character) : shown.length;
  }
  return { text, width };
}

function spellOut(character: string, column: number): string {
  const code = character.codePointAt(0)!;
  if (code === 0x09) return ' '.repeat(8 - (column % 8));
  if (code === 0x0d) return '\\r';
  if (code < 0x20 || code === 0x7f) return `\\x${code.toString(16).toUpperCase().padStart(2, '0')}`;
  if (code > 0x7f && code < 0xa0) return `\\u${code.toString(16).toUpperCase().padStart(4, '0')}`;
  return character;
}
