// What the doctor concludes where a real server cannot be made ill on purpose: clocks, releases, replicas.
import t from 'tap';
import type { CatalogState } from '../../../src/catalog/catalog-state.js';
import { diagnose, type ShardExamination, type ShardReport } from '../../../src/cli/cluster/diagnosis.js';
import type { LoginRoles } from '../../../src/cli/cluster/login-roles.js';
import type { RowCounts } from '../../../src/cli/cluster/row-check.js';
import type { ServerFacts } from '../../../src/cli/cluster/server-facts.js';
import { defaultSettings } from '../../../src/config/load.js';

const FACTS: ServerFacts = {
  major: 18,
  version: '18.4',
  encoding: 'UTF8',
  collation: 'C',
  sortsByBytes: true,
  inRecovery: false,
  identity: '1/1',
  systemIdentifier: '1',
  connectionsMax: 100,
  connectionsReserved: 3,
  preparedTransactionsMax: 10,
  clockOffsetMs: 0,
  clockDoubtMs: 1,
};
const CATALOG: CatalogState = {
  epoch: 1,
  clusterId: 'c1',
  database: 'kv',
  shards: [
    { name: 'a', hashSlots: [[0, 8191]] },
    { name: 'b', hashSlots: [[8192, 16383]] },
  ],
  tables: [],
};
const settings = defaultSettings({ shards: ['a', 'b'].map((name) => ({ name, nodes: [{ host: `host-${name}` }] })) });

const role = (name: string, verifierHash: string | null = 'one', isSuperuser = false) => ({
  name,
  verifierHash,
  isSuperuser,
  isMd5: false,
});
const ROLES: LoginRoles = {
  withVerifiers: true,
  roles: [role('alice'), role('pgkv_service'), role('root', null, true)],
};

function examination(index: number, facts: Partial<ServerFacts>, roles = ROLES): ShardExamination {
  const shard = CATALOG.shards[index]!;
  const report = {
    facts: { ...FACTS, identity: `${index}`, ...facts },
    extension: { kind: 'extension', version: '0.1.0' } as const,
    state: { ...shard, epoch: 1, clusterId: 'c1' },
    tables: [],
    roles,
    rows: [],
    functions: [],
    missing: [],
    mayBeat: true,
    recovery: { exists: true, maySettle: true, unrecoverable: [], grantable: [], orphans: [] },
    service: null,
    login: 'present',
  };
  return { place: { name: shard.name, primary: { host: `host-${shard.name}`, port: 5432 } }, report };
}

function illness(a: Partial<ServerFacts>, b: Partial<ServerFacts> = {}): string[] {
  return diagnose(settings, CATALOG, '0.1.0', [examination(0, a), examination(1, b)])
    .filter(({ severity }) => severity === 'wrong' || severity === 'warning')
    .map(({ severity, shard, check }) => `${severity} ${shard} ${check}`);
}

t.test('clocks: against this machine, against one another, and not beyond what is known', async (t) => {
  t.strictSame(illness({}), []);
  t.strictSame(illness({ clockOffsetMs: 499 }), []);
  t.strictSame(illness({ clockOffsetMs: -600 }), ['warning a clock', 'warning null clock']);
  t.strictSame(illness({ clockOffsetMs: -300 }, { clockOffsetMs: 300 }), ['warning null clock']);
  t.strictSame(illness({ clockOffsetMs: 600 }, { clockOffsetMs: 600 }), ['warning a clock', 'warning b clock']);
  t.strictSame(illness({ clockOffsetMs: 600, clockDoubtMs: 200 }), [], 'an answer that took 400 ms proves nothing');
});

t.test('releases of 15 to 18, primaries, one server for each shard', async (t) => {
  for (const major of [15, 16, 17, 18]) t.strictSame(illness({ major }), []);
  for (const major of [14, 19]) t.strictSame(illness({ major }), ['wrong a version']);
  t.strictSame(illness({ inRecovery: true }), ['wrong a primary']);
  t.strictSame(illness({ identity: 'x' }, { identity: 'x' }), ['wrong null reach']);
});

t.test('connections: exactly as many as fit are fine', async (t) => {
  t.strictSame(illness({ connectionsMax: 27 }), []);
  t.strictSame(illness({ connectionsMax: 26 }), ['wrong a connections']);
});

t.test('roles of the home shard have to be the same on the others', async (t) => {
  const told = (there: LoginRoles, home = ROLES, method: 'scram-sha-256' | 'trust' = 'scram-sha-256'): string[] =>
    diagnose({ ...settings, auth: { ...settings.auth, method } }, CATALOG, '0.1.0', [
      examination(0, {}, home),
      examination(1, {}, there),
    ])
      .filter(({ check }) => check === 'roles')
      .map(({ severity, shard, message }) => `${severity} ${shard} ${message}`);
  const withRoles = (...roles: LoginRoles['roles']): LoginRoles => ({ withVerifiers: true, roles });
  const [alice, service, root] = ROLES.roles as [
    LoginRoles['roles'][0],
    LoginRoles['roles'][0],
    LoginRoles['roles'][0],
  ];
  t.strictSame(told(ROLES), ['ok b those of shard a may log in']);
  t.strictSame(told(withRoles(alice, role('pgkv_service', 'two'), root, role('eve'))), [
    'ok b those of shard a may log in',
  ]);
  t.strictSame(told(withRoles(service, root)), ['warning b of shard a, these may not log in here: alice']);
  t.strictSame(told(withRoles(alice, service)), ['info b of shard a, these may not log in here: root']);
  const changed = withRoles(role('alice', 'two'), service, root);
  t.strictSame(told(changed), [
    `warning b stored passwords differ from shard a's (copy rolpassword: set anew it has another salt): alice`,
  ]);
  t.strictSame(told(changed, ROLES, 'trust'), ['ok b those of shard a may log in']);
  const unseen = { ...ROLES, withVerifiers: false };
  t.strictSame(told(unseen), ['ok b those of shard a may log in (passwords are compared for superusers only)']);
  const many = withRoles(...'stuvwxyz'.split('').map((name) => role(name)));
  t.strictSame(told(withRoles(), many), ['warning b of shard a, these may not log in here: s, t, u, v, w and 3 more']);
});

t.test('another version of the extension', async (t) => {
  const findings = diagnose(settings, CATALOG, '0.3.0', [examination(0, {})]);
  t.match(
    findings.find(({ check }) => check === 'extension'),
    { severity: 'wrong', message: 'pgkv 0.1.0, this program needs 0.3.0: run pgkv init again' },
  );
});

/** What is told of shard b where its report differs from that of a healthy shard. */
function toldOfB(report: Partial<ShardReport>, catalog = CATALOG): string[] {
  const b = examination(1, {});
  if (typeof b.report === 'string') throw new Error('b answers');
  const findings = diagnose(settings, catalog, '0.1.0', [
    examination(0, {}),
    { ...b, report: { ...b.report, ...report } },
  ]);
  return findings
    .filter(({ shard, severity }) => shard === 'b' && severity !== 'ok' && severity !== 'info')
    .map(({ severity, check, message }) => `${severity} ${check}: ${message}`);
}

t.test('a server of another cluster, or another one than the catalogue knows, is told', async (t) => {
  t.strictSame(toldOfB({}), []);
  const state = { ...CATALOG.shards[1]!, epoch: 1 };
  t.strictSame(toldOfB({ state: { ...state, clusterId: 'c2' } }), [
    'wrong state: belongs to another cluster: c2, not c1',
  ]);
  t.strictSame(toldOfB({ state }), ['wrong state: belongs to another cluster: none, not c1']);
  const known = { ...CATALOG, shards: CATALOG.shards.map((shard) => ({ ...shard, systemIdentifier: '1' })) };
  t.strictSame(toldOfB({}, known), []);
  t.strictSame(toldOfB({ facts: { ...FACTS, identity: '1', systemIdentifier: '2' } }, known), [
    'wrong state: is another server than the catalogue knows: 2, not 1',
  ]);
  const { clusterId: _, ...unnamed } = CATALOG;
  t.match(toldOfB({ state }, unnamed), ['warning state: the cluster has no id yet']);
});

t.test('rows that are not where they belong are counted, each kind', async (t) => {
  const catalog = { ...CATALOG, tables: [{ schema: 'public', name: 'kv', valueType: 'jsonb' } as const] };
  const told = (rows: RowCounts | string) =>
    toldOfB({ tables: [null], rows: [rows] }, catalog).filter((text) => / rows: /.test(text));
  const counts = { examined: 9, isWhole: true, wrongSlot: 0, notOwned: 0 };
  const columns = ['tenant_id text COLLATE "C" NOT NULL', 'key text COLLATE "C" NOT NULL', 'version bigint NOT NULL'];
  columns.push('value jsonb', 'ttl timestamp with time zone', 'updated_at timestamp with time zone NOT NULL');
  columns.push('slot integer NOT NULL');
  const table = { columns, constraints: ['kv_pkey PRIMARY KEY (tenant_id, key, slot)'], indexes: [], triggers: [] };
  const ofTable = (rows: RowCounts | string) =>
    toldOfB({ tables: [table], rows: [rows] }, catalog).filter((text) => / rows: /.test(text));
  t.strictSame(told(counts), [], 'a table that is missing is told as that');
  t.strictSame(ofTable(counts), []);
  t.strictSame(ofTable({ ...counts, wrongSlot: 2, notOwned: 3, isWhole: false }), [
    "wrong rows: public.kv: 2 of 9 looked at (a sample) have a hash slot that is not their key's",
    'wrong rows: public.kv: 3 of 9 looked at (a sample) have hash slots of other shards',
  ]);
  t.strictSame(ofTable('permission denied'), ['warning rows: public.kv: permission denied']);
});

t.test('the functions of auth.sql', async (t) => {
  t.strictSame(toldOfB({ login: null }), []);
  t.match(toldOfB({ login: 'old' }), [/^warning auth: has pgkv\.role_verifier of an older pgkv.*auth\.sql/]);
  t.strictSame(toldOfB({ login: 'none' }), ['wrong auth: config/auth.sql has not been run in its database postgres']);
  t.match(toldOfB({ login: 'no such database' }), [/^warning auth: .*: no such database$/]);
});

t.test('who could finish transactions over several shards', async (t) => {
  const well = { exists: true, maySettle: true, unrecoverable: [], grantable: [], orphans: [] };
  t.strictSame(toldOfB({ recovery: null }), []);
  t.strictSame(toldOfB({ recovery: { ...well, exists: false } }), [], 'not wanted: nothing is wrong');
  t.match(toldOfB({ recovery: { ...well, maySettle: false } }), [/^warning recovery: .* run pgkv init again$/]);
  t.match(toldOfB({ recovery: { ...well, unrecoverable: ['app', 'web'] } }), [/^warning recovery: .*: app, web$/]);
  t.match(toldOfB({ recovery: { ...well, orphans: ['x of app'] } }), [
    /^warning prepared: .* hold back vacuum .*: x of app$/,
  ]);
  const none = { ...FACTS, identity: '1', preparedTransactionsMax: 0 };
  t.strictSame(toldOfB({ recovery: { ...well, maySettle: false }, facts: none }), [], 'none can be prepared anyway');
});
