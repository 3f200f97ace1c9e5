import { KV_THEMES } from '../../test/differential/kv-themes.js';
const [name, step] = process.argv.slice(2);
for (const theme of KV_THEMES) for (const s of theme.scenarios) if (s.name === name) console.log(JSON.stringify(s.steps[Number(step) - 1]));
