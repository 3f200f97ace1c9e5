// Values as a Bind message brings them, for tests of what is read from them.
import { type BindValues, StatementValues } from '../../../src/route/key-values.js';
import type { ClientEncoding } from '../../../src/sql/text/client-encoding.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { encode, type Value } from '../../support/frontend-message.js';

export interface BindOptions {
  /** Declared in the Parse message. */
  readonly types?: readonly number[];
  readonly formats?: readonly number[];
  readonly encoding?: ClientEncoding;
  /** Bytes of another message before and behind it, as in a socket's buffer. */
  readonly surrounded?: boolean;
}

/** Length of type, length, and the empty names of portal and statement. */
const FORMATS_OFFSET = 7;

export function bindValues(values: readonly Value[], options: BindOptions = {}): BindValues {
  const { types = [], formats, surrounded = false } = options;
  const message = encode(formats === undefined ? { bind: values } : { bind: values, formats });
  const before = surrounded ? Buffer.from('before') : Buffer.alloc(0);
  const buffer = surrounded ? Buffer.concat([before, message, Buffer.from('behind')]) : message;
  const end = before.length + message.length;
  return { buffer, offset: before.length + FORMATS_OFFSET, end, types };
}

export const boundValues = (values: readonly Value[], options: BindOptions = {}): StatementValues =>
  new StatementValues('', [], bindValues(values, options), options.encoding);

/** The literals of a text as the lexer finds them. */
export function literalsOf(text: string, standardStrings = true): readonly number[] {
  const shape = lexShape(text, standardStrings);
  if (shape === null) throw new Error(`no shape: ${text}`);
  return shape.literals;
}

export const literalValues = (text: string, standardStrings = true): StatementValues =>
  new StatementValues(text, literalsOf(text, standardStrings), null);
