// What statements without a rule of their own do, by the type of their node: mostly DDL. Tables, views, functions, types
// and whatever else lives in a schema may be temporary (search_path may begin with pg_temp, ALTER and DROP may name a
// temporary one): Effect.temporary. What belongs to the database or the cluster cannot be.
import { Effect, type EffectBits, type StatementKind } from '../plan/template.js';

export interface UtilityRule {
  readonly kind: StatementKind;
  readonly effects: EffectBits;
}

const RULES: readonly (readonly [StatementKind, EffectBits, string])[] = [
  [
    'schema',
    Effect.schema | Effect.temporary,
    `CreateStmt CreateSchemaStmt AlterTableStmt IndexStmt ViewStmt CreateSeqStmt AlterSeqStmt CreateFunctionStmt
    AlterFunctionStmt RenameStmt AlterObjectSchemaStmt AlterObjectDependsStmt AlterOwnerStmt DropStmt DropOwnedStmt
    ReassignOwnedStmt RuleStmt CreateTrigStmt CreateDomainStmt AlterDomainStmt CompositeTypeStmt CreateEnumStmt
    CreateRangeStmt AlterEnumStmt AlterTypeStmt DefineStmt CreateOpClassStmt CreateOpFamilyStmt AlterOpFamilyStmt
    AlterOperatorStmt AlterCollationStmt CreateConversionStmt CreateStatsStmt AlterStatsStmt AlterTSDictionaryStmt
    AlterTSConfigurationStmt CreatePolicyStmt AlterPolicyStmt CreateForeignTableStmt CreateCastStmt
    CreateTransformStmt`,
  ],
  [
    'schema',
    Effect.schema,
    `AlterTableMoveAllStmt GrantStmt GrantRoleStmt AlterDefaultPrivilegesStmt CreateFdwStmt AlterFdwStmt
    CreateForeignServerStmt AlterForeignServerStmt CreateUserMappingStmt AlterUserMappingStmt DropUserMappingStmt
    CreatePublicationStmt AlterPublicationStmt CreateSubscriptionStmt AlterSubscriptionStmt DropSubscriptionStmt
    CreateEventTrigStmt AlterEventTrigStmt CreateAmStmt CommentStmt SecLabelStmt`,
  ],
  // No statement means anything else behind them, and no code comes with them: defaults of settings are those of later sessions.
  [
    'schema',
    Effect.none,
    `CreatedbStmt DropdbStmt AlterDatabaseStmt AlterDatabaseRefreshCollStmt AlterDatabaseSetStmt CreateTableSpaceStmt
    DropTableSpaceStmt AlterTableSpaceOptionsStmt CreateRoleStmt AlterRoleStmt AlterRoleSetStmt DropRoleStmt`,
  ],
  // They run an extension's script, a language's handler, a foreign server's code.
  [
    'schema',
    Effect.schema | Effect.state | Effect.unknown,
    `CreateExtensionStmt AlterExtensionStmt AlterExtensionContentsStmt CreatePLangStmt ImportForeignSchemaStmt`,
  ],
  ['other', Effect.schema | Effect.state | Effect.unknown, 'DoStmt CallStmt'],
  ['write', Effect.none, 'TruncateStmt'],
  ['other', Effect.state, 'ListenStmt UnlistenStmt ClosePortalStmt'],
  ['other', Effect.sticky, 'LoadStmt'],
  // Nothing outlives their transaction but what they change on disk. Expressions of indexes, views and statistics run
  // in an operation that Postgres confines: settings are put back, temporary objects refused.
  [
    'other',
    Effect.none,
    `LockStmt ConstraintsSetStmt CheckPointStmt NotifyStmt FetchStmt VacuumStmt ClusterStmt ReindexStmt
    RefreshMatViewStmt AlterSystemStmt`,
  ],
];

const BY_NODE: ReadonlyMap<string, UtilityRule> = new Map(
  RULES.flatMap(([kind, effects, list]) => list.split(/\s+/).map((node) => [node, { kind, effects }] as const)),
);

export const utilityRule = (nodeType: string): UtilityRule | undefined => BY_NODE.get(nodeType);
