// Two keys of one shard as an object with one state, and what may be done with it. The first version of a row is 1 here (the
// tests' tables are made so), each write adds one: so every result, versions included, follows from the state before.

/** null: there is no such key. */
export type Cell = readonly [value: number, version: number] | null;
export type State = readonly [Cell, Cell];

export const stateText = (state: State): string => JSON.stringify(state);
const parse = (text: string): State => JSON.parse(text) as State;

/** What one statement does to one key, and what it answers, as its row in text; 'none' stands for no row. */
export interface Action {
  readonly name: string;
  /** 0 or 1; 2 both. */
  readonly key: number;
  /** With $1 the tenant, $2 the key, or $2 and $3 both. */
  readonly sql: string;
  run(cell: Cell, other: Cell): { readonly cell: Cell; readonly answer: string };
}

const written = (cell: Cell, value: number): Cell => [value, cell === null ? 1 : cell[1] + 1];
const shown = (cell: Cell): string => (cell === null ? 'none' : `${cell[0]}|${cell[1]}`);

const WHERE = 'WHERE tenant_id = $1 AND key = $2';

export const get = (key: number): Action => ({
  name: `get ${key}`,
  key,
  sql: `SELECT value, version FROM kv ${WHERE}`,
  run: (cell) => ({ cell, answer: shown(cell) }),
});

export const getBoth = (): Action => ({
  name: 'get both',
  key: 2,
  sql: 'SELECT value, version FROM kv WHERE tenant_id = $1 AND key IN ($2, $3) ORDER BY key',
  run: (cell, other) => {
    const rows = [cell, other].filter((each) => each !== null).map(shown);
    return { cell, answer: rows.length === 0 ? 'none' : rows.join(' ') };
  },
});

export const put = (key: number, value: number): Action => ({
  name: `put ${key} ${value}`,
  key,
  sql: `SELECT kv_put($1, $2, '${value}')`,
  run: (cell) => {
    const next = written(cell, value);
    return { cell: next, answer: String(next![1]) };
  },
});

export const insert = (key: number, value: number): Action => ({
  name: `insert ${key} ${value}`,
  key,
  sql: `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '${value}') RETURNING version`,
  run: (cell) => (cell === null ? { cell: [value, 1], answer: '1' } : { cell, answer: '23505' }),
});

export const update = (key: number, value: number): Action => ({
  name: `update ${key} ${value}`,
  key,
  sql: `UPDATE kv SET value = '${value}' ${WHERE} RETURNING version`,
  run: (cell) =>
    cell === null ? { cell, answer: 'none' } : { cell: [value, cell[1] + 1], answer: String(cell[1] + 1) },
});

export const remove = (key: number): Action => ({
  name: `delete ${key}`,
  key,
  sql: `DELETE FROM kv ${WHERE} RETURNING value, version`,
  run: (cell) => ({ cell: null, answer: shown(cell) }),
});

export const cas = (key: number, expected: number, value: number): Action => ({
  name: `cas ${key} ${expected} ${value}`,
  key,
  sql: `SELECT * FROM kv_cas($1, $2, ${expected}, '${value}')`,
  run: (cell) => {
    const applies = expected === 0 ? cell === null : cell?.[1] === expected;
    if (!applies) return { cell, answer: `f|${cell === null ? 'null|null' : `${cell[1]}|${cell[0]}`}` };
    const next = written(cell, value);
    return { cell: next, answer: `t|${next![1]}|${next![0]}` };
  },
});

export const incr = (key: number): Action => ({
  name: `incr ${key}`,
  key,
  sql: 'SELECT kv_incr($1, $2)',
  run: (cell) => {
    const next = written(cell, (cell?.[0] ?? 0) + 1);
    return { cell: next, answer: String(next![0]) };
  },
});

/**
 * Actions at one moment.
 * @param answers one for each; null: not known
 */
export function step(text: string, actions: readonly Action[], answers: readonly string[] | null): string | null {
  const cells: [Cell, Cell] = [...parse(text)] as [Cell, Cell];
  for (const [index, action] of actions.entries()) {
    const at = action.key === 1 ? 1 : 0;
    const { cell, answer } = action.run(cells[at], cells[1 - at]!);
    if (answers !== null && answers[index] !== answer) return null;
    cells[at] = cell;
  }
  return stateText(cells);
}
