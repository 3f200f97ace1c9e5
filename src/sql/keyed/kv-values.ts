// Reads expressions whose value is known without the server: literals, parameters and NULL, bare or cast to text, and
// arrays of those. Any other cast may change the bytes (varchar(3) cuts, bpchar and name strip), so what has one is not
// a value here; nor is a parameter that is not sure to be text (kv-parameters.ts).
import type { Node } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';
import type { ValueRef } from '../plan/kv-plan.js';
import { LITERAL_STRIDE, LiteralKind } from '../text/shape-lexer.js';
import { type TextToken, tokenAtByte } from '../text/text-tokens.js';
import type { ParameterType } from './kv-parameters.js';
import { textType } from './kv-types.js';

/** An array as a whole, or its elements. */
export type ListValue = { readonly kind: 'array'; readonly array: ValueRef } | ElementList;
export interface ElementList {
  readonly kind: 'elements';
  readonly elements: readonly ValueRef[];
}

const NULL_VALUE: ValueRef = { kind: 'null' };
/** \v in E'…': the letter v on Postgres 15, a vertical tab since 16. */
const DEPENDS_ON_VERSION = /^[eE].*\\v/s;

export class ValueReader {
  private readonly text: string;
  private readonly tokens: readonly TextToken[];
  private readonly literals: readonly number[];
  private readonly types: ReadonlyMap<number, ParameterType>;

  /**
   * @param literals Shape.literals of the text
   * @param types of parameters, from parameterTypes()
   */
  constructor(
    {
      text,
      tokens,
      literals,
    }: { readonly text: string; readonly tokens: readonly TextToken[]; readonly literals: readonly number[] },
    types: ReadonlyMap<number, ParameterType>,
  ) {
    this.text = text;
    this.tokens = tokens;
    this.literals = literals;
    this.types = types;
  }

  /** A value of type text. */
  scalar(node: Node | undefined): ValueRef | null {
    return this.value(node, 0);
  }

  /** An array of text, where `= ANY` or a plural function takes one. */
  list(node: Node | undefined): ListValue | null {
    const inner = withoutTextCasts(node, 1);
    if (inner !== undefined && 'A_ArrayExpr' in inner) return this.elements(inner.A_ArrayExpr.elements ?? []);
    const array = this.value(node, 1);
    return array === null ? null : { kind: 'array', array };
  }

  elements(nodes: readonly Node[]): ElementList | null {
    const elements: ValueRef[] = [];
    for (const node of nodes) {
      const value = this.scalar(node);
      if (value === null) return null;
      elements.push(value);
    }
    return { kind: 'elements', elements };
  }

  /** NULL, DEFAULT, an integer literal or a parameter used as nothing else: what a slot may be given as. */
  slot(node: Node | undefined): ValueRef | null {
    if (node === undefined || 'SetToDefault' in node) return NULL_VALUE;
    if ('ParamRef' in node) return this.parameter(node.ParamRef.number, 'slot');
    if (!('A_Const' in node)) return null;
    if (node.A_Const.isnull === true) return NULL_VALUE;
    return node.A_Const.ival === undefined ? null : this.literal(node.A_Const.location, undefined);
  }

  private value(node: Node | undefined, dimensions: 0 | 1): ValueRef | null {
    const inner = withoutTextCasts(node, dimensions);
    if (inner === undefined) return null;
    if ('ParamRef' in inner) return this.parameter(inner.ParamRef.number, dimensions === 0 ? 'text' : 'text[]');
    if (!('A_Const' in inner)) return null;
    if (inner.A_Const.isnull === true) return NULL_VALUE;
    return inner.A_Const.sval === undefined
      ? null
      : this.literal(inner.A_Const.location, inner.A_Const.sval.sval ?? '');
  }

  private parameter(number: number | undefined, type: 'text' | 'text[]' | 'slot'): ValueRef | null {
    if (number === undefined || number < 1) return null;
    const known = this.types.get(number);
    const fits =
      known === type || (known === 'varchar' && type === 'text') || (known === 'varchar[]' && type === 'text[]');
    return fits ? { kind: 'parameter', number } : null;
  }

  /** @param value as the parser has read it: taken for one with escapes by number or U&'…', which all texts of the shape have */
  private literal(location: number | undefined, value: string | undefined): ValueRef | null {
    const token = this.tokens[tokenAtByte(this.tokens, location ?? 0)];
    const index = token?.literal ?? -1;
    if (token === undefined || index < 0) return null;
    if (this.literals[index * LITERAL_STRIDE + 2] !== LiteralKind.opaque) return { kind: 'literal', index };
    const source = this.text.slice(token.start, token.end);
    return value === undefined || DEPENDS_ON_VERSION.test(source) ? null : { kind: 'literal', index, value };
  }
}

function withoutTextCasts(node: Node | undefined, dimensions: 0 | 1): Node | undefined {
  let inner = node;
  while (inner !== undefined) {
    if ('TypeCast' in inner && textType(inner.TypeCast.typeName, dimensions) !== null) inner = inner.TypeCast.arg;
    else if ('CollateClause' in inner && isByteOrder(inner.CollateClause.collname)) inner = inner.CollateClause.arg;
    else break;
  }
  return inner;
}

const isByteOrder = (path: readonly Node[] | undefined): boolean =>
  ['C', 'pg_catalog.C'].includes(namePath(path ?? []).join('.'));
