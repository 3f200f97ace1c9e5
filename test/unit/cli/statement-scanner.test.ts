// What the psql comparison (test/integration/cli-sql.test.ts) cannot see: where each statement was cut, and the prompt.
import t from 'tap';
import { StatementScanner } from '../../../src/cli/sql/statement-scanner.js';

/** All statements and commands (`\…`) of a text, and what is left at its end. */
function scan(text: string, scanner = new StatementScanner()): string[] {
  const found: string[] = [];
  for (const line of text.split('\n')) {
    scanner.addLine(line);
    for (let next = scanner.next(); next.kind !== 'more'; next = scanner.next()) {
      found.push(next.kind === 'command' ? `\\${next.text}` : next.text);
    }
  }
  const rest = scanner.take();
  return rest === undefined ? found : [...found, rest];
}

t.test('a statement ends at a semicolon of its own', async (t) => {
  const table: [string, string[]][] = [
    ['a; b;', ['a;', 'b;']],
    ["';' ; b", ["';' ;", 'b']],
    ["'it''s;';b", ["'it''s;';", 'b']],
    ["'\\';b;", ["'\\';", 'b;']],
    ["E'\\';' ; b", ["E'\\';' ;", 'b']],
    ["like'\\';b", ["like'\\';", 'b']],
    ['";" ; b', ['";" ;', 'b']],
    ['/* ; /* ; */ ; */ a; b', ['/* ; /* ; */ ; */ a;', 'b']],
    ['a -- ;\n; b', ['a -- ;\n;', 'b']],
    ['$$;$$; b', ['$$;$$;', 'b']],
    ['$a$;$$;$b$;$a$; b', ['$a$;$$;$b$;$a$;', 'b']],
    ['a$b$; c$b$; d', ['a$b$;', 'c$b$;', 'd']],
    ['$1; $1a;', ['$1;', '$1a;']],
    ['(;); b', ['(;);', 'b']],
    ['a\\; b; c', ['a; b;', 'c']],
    ['begin; end;', ['begin;', 'end;']],
    [
      'create function f() begin atomic a; case when b then c end; end; d',
      ['create function f() begin atomic a; case when b then c end; end;', 'd'],
    ],
    [
      'CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC a; END; b',
      ['CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC a; END;', 'b'],
    ],
    ['ünïcode; 漢字;', ['ünïcode;', '漢字;']],
  ];
  for (const [text, expected] of table) t.strictSame(scan(text), expected, text);
});

t.test('nothing before the first word is part of a statement, and empty lines only inside quotes', async (t) => {
  t.strictSame(scan('\n  -- note\n\n a\n\nb;'), ['a\nb;']);
  t.strictSame(scan("'a\n\nb';"), ["'a\n\nb';"]);
  t.strictSame(scan('$$a\n\nb$$;'), ['$$a\n\nb$$;']);
  t.strictSame(scan('  \n-- only a comment'), []);
});

t.test('a backslash command takes the rest of its line and leaves no empty line behind', async (t) => {
  t.strictSame(scan('\\d kv; more\na;'), ['\\d kv; more', 'a;']);
  t.strictSame(scan('a\n\\x\nb;'), ['\\x', 'a\nb;']);
  t.strictSame(scan('a \\g'), ['\\g', 'a ']);
});

t.test('standard_conforming_strings off makes the backslash an escape', async (t) => {
  const scanner = new StatementScanner();
  scanner.standardStrings = false;
  t.strictSame(scan("'\\';'; b", scanner), ["'\\';';", 'b']);
});

t.test('the prompt tells what the text waits for', async (t) => {
  const table: [string, string][] = [
    ['', '='],
    ['a', '-'],
    ['a;', '='],
    ["a 'b", "'"],
    ['a "b', '"'],
    ['a (b', '('],
    ['a /* b', '*'],
    ['a $x$ b', '$'],
  ];
  for (const [text, mark] of table) {
    const scanner = new StatementScanner();
    scanner.addLine(text);
    while (scanner.next().kind !== 'more');
    t.equal(scanner.promptMark, mark, text);
  }
});
