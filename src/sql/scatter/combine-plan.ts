// SELECT with aggregates or GROUP BY: every shard aggregates its own rows, and the home server aggregates what they
// answer, in Postgres's own arithmetic. In the final statement each aggregate call, each grouped column and each
// parameter is replaced by what stands for it; all else, down to HAVING, ORDER BY and LIMIT, is the client's text.

import type { ColumnRef, FuncCall, Node, ParamRef, TypeName } from 'libpg-query';
import type { Refusal } from '../../base/refusals.js';
import type { KvColumn } from '../../cluster/kv-table.js';
import { namePath } from '../meaning/name-path.js';
import type { CombinePlan } from '../plan/kv-plan.js';
import type { Clause } from '../text/clauses.js';
import { quoteName } from '../text/identifiers.js';
import type { TextParts } from '../text/text-parts.js';
import {
  closingIndex,
  joinParts,
  listItems,
  spliceTokens,
  type TokenEdit,
  type TokenSpan,
  tokenAtByte,
} from '../text/text-tokens.js';
import { type OutputColumn, outputColumns } from './output-columns.js';
import { AGGREGATE_HINT, columnOf, expressionFacts, isAggregate, refuse, textOrderOf } from './scatter-expressions.js';
import { type ScatterSource, shardRows, sortItems } from './scatter-source.js';

export function combinePlan(source: ScatterSource): CombinePlan | Refusal {
  try {
    return new Combiner(source).plan();
  } catch (error) {
    if (error instanceof Uncombinable) return error.refusal;
    throw error;
  }
}

/** Carries a refusal out of the depth of an expression. */
class Uncombinable extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.reason);
    this.refusal = refusal;
  }
}

interface Partial {
  readonly role: string;
  readonly shardParts: TextParts;
  /** In the final statement its values have collation C, as the columns of the table. */
  readonly isByteOrdered: boolean;
}

/** The shards' partial rows in the final statement. */
const ROWS = '"pgkv partial"';
/** What the home server's text may not hold, since it would be taken for a placeholder. */
const PLACEHOLDER = /\{(rows|(type:)?\d+)\}/;

class Combiner {
  private readonly source: ScatterSource;
  private readonly outputs: readonly OutputColumn[];
  private readonly partials: Partial[] = [];
  /** By its text, as JSON. */
  private readonly partialOf = new Map<string, number>();
  private readonly groupColumns: KvColumn[];

  constructor(source: ScatterSource) {
    this.source = source;
    const { select, clauses, tokens, alias } = source;
    this.outputs = outputColumns(select, clauses, tokens, alias);
    this.groupColumns = this.findGroupColumns();
  }

  plan(): CombinePlan | Refusal {
    // Group columns come first, so that their numbers are those of groupColumns.
    for (const column of this.groupColumns) this.partialOfColumn(column);
    const { having, limit, offset, fetch } = this.source.clauses;
    const list = this.outputs.map((output) => this.finalOutput(output));
    const havingParts = this.finalClause(having, this.source.select.havingClause);
    const order = this.finalOrder();
    const limits = [
      ...[limit, fetch].map((clause) => this.finalClause(clause, this.source.select.limitCount)),
      this.finalClause(offset, this.source.select.limitOffset),
    ];
    if (this.partials.length === 0) this.partial('count', ['count(*)'], false);
    const grouped = this.groupColumns.map((_, index) => partialName(index)).join(', ');
    const finalText = joinParts(
      this.partialRows(),
      'SELECT',
      ...separated(list),
      `FROM ${ROWS}`,
      grouped === '' ? '' : `GROUP BY ${grouped}`,
      havingParts,
      order,
      ...limits,
    );
    return {
      kind: 'combine',
      shardText: this.shardText(),
      partials: this.partials.map(({ role }) => ({ role })),
      finalText,
    };
  }

  private shardText(): TextParts {
    const columns = this.groupColumns.map((column) => this.columnInShard(column)).join(', ');
    return joinParts(
      'SELECT',
      ...separated(this.partials.map(({ shardParts }) => shardParts)),
      shardRows(this.source),
      columns === '' ? '' : `GROUP BY ${columns}`,
    );
  }

  /** WITH …: the partials under our names and with the collations they have on the shards. */
  private partialRows(): string {
    const columns = this.partials.map(({ isByteOrdered }, index) => {
      const value = isByteOrdered ? `({${index}}) COLLATE "C"` : `{${index}}`;
      return `${value} AS ${columnName(index)}`;
    });
    return `WITH ${ROWS} AS (SELECT ${columns.join(', ')} FROM {rows})`;
  }

  private columnInShard(column: KvColumn): string {
    return `${quoteName(this.source.alias)}.${quoteName(column)}`;
  }

  /** Postgres takes a bare name in GROUP BY for a column of the table first, then for an output column. */
  private findGroupColumns(): KvColumn[] {
    const { select, alias } = this.source;
    if (select.groupDistinct === true) throw uncombinable('GROUP BY DISTINCT', 'Leave DISTINCT out.');
    const columns = (select.groupClause ?? []).map((item) => {
      if ('ColumnRef' in item) {
        const column = columnOf(item.ColumnRef, alias) ?? this.outputNamed(item.ColumnRef)?.column;
        if (column !== undefined && column !== null) return column;
      } else if ('A_Const' in item) {
        const output = this.outputs[(item.A_Const.ival?.ival ?? 0) - 1];
        if (output?.hasKnownPosition === true && output.column !== null) return output.column;
      }
      throw uncombinable(
        'GROUP BY anything but columns of the table',
        'Group by tenant_id, key, version, value, ttl, updated_at or slot, or group in the application.',
      );
    });
    return [...new Set(columns)];
  }

  private outputNamed(reference: ColumnRef): OutputColumn | null {
    const path = namePath(reference.fields ?? []);
    const named = path.length === 1 ? this.outputs.filter(({ name }) => name === path[0]) : [];
    return named[0] ?? null;
  }

  private finalOutput({ name, expression }: OutputColumn): TextParts {
    if (expression === null) {
      throw uncombinable('* together with aggregates or GROUP BY', 'Name the columns that are grouped by.');
    }
    const label = quoteName(name);
    if (PLACEHOLDER.test(label)) throw uncombinable(`A column called ${name}`, 'Call it something without braces.');
    return joinParts(this.finalExpression(expression.node, expression.span), `AS ${label}`);
  }

  private finalClause(clause: Clause | null, node: Node | undefined): TextParts {
    if (clause === null) return [];
    return this.finalExpression(node, { start: clause.start, end: clause.body.end });
  }

  private finalOrder(): TextParts {
    const { tokens, clauses } = this.source;
    const spans = listItems(tokens, clauses.orderBy?.body ?? { start: 0, end: 0 });
    const items = sortItems(this.source).map(({ node }, index) => {
      const span = spans[index];
      if (span === undefined) throw uncombinable('ORDER BY in this form', 'Write it out.');
      const namesOutput = node !== undefined && 'ColumnRef' in node && this.outputNamed(node.ColumnRef) !== null;
      return this.finalExpression(namesOutput ? undefined : node, span);
    });
    return items.length === 0 ? [] : joinParts('ORDER BY', ...separated(items));
  }

  /** The text of `span` with all that depends on rows or parameters in `node` replaced. */
  private finalExpression(node: Node | undefined, span: TokenSpan): TextParts {
    const edits: TokenEdit[] = [];
    if (node !== undefined) this.collectEdits(node, edits);
    const parts = spliceTokens(this.source.text, this.source.tokens, span, edits);
    const untouched = spliceTokens(this.source.text, this.source.tokens, span);
    if (untouched.some((part) => typeof part === 'string' && PLACEHOLDER.test(part))) {
      throw uncombinable('A name with braces', 'Call it something without braces.');
    }
    return parts;
  }

  private collectEdits(root: Node, edits: TokenEdit[]): void {
    const stack: Operand[] = [{ node: root, parameterType: this.isLimit(root) ? BIGINT : null }];
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const { node, parameterType } = next;
      if ('ParamRef' in node) edits.push(this.parameterEdit(node.ParamRef, parameterType));
      else if ('ColumnRef' in node) edits.push(this.columnEdit(node.ColumnRef));
      else if ('FuncCall' in node && isAggregate(node.FuncCall)) edits.push(this.aggregateEdit(node.FuncCall));
      else stack.push(...operandsOf(node));
    }
  }

  private isLimit(node: Node): boolean {
    const { limitCount, limitOffset } = this.source.select;
    return node === limitCount || node === limitOffset;
  }

  private columnEdit(reference: ColumnRef): TokenEdit {
    const fields = reference.fields ?? [];
    const start = this.tokenAt(reference.location);
    const column = columnOf(reference, this.source.alias);
    const index = column === null ? -1 : this.groupColumns.indexOf(column);
    if (index < 0) {
      const name = namePath(fields).join('.');
      throw uncombinable(`${name}, which is neither grouped by nor inside an aggregate,`, 'Add it to GROUP BY.');
    }
    // Names and the points between them.
    return { start, end: start + 2 * fields.length - 1, parts: [partialName(index)] };
  }

  /**
   * A parameter stands in no column of the shards' answers, and the home server does not get the client's parameters:
   * the shards send it along.
   */
  private parameterEdit(parameter: ParamRef, type: TypeName | null): TokenEdit {
    if (type === null) {
      throw uncombinable(
        `The parameter $${parameter.number} beside an aggregate`,
        `Say its type, as in $${parameter.number}::bigint.`,
      );
    }
    const start = this.tokenAt(parameter.location);
    const index = this.partial('parameter', [`$${parameter.number}::${typeText(type)}`], false);
    const parts = [`(SELECT ${columnName(index)} FROM ${ROWS} LIMIT 1)`];
    return { start, end: start + 1, parts };
  }

  private aggregateEdit(call: FuncCall): TokenEdit {
    const { tokens } = this.source;
    const start = this.tokenAt(call.location);
    let nameEnd = start + 1;
    while (tokens[nameEnd]?.folded === '.') nameEnd += 2;
    let end = closingIndex(tokens, nameEnd) + 1;
    if (call.agg_filter !== undefined) end = closingIndex(tokens, end + 1) + 1;
    const span = { start, end };
    return { start, end, parts: [this.finalAggregate(call, span, { start, end: nameEnd })] };
  }

  private finalAggregate(call: FuncCall, span: TokenSpan, name: TokenSpan): string {
    const { text, tokens } = this.source;
    const written = spliceTokens(text, tokens, span);
    const role = namePath(call.funcname ?? []).at(-1) ?? '';
    switch (role) {
      case 'count': {
        const index = this.partial('count', written, false);
        return `COALESCE(pg_catalog.sum(${partialName(index)}), 0)::bigint`;
      }
      case 'sum': {
        const index = this.partial('sum', written, false);
        return `pg_catalog.sum(${partialName(index)})::{type:${index}}`;
      }
      case 'avg': {
        this.refuseInAverage(call);
        const renamed = (other: string) => spliceTokens(text, tokens, span, [{ ...name, parts: [other] }]);
        const sum = this.partial('sum', renamed('pg_catalog.sum'), false);
        const count = this.partial('count', renamed('pg_catalog.count'), false);
        return `(pg_catalog.sum(${partialName(sum)}) / NULLIF(pg_catalog.sum(${partialName(count)}), 0))`;
      }
      case 'min':
      case 'max': {
        const index = this.partial(role, written, this.isByteOrdered(call));
        return `pg_catalog.${role}(${partialName(index)})`;
      }
      default: {
        const index = this.partial(role, written, false);
        return `pg_catalog.${role}(${partialName(index)})`;
      }
    }
  }

  private refuseInAverage(call: FuncCall): void {
    const facts = expressionFacts(call.args ?? [], this.source);
    const types = [...facts.casts.map(({ names }) => namePath(names ?? []).at(-1)), ...facts.functions];
    // avg(real) adds up in double precision, sum(real) does not.
    if (types.includes('float4')) throw uncombinable('avg over real', 'Cast to double precision or numeric.');
    // There is none, but sum(money) / n there is.
    if (types.includes('money')) throw uncombinable('avg over money', 'Cast to numeric.');
    if (facts.isVolatile) throw uncombinable('avg over a volatile expression', AGGREGATE_HINT);
  }

  /** Of min and max: text has to be compared on the home server as on the shards. */
  private isByteOrdered(call: FuncCall): boolean {
    const [argument] = call.args ?? [];
    if (argument === undefined) return false;
    const order = textOrderOf(argument, this.source);
    if (typeof order === 'object') throw new Uncombinable(order);
    if (order === 'mixed') {
      throw uncombinable('min or max over an expression with tenant_id or key', 'Put COLLATE "C" or a cast behind it.');
    }
    return order === 'bytes';
  }

  private partialOfColumn(column: KvColumn): number {
    return this.partial('group', [this.columnInShard(column)], column === 'tenant_id' || column === 'key');
  }

  /** The same text is asked for once, so that the same expressions stay the same in the final statement. */
  private partial(role: string, shardParts: TextParts, isByteOrdered: boolean): number {
    const written = JSON.stringify(shardParts);
    const known = this.partialOf.get(written);
    if (known !== undefined) return known;
    this.partialOf.set(written, this.partials.length);
    return this.partials.push({ role, shardParts, isByteOrdered }) - 1;
  }

  private tokenAt(location: number | undefined): number {
    const index = tokenAtByte(this.source.tokens, location ?? -1);
    if (index < 0) throw uncombinable('An expression in this form', AGGREGATE_HINT);
    return index;
  }
}

const uncombinable = (what: string, hint: string): Uncombinable => new Uncombinable(refuse(what, hint));

const columnName = (index: number): string => `"p${index}"`;
const partialName = (index: number): string => `${ROWS}.${columnName(index)}`;

const separated = (items: readonly TextParts[]): readonly (TextParts | string)[] =>
  items.flatMap((item, index) => (index === 0 ? [item] : [',', item]));

const BIGINT: TypeName = { names: [{ String: { sval: 'pg_catalog' } }, { String: { sval: 'int8' } }] };

/** A node, and the type it has if it is a parameter: written behind it, or plain from what it is compared with. */
interface Operand {
  readonly node: Node;
  readonly parameterType: TypeName | null;
}

const COMPARISONS: ReadonlySet<string> = new Set(['=', '<>', '<', '>', '<=', '>=']);

function operandsOf(node: Node): readonly Operand[] {
  if ('TypeCast' in node) {
    const { arg, typeName = null } = node.TypeCast;
    return arg === undefined ? [] : [{ node: arg, parameterType: typeName }];
  }
  if ('A_Expr' in node && COMPARISONS.has(namePath(node.A_Expr.name ?? []).join('.'))) {
    const { lexpr, rexpr, kind } = node.A_Expr;
    if (lexpr === undefined || rexpr === undefined || kind !== 'AEXPR_OP') return childrenOf(node);
    return [
      { node: lexpr, parameterType: isCount(rexpr) ? BIGINT : null },
      { node: rexpr, parameterType: isCount(lexpr) ? BIGINT : null },
    ];
  }
  return childrenOf(node);
}

const isCount = (node: Node): boolean =>
  'FuncCall' in node && isAggregate(node.FuncCall) && namePath(node.FuncCall.funcname ?? []).at(-1) === 'count';

/** Nodes are objects with one key, which begins with a capital; all other objects and lists are looked through. */
function childrenOf(node: Node): readonly Operand[] {
  const children: Operand[] = [];
  const stack: unknown[] = Object.values(node).flatMap((body: object) => Object.values(body));
  for (let item = stack.pop(); item !== undefined; item = stack.pop()) {
    if (typeof item !== 'object' || item === null) continue;
    const isNode = /^[A-Z]/.test(Object.keys(item)[0] ?? '');
    if (isNode) children.push({ node: item as Node, parameterType: null });
    else for (const value of Object.values(item)) if (value !== undefined) stack.push(value);
  }
  return children;
}

/** Without the modifier: the cast in the text still applies it. */
function typeText({ names, arrayBounds }: TypeName): string {
  const path = namePath(names ?? []).map(quoteName);
  return path.join('.') + '[]'.repeat((arrayBounds ?? []).length > 0 ? 1 : 0);
}
