// The error catalogue, the README's table of errors and the code agree.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ERRORS } from '../../src/base/errors.js';
import { PROJECT_ROOT } from '../support/project-root.js';

const ROOT = PROJECT_ROOT;

function texts(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? texts(path) : [readFileSync(path, 'utf8')];
  });
}

t.test('every entry of the catalogue is raised somewhere', async (t) => {
  const code = texts(join(ROOT, 'src')).join('\n');
  for (const name of Object.keys(ERRORS)) {
    t.ok(code.includes(`'${name}'`), name);
  }
});

t.test('the README lists SQLSTATE and retry class of every entry that is raised', async (t) => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  for (const { sqlstate, retry } of Object.values(ERRORS)) {
    const row = readme.split('\n').find((line) => line.startsWith(`| \`${sqlstate}\``));
    t.ok(row, `${sqlstate} has a row`);
    t.ok(row?.includes(retry), `${sqlstate} says ${retry}`);
  }
});
