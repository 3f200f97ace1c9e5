// What the extension's script makes, object by object, against what a database has of it: what was dropped by hand, or lost in a
// restore, is named by doctor, and made anew by init. Read from the script itself, so that there is no second list of it. What
// DO blocks make is not seen in it, but for owned_slots().
import type { Node, TypeName } from 'libpg-query';
import { namePath } from '../../sql/meaning/name-path.js';
import { loadParser, parse } from '../../sql/meaning/parse.js';
import { CommandFailure } from '../command-failure.js';
import type { DriverClient } from '../connect.js';
import { type ExtensionSource, type InstalledExtension, installedExtension, runScript } from './extension.js';
import type { ShardConnection } from './shard-connection.js';

type Kind = 'function' | 'relation' | 'column' | 'key' | 'trigger';

/** `of`: the relation of a column or trigger; the body of a function, where it is a string. */
interface ExtensionObject {
  readonly kind: Kind;
  readonly name: string;
  readonly of: string | null;
}

const OWNED_SLOTS: ExtensionObject = { kind: 'function', name: 'pgkv.owned_slots()', of: null };

export async function extensionObjects({ sql }: ExtensionSource): Promise<readonly ExtensionObject[]> {
  await loadParser();
  const parsed = parse(sql);
  if (parsed.kind === 'failed') throw new Error(`the script of the extension cannot be read: ${parsed.message}`);
  return [OWNED_SLOTS, ...parsed.statements.flatMap(({ node }) => objectsOf(node))];
}

function objectsOf(node: Node): ExtensionObject[] {
  if ('CreateFunctionStmt' in node) {
    const { funcname = [], parameters = [], options = [] } = node.CreateFunctionStmt;
    const types = parameters.flatMap((parameter) => {
      const { mode, argType } = 'FunctionParameter' in parameter ? parameter.FunctionParameter : {};
      return argType === undefined || mode === 'FUNC_PARAM_TABLE' || mode === 'FUNC_PARAM_OUT'
        ? []
        : [typeText(argType)];
    });
    const body = options.flatMap((option) =>
      'DefElem' in option && option.DefElem.defname === 'as' ? stringsIn(option.DefElem.arg) : [],
    );
    return [{ kind: 'function', name: `${namePath(funcname).join('.')}(${types.join(', ')})`, of: body[0] ?? null }];
  }
  if ('CreateSeqStmt' in node) return relation(node.CreateSeqStmt.sequence);
  if ('ViewStmt' in node) return relation(node.ViewStmt.view);
  if ('IndexStmt' in node) {
    const { idxname, relation: table } = node.IndexStmt;
    return relation({ ...table, relname: idxname ?? '' });
  }
  if ('CreateTrigStmt' in node) {
    const { trigname = '', relation: table } = node.CreateTrigStmt;
    return [{ kind: 'trigger', name: trigname, of: nameOf(table) }];
  }
  if ('CreateStmt' in node) {
    const table = nameOf(node.CreateStmt.relation);
    const columns = (node.CreateStmt.tableElts ?? []).flatMap((element) => column(element, table));
    return [...relation(node.CreateStmt.relation), { kind: 'key', name: table, of: null }, ...columns];
  }
  if (!('AlterTableStmt' in node)) return [];
  const table = nameOf(node.AlterTableStmt.relation);
  return (node.AlterTableStmt.cmds ?? []).flatMap((command) =>
    'AlterTableCmd' in command && command.AlterTableCmd.def !== undefined
      ? column(command.AlterTableCmd.def, table)
      : [],
  );
}

type Relation = { readonly schemaname?: string; readonly relname?: string } | undefined;

const nameOf = (named: Relation): string => `${named?.schemaname}.${named?.relname}`;
const relation = (named: Relation): ExtensionObject[] => [{ kind: 'relation', name: nameOf(named), of: null }];
const column = (element: Node, of: string): ExtensionObject[] =>
  'ColumnDef' in element ? [{ kind: 'column', name: element.ColumnDef.colname ?? '', of }] : [];

/** As to_regprocedure() reads it; the parser spells SQL's own types as pg_catalog's. */
const typeText = ({ names = [], arrayBounds = [] }: TypeName): string =>
  `${namePath(names).join('.')}${arrayBounds.map(() => '[]').join('')}`;

const stringsIn = (node: Node | undefined): string[] =>
  node !== undefined && 'List' in node ? namePath(node.List.items ?? []) : [];

const MISSING = `
  SELECT o.place::int
    FROM ROWS FROM (unnest($1::text[]), unnest($2::text[]), unnest($3::text[])) WITH ORDINALITY AS o (kind, name, part, place)
   WHERE CASE o.kind
     WHEN 'function' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_proc p
       WHERE p.oid = pg_catalog.to_regprocedure(o.name) AND (o.part IS NULL OR p.prosrc = o.part))
     WHEN 'relation' THEN pg_catalog.to_regclass(o.name) IS NULL
     WHEN 'column' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
       WHERE a.attrelid = pg_catalog.to_regclass(o.part) AND a.attname = o.name AND NOT a.attisdropped)
     WHEN 'key' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_index i
       WHERE i.indrelid = pg_catalog.to_regclass(o.name) AND i.indisprimary)
     ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g
       WHERE g.tgrelid = pg_catalog.to_regclass(o.part) AND g.tgname = o.name AND g.tgenabled <> 'D') END
   ORDER BY 1`;

/** What the database lacks, or has otherwise, in words: "function pgkv.beat()". */
export async function missingObjects(client: DriverClient, source: ExtensionSource): Promise<readonly string[]> {
  const objects = await extensionObjects(source);
  const { rows } = await client.query<{ place: number }>(MISSING, [
    objects.map(({ kind }) => kind),
    objects.map(({ name }) => name),
    objects.map(({ of }) => of),
  ]);
  const missing = rows.map(({ place }) => objects[place - 1]!);
  const gone = new Set(missing.filter(({ kind }) => kind === 'relation').map(({ name }) => name));
  return missing
    .filter(({ kind, name, of }) => !gone.has(kind === 'key' ? name : kind === 'relation' ? '' : (of ?? '')))
    .map(inWords);
}

function inWords({ kind, name, of }: ExtensionObject): string {
  switch (kind) {
    case 'function':
      return `function ${name.replaceAll('pg_catalog.', '')}`;
    case 'column':
      return `column ${of}.${name}`;
    case 'key':
      return `primary key of ${name}`;
    case 'trigger':
      return `trigger ${name} of ${of}`;
    case 'relation':
      return name;
  }
}

/** CREATE TABLE IF NOT EXISTS leaves a table as it is. @throws CommandFailure for one that is not whole, before it is read */
export async function requireWholeTables({ name, client }: ShardConnection, source: ExtensionSource): Promise<void> {
  const installed = await installedExtension(client);
  if (installed.kind === 'none' || installed.version !== source.version) return;
  const missing = await missingObjects(client, source);
  const ofTables = missing.filter((text) => /^(?:column|primary key) /.test(text));
  if (ofTables.length > 0) throw new CommandFailure(1, lacking(name, missing, source), tableAdvice(ofTables));
}

const lacking = (shard: string, missing: readonly string[], { version }: ExtensionSource): string =>
  `shard ${shard} lacks, or has otherwise than version ${version} of the extension pgkv: ${missing.join(', ')}`;

/**
 * Makes anew what is missing, in the transaction of the caller.
 * @returns what that was
 * @throws CommandFailure where the script alone cannot
 */
export async function restoreObjects(
  { name, client }: ShardConnection,
  installed: InstalledExtension['kind'],
  source: ExtensionSource,
): Promise<readonly string[]> {
  const missing = await missingObjects(client, source);
  if (missing.length === 0) return missing;
  if (installed === 'extension') {
    // Its members cannot be dropped by accident, nor made anew but by its own scripts.
    const hint =
      `As a superuser: make them as extensions/pgkv/pgkv--${source.version}.sql does, and add each to the extension: ` +
      'ALTER EXTENSION pgkv ADD FUNCTION … (or TABLE, SEQUENCE, VIEW).';
    throw new CommandFailure(1, lacking(name, missing, source), hint);
  }
  await runScript(client, source);
  return missing;
}

function tableAdvice(missing: readonly string[]): string {
  const tables = [...new Set(missing.flatMap((text) => /pgkv\.\w+/.exec(text) ?? []))];
  const drops = tables.map((table) => `DROP TABLE ${table}`).join('; ');
  const prepared = tables.includes('pgkv.decisions')
    ? ' Before that, see that no transaction over several shards is prepared on any of them (pg_prepared_xacts): it holds their decisions.'
    : '';
  return `What these tables hold is made anew: ${drops}; then run pgkv init again.${prepared}`;
}
