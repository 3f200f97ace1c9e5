// Small, fixed cases of the shell's output; the whole of it is compared with psql in test/integration/cli-sql.test.ts.
import pg from 'pg';
import t from 'tap';
import { alignedTable, expandedTable } from '../../../src/cli/sql/aligned-table.js';
import { displayLines } from '../../../src/cli/sql/display-width.js';
import { formatResult } from '../../../src/cli/sql/result-format.js';
import { formatServerMessage, pointAt } from '../../../src/cli/sql/server-message.js';
import { timeText } from '../../../src/cli/sql/shell.js';

const columns = [
  { name: 'id', align: 'right' },
  { name: 'text', align: 'left' },
] as const;

t.test('a table is aligned by display width', async (t) => {
  const lines = [
    ...alignedTable({
      columns,
      rows: [
        ['1', '漢'],
        ['20', null],
        ['3', 'a\nb'],
      ],
      title: 'T',
    }),
  ];
  t.strictSame(lines, [
    '     T',
    ' id | text ',
    '----+------',
    '  1 | 漢',
    ' 20 | ',
    '  3 | a   +',
    '    | b',
    '(3 rows)',
    '',
  ]);
});

t.test('an expanded table has one line per value', async (t) => {
  const lines = [...expandedTable({ columns, rows: [['1', 'a longer text']] })];
  t.strictSame(lines, ['-[ RECORD 1 ]-------', 'id   | 1', 'text | a longer text', '']);
});

t.test('widths', async (t) => {
  const widths: [string, number][] = [
    ['abc', 3],
    ['漢字', 4],
    ['e\u0301', 1],
    ['ｱ', 1],
    ['Ａ', 2],
    ['😀', 2],
    ['a\tb', 9],
    ['\x01', 4],
  ];
  for (const [text, width] of widths) t.equal(displayLines(text)[0]!.width, width, JSON.stringify(text));
});

t.test('the caret stands under the character a position names', async (t) => {
  t.equal(pointAt('SELECT nope', 8), 'LINE 1: SELECT nope\n               ^\n');
  t.equal(pointAt('a\nbc', 4), 'LINE 2: bc\n         ^\n');
  t.equal(pointAt('a\r\nb', 4), 'LINE 2: b\n        ^\n', 'one line end, not two');
  t.equal(pointAt("'漢' x", 5), "LINE 1: '漢' x\n             ^\n");
  t.equal(pointAt('abc', 4), 'LINE 1: abc\n           ^\n', 'behind the end');
  t.equal(pointAt('abc', 9), '', 'outside the text');
});

t.test('a position without a known text is given as a number', async (t) => {
  const error = Object.assign(new pg.DatabaseError('bad', 0, 'error'), { severity: 'ERROR', position: '7' });
  t.equal(formatServerMessage(error, { verbosity: 'default', query: undefined }), 'ERROR:  bad at character 7\n');
});

t.test('JSON names are unique even where a made name is taken', async (t) => {
  const named = ['a', 'a', 'a_2', 'a'].map((name) => ({ name, typeOid: 25 }));
  const [line] = formatResult({ tag: 'SELECT 1', columns: named, rows: [['1', '2', '3', '4']] }, 'json', false);
  t.strictSame(Object.values(JSON.parse(line!).rows[0]), ['1', '2', '3', '4']);
});

t.test('times beyond a second are also given in parts', async (t) => {
  t.equal(timeText(1.2345), '1.234 ms');
  t.equal(timeText(61_500), '61500.000 ms (01:01.500)');
  t.equal(timeText(3_723_004), '3723004.000 ms (01:02:03.004)');
  t.equal(timeText(90_061_001), '90061001.000 ms (1 d 01:01:01.001)');
});
