// From a TOML text to Settings, or to all its problems at once, each with its line. One pass per concern: syntax,
// schema, rules across fields, files and secrets; snake_case ends here.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { messageOf, PgkvError } from '../base/errors.js';
import { camelKeys, snakeKeys } from './camel-keys.js';
import { crossCheck } from './cross-check.js';
import { fileFaults } from './file-faults.js';
import { type Fault, keyText, type Problem, schemaFaults } from './problems.js';
import { resolveSecret, Secret, type SecretResult, type SecretSources } from './secrets.js';
import { type FileSettings, type Settings, type SettingsOverrides, settingsSchema } from './settings.js';
import { evenSlotRanges, type SlotRange } from './slot-ranges.js';
import { keyLines } from './toml-lines.js';

export type LoadResult =
  | { readonly ok: true; readonly settings: Settings }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** More syntax errors than this are consequences of the first ones. */
const SYNTAX_PROBLEMS_MAX = 20;

const NO_SHARD: Fault = {
  path: ['shards'],
  message: 'no shard: add [[shards]] with a name and [[shards.nodes]] with a host',
};

const systemSources: SecretSources = {
  environment: process.env,
  readFile: (file) => readFileSync(file, 'utf8'),
};

/**
 * Reads settings. Relative paths in the text are relative to the folder of `fileName`; certificate, key, authority and
 * password files are read here, so that a missing one is a problem now and not at the first login.
 */
export function loadSettings(text: string, fileName: string, sources: SecretSources = systemSources): LoadResult {
  const readable = text.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n');
  const syntax = parseLeniently(readable, fileName);
  const lines = keyLines(syntax.accepted);
  const problems = [...syntax.problems];
  const report = (faults: readonly Fault[]) => {
    for (const fault of faults) {
      const line = lines.lineOf(fault.path);
      problems.push({ file: fileName, line, key: keyText(fault.path), message: fault.message });
    }
  };
  const failed = (): LoadResult => ({ ok: false, problems: problems.sort((left, right) => left.line - right.line) });

  const checked = settingsSchema.safeParse(syntax.document);
  if (!checked.success) {
    const faults = schemaFaults(checked.error, syntax.document);
    // Where lines had to be left out, what they would have given is not missing.
    report(faults.filter((fault) => syntax.problems.length === 0 || !fault.isMissing));
  }
  // What was left out might have satisfied a rule that seems broken now.
  if (syntax.problems.length > 0) return failed();
  const folder = path.dirname(path.resolve(fileName));
  const complete = checked.success ? absolutePaths(checked.data, folder) : null;
  const sound = complete ?? absolutePaths(soundSections(syntax.document), folder);
  if (sound.shards?.length === 0) report([NO_SHARD]);
  report(crossCheck(sound));
  report(fileFaults(sound, (file) => sources.readFile(file)));
  const passwords = { service: null as Secret | null, recover: null as Secret | null };
  for (const role of ['service', 'recover'] as const) {
    const found: SecretResult = sound.auth === undefined ? { kind: 'none' } : resolveSecret(sound.auth[role], sources);
    if (found.kind === 'fault') report([{ path: ['auth', role, found.key], message: found.message }]);
    if (found.kind === 'found') passwords[role] = found.secret;
  }
  if (complete === null || problems.length > 0) return failed();
  return { ok: true, settings: completeSettings(complete, passwords) };
}

/** Of a document with faults, the sections that have none. */
function soundSections(document: unknown): Partial<FileSettings> {
  const given = document as Readonly<Record<string, unknown>>;
  const sound: Record<string, unknown> = {};
  for (const [name, schema] of Object.entries(settingsSchema.shape)) {
    const section = schema.safeParse(given[name]);
    if (section.success) sound[name] = section.data;
  }
  return sound;
}

/**
 * Settings without a file, for `pgkv dev` and tests: the defaults with `overrides`, held to the same rules (no
 * shard is needed). Throws `internal`, since wrong overrides are a mistake of the program.
 */
export function defaultSettings(overrides: SettingsOverrides = {}, servicePassword?: string): Settings {
  const document = snakeKeys(overrides);
  const checked = settingsSchema.safeParse(document);
  const faults = checked.success ? crossCheck(checked.data) : schemaFaults(checked.error, document);
  if (!checked.success || faults.length > 0) {
    const problems = faults.map((fault) => `${keyText(fault.path)}: ${fault.message}`);
    throw new PgkvError('internal', { message: `internal error: wrong settings: ${problems.join('; ')}` });
  }
  const service = servicePassword === undefined ? null : new Secret(servicePassword);
  return completeSettings(checked.data, { service, recover: null });
}

interface LenientDocument {
  readonly document: unknown;
  /** The text smol-toml accepted: the original with faulty lines blanked, so that line numbers hold. */
  readonly accepted: string;
  readonly problems: readonly Problem[];
}

/** smol-toml stops at its first error: the line at fault is blanked and the rest read again, to find the others. */
function parseLeniently(text: string, file: string): LenientDocument {
  const problems: Problem[] = [];
  const lines = text.split('\n');
  while (problems.length < SYNTAX_PROBLEMS_MAX) {
    const accepted = lines.join('\n');
    try {
      return { document: parse(accepted), accepted, problems };
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      const index = Math.min(error.line, lines.length) - 1;
      const [summary = ''] = messageOf(error).replace('Invalid TOML document: ', '').split('\n');
      const isUnclosed = lines[index] === '' || index === lines.length - 1;
      problems.push({
        file,
        line: index + 1,
        key: '',
        message: `not valid TOML at column ${error.column}: ${summary}`,
      });
      // An error at an empty line or at the end belongs to something unclosed further up: there is no line to leave out.
      if (isUnclosed) break;
      blankStatement(lines, index);
    }
  }
  return { document: {}, accepted: '', problems };
}

/** Blanks a line; of a table header also what follows it, which would otherwise fall to the table before. */
function blankStatement(lines: string[], index: number): void {
  const isHeader = lines[index]?.trimStart().startsWith('[') ?? false;
  lines[index] = '';
  if (!isHeader) return;
  for (let next = index + 1; next < lines.length && !lines[next]?.trimStart().startsWith('['); next++) lines[next] = '';
}

function absolutePaths<File extends Partial<FileSettings>>(file: File, folder: string): File {
  const absolute = (given: string | null) => (given === null ? null : path.resolve(folder, given));
  const { listen, catalog, servers, tls, auth } = file;
  const service = auth && { ...auth.service, password_file: absolute(auth.service.password_file) };
  const recover = auth && { ...auth.recover, password_file: absolute(auth.recover.password_file) };
  return {
    ...file,
    ...(listen && { listen: { ...listen, socket_dir: absolute(listen.socket_dir) } }),
    ...(catalog && { catalog: { ...catalog, path: absolute(catalog.path) } }),
    ...(servers && { servers: { ...servers, tls_ca_file: absolute(servers.tls_ca_file) } }),
    ...(tls && { tls: { ...tls, cert_file: absolute(tls.cert_file), key_file: absolute(tls.key_file) } }),
    ...(auth && { auth: { ...auth, service, recover } }),
  };
}

function completeSettings(
  file: FileSettings,
  passwords: Readonly<Record<'service' | 'recover', Secret | null>>,
): Settings {
  const even = evenSlotRanges(file.shards.length);
  const { auth, ...rest } = camelKeys(file);
  return {
    ...rest,
    shards: rest.shards.map(({ name, slots, nodes }, index) => ({
      name,
      slots: (slots as readonly SlotRange[] | undefined) ?? [even[index] as SlotRange],
      nodes,
    })),
    auth: {
      ...auth,
      service: { ...auth.service, password: passwords.service },
      recover: { ...auth.recover, password: passwords.recover },
    },
  };
}
