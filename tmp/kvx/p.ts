import { loadParser, parse } from '../../src/sql/parse.js';
await loadParser();
const t = "select key from kv where tenant_id = 'acme' and key = 'k' -- continued\n '01'";
const show = () => console.log(JSON.stringify(parse(t)).slice(0, 160));
show(); show();
parse("select key from kv order by key nulls /* c */ last");
show();
for (const x of ["select 1", "select 'a'\n'b'", "syntax error", "select 'unterminated", "select $$x", "select /* c"]) { parse(x); process.stdout.write(x.replace('\n','/')+': '); show(); }
