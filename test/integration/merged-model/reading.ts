// Statements that read: point reads with several select lists, lists of keys, divisions that may fail.
import { asked, type Build, ROW, text } from './asked.js';
import type { Parameter, Statement } from './wire-forms.js';

export const KEYED = 'tenant_id = $1 and key = $2';

export const reading =
  (kind: string, list: string, columns: Statement['columns'], from = `kv where ${KEYED}`): Build =>
  (draw) => {
    const place = (name: string): number => columns.findIndex((column) => column[0] === name);
    const expected: Readonly<Record<string, string>> = {
      tenant_id: draw.key.tenant,
      key: draw.key.name,
      letters: String(draw.key.name.length),
      sort: 'string',
    };
    return asked(kind, draw, {
      sql: `select ${list} from ${from}`,
      columns,
      judge: ([row], say) => {
        if (row === undefined) return [say.claim('absent')];
        for (const [name, wanted] of Object.entries(expected)) {
          const at = place(name);
          if (at >= 0 && row[at] !== wanted) return `${name} is ${row[at]}, not ${wanted}`;
        }
        const ttl = place('ttl');
        return [say.seen(row[place('version')]!, row[place('value')]!, ttl < 0 ? undefined : row[ttl]!)];
      },
    });
  };

export const ALL_COLUMNS: Statement['columns'] = [
  ['tenant_id', 'text'],
  ['key', 'text'],
  ...ROW,
  ['ttl', 'timestamptz'],
  ['updated_at', 'timestamptz'],
  ['slot', 'int4'],
];

export const readDivided: Build = (draw) =>
  asked('readDivided', draw, {
    sql: `select version, 100 / $3::int4 as quotient, value from kv where ${KEYED}`,
    more: [{ type: 'int4', text: draw.mishap === 'other' ? '0' : '7' }],
    columns: [ROW[0]!, ['quotient', 'int4'], ROW[1]!],
    mishaps: ['other'],
    judge: ([row], say) => {
      if (row === undefined) return [say.claim('absent')];
      return row[1] === '14' ? [say.seen(row[0]!, row[2]!)] : `the quotient is ${row[1]}`;
    },
  });

export const listing =
  (kind: 'inList' | 'anyList'): Build =>
  (draw) => {
    const start = draw.random(draw.group.length);
    const keys = draw.group.map((_, index) => draw.group[(start + index) % draw.group.length]!).slice(0, 3);
    const names = keys.map(({ name }) => name);
    const columns: Statement['columns'] = [['key', 'text'], ...ROW];
    const isIn = kind === 'inList';
    const statement = asked(
      kind,
      { ...draw, key: keys[0]! },
      {
        sql: `select key, version, value from kv where tenant_id = $1 and ${isIn ? 'key in ($2, $3, $4)' : 'key = any($2)'}`,
        columns,
        judge: (rows, say) => {
          const events = keys.map((key) => {
            const row = rows.find(([name]) => name === key.name);
            return row === undefined ? say.claim('absent', key) : say.seen(row[1]!, row[2]!, undefined, key);
          });
          const found = new Set(rows.map(([name]) => name));
          const isRight = found.size === rows.length && [...found].every((name) => names.includes(name!));
          return isRight ? events : `keys ${rows.map(([name]) => name).join()} of ${names.join()}`;
        },
      },
    );
    const list: Parameter = { type: '_text', text: `{${names.map((name) => `"${name}"`).join()}}` };
    return { ...statement, parameters: [text(draw.key.tenant), ...(isIn ? names.map(text) : [list])] };
  };
