// Lines of keys, for every way TOML has of writing one, and for any text at all.
import fc from 'fast-check';
import { parse } from 'smol-toml';
import t from 'tap';
import { type KeyPath, keyLines } from '../../../src/config/toml-lines.js';

t.test('each way of writing a key has its line', async (t) => {
  const text = [
    'top = 1 # comment = 2', //                                   1
    '', //                                                        2
    'dotted."quoted \\u0061".\'literal\' = "a = # not a key"', // 3
    'text = """', //                                              4
    'no = "key"', //                                              5
    '[no.table]', //                                              6
    '\\""""" # ends with quotes of its own', //                   7
    "raw = '''", //                                               8
    "it's\\", //                                                  9
    "'''", //                                                     10
    'list = [ # comment ]', //                                    11
    '  1, "two, ]",', //                                          12
    "  { deep = 'x', er.est = 4 },", //                           13
    '  [5,', //                                                   14
    '   6],', //                                                  15
    ']', //                                                       16
    '[a . b]', //                                                 17
    'inline = { x = 1, y = { z = [', //                           18
    '  2, 3] } }', //                                             19
    'when = 1979-05-27 07:32:00', //                              20
    'behind = true', //                                           21
    '[[shards]]', //                                              22
    'name = "one"', //                                            23
    '[[shards.nodes]]', //                                        24
    'host = "h"', //                                              25
    '[[shards.nodes]]', //                                        26
    'port=1', //                                                  27
    '[shards.extra]', //                                          28
    'k = 1', //                                                   29
    '[[shards]]', //                                              30
    '[[shards.nodes]]', //                                        31
    'host = "i"', //                                              32
    '[a]', //                                                     33
    'late = 0', //                                                34
  ].join('\n');
  t.doesNotThrow(() => parse(text), 'the example is TOML');
  const lines = keyLines(text);
  const expected: [KeyPath, number][] = [
    [['top'], 1],
    [['dotted', 'quoted a', 'literal'], 3],
    [['text'], 4],
    [['raw'], 8],
    [['list', 0], 12],
    [['list', 2, 'deep'], 13],
    [['list', 2, 'er', 'est'], 13],
    [['list', 3, 1], 15],
    [['a', 'b'], 17],
    [['a', 'b', 'inline', 'x'], 18],
    [['a', 'b', 'inline', 'y', 'z', 0], 19],
    [['a', 'b', 'behind'], 21],
    [['shards'], 22],
    [['shards', 0, 'name'], 23],
    [['shards', 0, 'nodes', 0, 'host'], 25],
    [['shards', 0, 'nodes', 1], 26],
    [['shards', 0, 'nodes', 1, 'port'], 27],
    [['shards', 0, 'extra', 'k'], 29],
    [['shards', 1], 30],
    [['shards', 1, 'nodes', 0, 'host'], 32],
    [['a', 'late'], 34],
    [['shards', 1, 'name'], 30],
    [['nowhere'], 1],
    [['no'], 1],
  ];
  for (const [path, line] of expected) t.equal(lines.lineOf(path), line, path.join('.'));
});

t.test('every text ends, with lines inside it', async (t) => {
  const letters = ['[', ']', '{', '}', '"', "'", '"""', "'''", '\\', '\n', '.', '=', ',', '#', 'a', 'b', ' '];
  const soup = fc.array(fc.constantFrom(...letters), { maxLength: 60 }).map((parts) => parts.join(''));
  const isInside = (text: string) => {
    const line = keyLines(text).lineOf(['a']);
    return line >= 1 && line <= text.split('\n').length;
  };
  t.doesNotThrow(() => fc.assert(fc.property(soup, isInside), { numRuns: 3000, seed: 7 }));
});
