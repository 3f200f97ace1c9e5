// Statements that concern key-value tables without naming one as a relation: privileges of a whole schema, sizes by a name in a
// string, queries in a string, two-phase commit. They would take effect on the home shard only, and silently, so that they
// are refused; what belongs to one server by its nature (roles, settings of the database) is run, with a notice.
import type { Node, RangeVar } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import { namePath } from '../meaning/name-path.js';
import { namingCalls } from './calls-with-names.js';
import { isIndexOfTable, type ScopeNames } from './table-names.js';

export interface Concern {
  readonly refusal: Refusal | null;
  readonly notice: string | null;
  /** The value of a literal had a say in it. */
  readonly textDependent: boolean;
}

const ROLES =
  'roles are made, changed and dropped on the home shard only: do the same on the server of every other shard, with the password as pg_authid.rolpassword has it here, or their clients cannot log in';
const here = (what: string): string => `${what} on the home shard only: run it on the server of every other shard, too`;

/** The statement as a whole; whether it names a key-value table besides, is not asked here. */
export function concernOf(node: Node, scope: ScopeNames): Concern {
  const { refusal, byParameter, textDependent } = namingCalls(node, scope);
  const aside = byParameter === null ? null : `${byParameter}() tells of the home shard's part of a key-value table`;
  return {
    refusal: refusalOfKind(node, scope) ?? refusal,
    notice: noticeOfKind(node, scope) ?? aside,
    textDependent,
  };
}

type Wrapped<Type extends string> = Extract<Node, Record<Type, unknown>>;
type Body<Type extends string> = Wrapped<Type> extends Record<Type, infer Content> ? Content : never;

const TWO_PHASE: ReadonlyMap<string, string> = new Map([
  ['TRANS_STMT_PREPARE', 'PREPARE TRANSACTION'],
  ['TRANS_STMT_COMMIT_PREPARED', 'COMMIT PREPARED'],
  ['TRANS_STMT_ROLLBACK_PREPARED', 'ROLLBACK PREPARED'],
]);
/** What key-value tables are made of, and what their functions are written in. */
const EXTENSIONS: ReadonlySet<string> = new Set(['pgkv', 'plpgsql']);
/** Kinds of objects in a schema of which key-value tables have some: no sequences, no types. */
const OWN_KINDS: ReadonlySet<string> = new Set([
  'OBJECT_TABLE',
  'OBJECT_FUNCTION',
  'OBJECT_PROCEDURE',
  'OBJECT_ROUTINE',
  'OBJECT_SCHEMA',
]);

function refusalOfKind(node: Node, scope: ScopeNames): Refusal | null {
  if ('TransactionStmt' in node) {
    const statement = TWO_PHASE.get(node.TransactionStmt.kind ?? '');
    return statement === undefined ? null : refuse('two_phase', { statement });
  }
  if ('GrantStmt' in node) return refusalOfGrant(node.GrantStmt, scope);
  if ('AlterDefaultPrivilegesStmt' in node) return refusalOfDefaults(node.AlterDefaultPrivilegesStmt, scope);
  if ('DropOwnedStmt' in node || 'ReassignOwnedStmt' in node) return refuse('owned_objects');
  if ('AlterTableMoveAllStmt' in node) return refuse('tablespace_move');
  const schema = changedSchemas(node).find((name) => scope.holds(name) || EXTENSIONS.has(name));
  if (schema !== undefined) return refuse('schema_with_tables');
  const extension = changedExtensions(node).find((name) => EXTENSIONS.has(name));
  if (extension !== undefined) return refuse('extension', { name: extension });
  if ('CreatePublicationStmt' in node) {
    return node.CreatePublicationStmt.for_all_tables === true
      ? refuse('publication')
      : refusalOfPublished(node.CreatePublicationStmt.pubobjects, scope);
  }
  if ('AlterPublicationStmt' in node) return refusalOfPublished(node.AlterPublicationStmt.pubobjects, scope);
  const index = changedIndexes(node).find((path) => isIndexOfTable(path, scope));
  return index === undefined ? null : refuse('index_of_table', { name: index.join('.') });
}

const inScope = (nodes: readonly Node[] | undefined, scope: ScopeNames): boolean =>
  namePath(nodes ?? []).some((schema) => scope.holds(schema));

function refusalOfGrant({ targtype, objtype, objects }: Body<'GrantStmt'>, scope: ScopeNames): Refusal | null {
  const isOfSchema = targtype === 'ACL_TARGET_ALL_IN_SCHEMA' || objtype === 'OBJECT_SCHEMA';
  return isOfSchema && OWN_KINDS.has(objtype ?? '') && inScope(objects, scope) ? refuse('schema_privileges') : null;
}

/** Without IN SCHEMA they are for all schemas. */
function refusalOfDefaults({ action, options }: Body<'AlterDefaultPrivilegesStmt'>, scope: ScopeNames): Refusal | null {
  if (!OWN_KINDS.has(action?.objtype ?? '') || action?.objtype === 'OBJECT_SCHEMA') return null;
  const schemas = (options ?? []).flatMap((option) => {
    if (!('DefElem' in option) || option.DefElem.defname !== 'schemas') return [];
    const { arg } = option.DefElem;
    return arg !== undefined && 'List' in arg ? (arg.List.items ?? []) : [];
  });
  return schemas.length === 0 || inScope(schemas, scope) ? refuse('default_privileges') : null;
}

function changedSchemas(node: Node): readonly string[] {
  if ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_SCHEMA') return [node.RenameStmt.subname ?? ''];
  if ('AlterOwnerStmt' in node && node.AlterOwnerStmt.objectType === 'OBJECT_SCHEMA') {
    return namePath(node.AlterOwnerStmt.object === undefined ? [] : [node.AlterOwnerStmt.object]);
  }
  if ('DropStmt' in node && node.DropStmt.removeType === 'OBJECT_SCHEMA') return namePath(node.DropStmt.objects ?? []);
  return [];
}

function changedExtensions(node: Node): readonly string[] {
  if ('AlterExtensionStmt' in node) return [node.AlterExtensionStmt.extname ?? ''];
  if ('AlterExtensionContentsStmt' in node) return [node.AlterExtensionContentsStmt.extname ?? ''];
  if ('AlterObjectSchemaStmt' in node && node.AlterObjectSchemaStmt.objectType === 'OBJECT_EXTENSION') {
    return namePath(node.AlterObjectSchemaStmt.object === undefined ? [] : [node.AlterObjectSchemaStmt.object]);
  }
  const dropped = 'DropStmt' in node ? node.DropStmt : null;
  const isOurs = dropped?.removeType === 'OBJECT_EXTENSION' || dropped?.removeType === 'OBJECT_LANGUAGE';
  return isOurs ? namePath(dropped?.objects ?? []) : [];
}

function refusalOfPublished(objects: readonly Node[] | undefined, scope: ScopeNames): Refusal | null {
  const concerns = (objects ?? []).some((object) => {
    if (!('PublicationObjSpec' in object)) return false;
    const { pubobjtype, name } = object.PublicationObjSpec;
    if (pubobjtype === 'PUBLICATIONOBJ_TABLES_IN_CUR_SCHEMA') return true;
    return pubobjtype === 'PUBLICATIONOBJ_TABLES_IN_SCHEMA' && scope.holds(name ?? '');
  });
  return concerns ? refuse('publication') : null;
}

const pathOf = ({ schemaname, relname }: RangeVar): readonly string[] =>
  schemaname === undefined ? [relname ?? ''] : [schemaname, relname ?? ''];

/** Names of indexes in statements about indexes. */
function changedIndexes(node: Node): readonly (readonly string[])[] {
  const relation =
    'ReindexStmt' in node && node.ReindexStmt.kind === 'REINDEX_OBJECT_INDEX'
      ? node.ReindexStmt.relation
      : 'RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_INDEX'
        ? node.RenameStmt.relation
        : 'AlterTableStmt' in node && node.AlterTableStmt.objtype === 'OBJECT_INDEX'
          ? node.AlterTableStmt.relation
          : undefined;
  if (relation !== undefined) return [pathOf(relation)];
  const objects =
    'DropStmt' in node && node.DropStmt.removeType === 'OBJECT_INDEX'
      ? node.DropStmt.objects
      : 'CommentStmt' in node && node.CommentStmt.objtype === 'OBJECT_INDEX'
        ? [node.CommentStmt.object]
        : [];
  return (objects ?? []).map((object) =>
    object !== undefined && 'List' in object ? namePath(object.List.items ?? []) : [],
  );
}

const SHARED_OBJECTS: ReadonlySet<string> = new Set(['OBJECT_DATABASE', 'OBJECT_PARAMETER_ACL', 'OBJECT_TABLESPACE']);
const ROLE_STATEMENTS: ReadonlySet<string> = new Set([
  'CreateRoleStmt',
  'AlterRoleStmt',
  'AlterRoleSetStmt',
  'DropRoleStmt',
  'GrantRoleStmt',
]);
const SERVER_STATEMENTS: ReadonlySet<string> = new Set([
  'AlterDatabaseStmt',
  'AlterDatabaseSetStmt',
  'AlterSystemStmt',
  'CreateSubscriptionStmt',
]);

/** Run on the home shard, as it was asked for; the client is told what that does not do. */
function noticeOfKind(node: Node, scope: ScopeNames): string | null {
  const kind = Object.keys(node)[0] ?? '';
  if (ROLE_STATEMENTS.has(kind)) return ROLES;
  if ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_ROLE') return ROLES;
  if (SERVER_STATEMENTS.has(kind)) return here('this statement takes effect');
  if ('GrantStmt' in node && SHARED_OBJECTS.has(node.GrantStmt.objtype ?? '')) return here('privileges are changed');
  if ('VacuumStmt' in node && node.VacuumStmt.rels === undefined) {
    return here(node.VacuumStmt.is_vacuumcmd === true ? 'tables are vacuumed' : 'tables are analyzed');
  }
  if ('ClusterStmt' in node && node.ClusterStmt.relation === undefined) return here('tables are clustered');
  if ('ReindexStmt' in node && node.ReindexStmt.relation === undefined) {
    const { kind: reindexed, name } = node.ReindexStmt;
    return reindexed !== 'REINDEX_OBJECT_SCHEMA' || scope.holds(name ?? '') ? here('indexes are rebuilt') : null;
  }
  return null;
}
