import { KV_THEMES } from '../../test/differential/kv-themes.js';
import { statementsOf, modesOf } from '../../test/differential/scenario.js';
let steps = 0, plays = 0;
for (const th of KV_THEMES) { let n=new Set<string>(); for (const s of th.scenarios) { for (const x of statementsOf(s)) n.add(x); steps += s.steps.length; plays += s.steps.length*modesOf(s).length; } console.log(th.name, th.scenarios.length, n.size); }
const all = new Set(KV_THEMES.flatMap((th) => th.scenarios.flatMap(statementsOf)));
const refused = new Set(KV_THEMES.flatMap((th) => th.scenarios.flatMap((s) => s.steps.flatMap((x: any) => x.refused !== undefined ? [x.sql ?? JSON.stringify(x.send)] : []))));
console.log('distinct', all.size, 'steps', steps, 'plays', plays, 'refused', refused.size);
