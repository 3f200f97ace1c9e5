// From the scripts in scripts/ to what one run sends: keys drawn as the cell says, written for pgbench's query mode, repeated for
// pipelines; and read into a form that loader.mjs can run.

import { existsSync, readFileSync } from 'node:fs';
import { DOCUMENT } from './data.mjs';
import { keyDistributions } from './keys.mjs';

const sourceUrl = (name) => new URL(`scripts/${name}.sql`, import.meta.url);
const RANDOM = /^\\set (\w+) \{random\}$/;

/** The lines of a script; `dialect` "postgres" takes the form for servers asked without pgkv. */
function sourceLines(name, dialect) {
  const own = sourceUrl(`${name}.${dialect}`);
  const text = readFileSync(existsSync(own) ? own : sourceUrl(name), 'utf8');
  return text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('--'));
}

/** The script variables that a run sets from outside. */
export const fixedVariables = (dialect) => ({ tenant: dialect === 'postgres' ? 'direct' : 'bench', doc: DOCUMENT });

/** pgbench puts values into texts as they are with -M simple, so strings need their quotes there. */
const quotedForSimple = (line) =>
  line.replace(/:id::text|:(?:tenant|doc)\b/g, (name) => `'${name.replace('::text', '')}'`);

/**
 * A script for `pgbench -f`.
 * @param {{ dialect: string, mode: string, keys: string, pipeline?: number }} form
 */
export function pgbenchScript(name, { dialect, mode, keys, pipeline }) {
  const lines = sourceLines(name, dialect).map((line) => {
    const [, variable] = line.match(RANDOM) ?? [];
    if (variable !== undefined) return keyDistributions[keys].set(variable);
    return mode === 'simple' ? quotedForSimple(line) : line;
  });
  if (pipeline === undefined) return `${lines.join('\n')}\n`;
  const repeated = Array.from({ length: pipeline }, () => lines).flat();
  return `\\startpipeline\n${repeated.join('\n')}\n\\endpipeline\n`;
}

/**
 * The same for loader.mjs, which knows `{random}`, `\set NAME :OTHER % NUMBER` and one statement a line.
 * @returns {{ sql: string, valuesOf: () => string[] }[]} statements; the first draws anew what the script's variables are
 */
export function loaderScript(name, { dialect, keys }) {
  const variables = new Map(Object.entries(fixedVariables(dialect)));
  const setters = [];
  const statements = [];
  for (const line of sourceLines(name, dialect)) {
    if (line.startsWith('\\')) {
      setters.push(setterOf(line, variables, keyDistributions[keys].draw));
      continue;
    }
    const parameters = [];
    const sql = line.replace(/;\s*$/, '').replace(/(?<!:):([a-z]\w*)/gi, (_, parameter) => {
      parameters.push(parameter);
      return `$${parameters.length}`;
    });
    statements.push({ sql, valuesOf: () => parameters.map((parameter) => String(variables.get(parameter))) });
  }
  const [first] = statements;
  if (first === undefined) throw new Error(`script ${name} holds no statement`);
  const { valuesOf } = first;
  first.valuesOf = () => {
    for (const set of setters) set();
    return valuesOf();
  };
  return statements;
}

function setterOf(line, variables, draw) {
  const [, random] = line.match(RANDOM) ?? [];
  if (random !== undefined) return () => variables.set(random, draw());
  const [, name, other, divisor] = line.match(/^\\set (\w+) :(\w+) % (\d+)$/) ?? [];
  if (name === undefined) throw new Error(`the loader does not know "${line}"`);
  return () => variables.set(name, variables.get(other) % Number(divisor));
}
