// The one form in which pgkv refuses (D10): a rule of refusal-rules.ts with its words filled in. The reason stands in the
// message, since drivers drop DETAIL and HINT; DETAIL is the rule's code. Other errors of pgkv's own are errors.ts.
import { assert } from './assert.js';
import { PgkvError } from './errors.js';
import { REFUSAL_RULES, type RefusalRule } from './refusal-rules.js';

export type RefusalName = keyof typeof REFUSAL_RULES;

export interface Refusal extends RefusalRule {
  readonly kind: 'refused';
  /** The text could not be read here: a server's parser is asked first, which nearly always has an error of its own. */
  readonly asksServer: boolean;
}

const ASK_SERVER: ReadonlySet<RefusalName> = new Set(['unparsed', 'unread']);

type Words = Readonly<Record<string, string | number | bigint>>;

/** Those that say the same each time: one object for all texts that are refused so, since a hundred thousand may be kept. */
const WORDLESS = new Map<RefusalName, Refusal>();

/** @param words for each `{word}` in the rule's texts */
export function refuse(name: RefusalName, words?: Words): Refusal {
  if (words !== undefined) return made(name, words);
  let refusal = WORDLESS.get(name);
  if (refusal === undefined) {
    refusal = Object.freeze(made(name, {}));
    WORDLESS.set(name, refusal);
  }
  return refusal;
}

function made(name: RefusalName, words: Words): Refusal {
  const { code, reason, hint, isLimit }: RefusalRule = REFUSAL_RULES[name];
  return {
    kind: 'refused',
    code,
    reason: filled(reason, words),
    hint: filled(hint, words),
    asksServer: ASK_SERVER.has(name),
    ...(isLimit === true ? { isLimit } : {}),
  };
}

/** `{{tag}}` stands for {tag}. */
const filled = (text: string, words: Words): string =>
  text.replace(/\{\{(\w+)\}\}|\{(\w+)\}/g, (_, braced: string | undefined, name: string) => {
    if (braced !== undefined) return `{${braced}}`;
    const word = words[name];
    assert(word !== undefined, `a refusal without its ${name}`);
    return String(word);
  });

export const isRefusal = (value: object): value is Refusal => 'kind' in value && value.kind === 'refused';

/** What the client is sent: 0A000, or 54000 where a setting says so. */
export function refusalError({ code, reason, hint, isLimit }: Refusal): PgkvError {
  const options = { message: reason, detail: code, hint };
  return isLimit === true ? new PgkvError('limit_exceeded', options) : new PgkvError('refused', options);
}
