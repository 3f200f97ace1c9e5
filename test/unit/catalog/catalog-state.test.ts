// What may stand in a catalogue, and what is said where something else stands there.
import fc from 'fast-check';
import t from 'tap';
import { CatalogError } from '../../../src/catalog/catalog-error.js';
import { type CatalogState, parseCatalog, renderCatalog } from '../../../src/catalog/catalog-state.js';
import { viewFrom } from '../../../src/catalog/view-from.js';
import { defaultSettings } from '../../../src/config/load.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';

const STATE: CatalogState = {
  epoch: 3,
  database: 'kv',
  shards: [
    { name: 'a', hashSlots: [[0, 8191]] },
    {
      name: 'b',
      hashSlots: [
        [8192, 16000],
        [16001, 16383],
      ],
    },
  ],
  tables: [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
};
const document = () => JSON.parse(renderCatalog(STATE));

t.test('what is written is read back', async (t) => {
  t.strictSame(parseCatalog(renderCatalog(STATE), 'here'), STATE);
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1 }), (count, epoch) => {
      const shards = evenSlotRanges(count).map((range, index) => ({ name: `s${index}`, hashSlots: [range] }));
      const state = { ...STATE, epoch, shards };
      t.strictSame(parseCatalog(renderCatalog(state), 'here'), state);
    }),
    { numRuns: 20 },
  );
});

t.test('what an older pgkv wrote is read; what makes nodes known is kept from then on', async (t) => {
  t.strictSame(parseCatalog(JSON.stringify({ ...document(), format: 1 }), 'here'), STATE);
  const known = {
    ...STATE,
    clusterId: 'c1',
    shards: STATE.shards.map((shard, index) => ({ ...shard, systemIdentifier: `1844674407370955161${index}` })),
  };
  t.match(JSON.parse(renderCatalog(known)), { format: 2, clusterId: 'c1' });
  t.strictSame(parseCatalog(renderCatalog(known), 'here'), known);
});

t.test('every fault is named, with the place', async (t) => {
  const refuses = (text: string, ...parts: string[]) => {
    try {
      parseCatalog(text, '/etc/pgkv/catalog.json');
      t.fail(`accepted ${text}`);
    } catch (error) {
      t.ok(error instanceof CatalogError);
      const { message } = error as CatalogError;
      for (const part of ['/etc/pgkv/catalog.json', ...parts]) t.ok(message.includes(part), `${message}: ${part}`);
    }
  };
  const with_ = (change: (document: Record<string, never>) => unknown) => {
    const changed = document();
    change(changed);
    return JSON.stringify(changed);
  };
  refuses('', 'is not JSON');
  refuses(renderCatalog(STATE).slice(0, 100), 'is not JSON');
  refuses('[]', 'expected object');
  refuses('{}', 'format', 'epoch', 'shards', 'tables');
  refuses(JSON.stringify({ ...document(), format: 3 }), 'has format 3, this pgkv knows 2');
  refuses(JSON.stringify({ ...document(), clusterId: '' }), 'clusterId');
  refuses(
    with_((d) => Object.assign(d['shards']![0], { systemIdentifier: 7_400_000_000_000_000_000 })),
    'shards.0.systemIdentifier',
  );
  refuses(JSON.stringify({ ...document(), surplus: 1 }), 'surplus');
  refuses(JSON.stringify({ ...document(), epoch: 0 }), 'epoch');
  refuses(JSON.stringify({ ...document(), epoch: 1.5 }), 'epoch');
  refuses(JSON.stringify({ ...document(), database: 'd'.repeat(64) }), 'database', 'at most 63 bytes');
  refuses(JSON.stringify({ ...document(), shards: [] }), 'shards');
  refuses(
    with_((d) => Object.assign(d['shards']![0], { name: 'b' })),
    'shard "b" is there twice',
  );
  refuses(
    with_((d) => Object.assign(d['shards']![0], { hashSlots: [[0, 8190]] })),
    'no shard holds hash slots 8191 to 8191',
  );
  refuses(
    with_((d) => Object.assign(d['shards']![0], { hashSlots: [[0, 8192]] })),
    'hash slots 8192 to 8192 have two shards',
  );
  refuses(
    with_((d) => Object.assign(d['shards']![0], { hashSlots: [[0, 16384]] })),
    'shards.0.hashSlots.0.1',
  );
  refuses(
    with_((d) => Object.assign(d['tables']![0], { valueType: 'json' })),
    'tables.0.valueType',
  );
  refuses(
    with_((d) => Object.assign(d, { tables: [d['tables']![0], d['tables']![0]] })),
    'table public.kv is there twice',
  );
});

t.test('a view takes nodes from the configuration, the rest from the catalogue', async (t) => {
  const { shards } = defaultSettings({
    shards: [
      {
        name: 'b',
        nodes: [
          { host: 'b1', role: 'replica' },
          { host: 'b2', role: 'primary' },
        ],
      },
      { name: 'a', nodes: [{ host: 'a1' }, { host: 'a2' }] },
    ],
  });
  const view = viewFrom(shards, STATE);
  t.equal(view.epoch, 3);
  t.strictSame(view.tables, STATE.tables);
  t.strictSame(
    view.shards.map(({ id, name, primary, replicas, hashSlots }) => [
      id,
      name,
      primary.host,
      replicas.map(({ host }) => host),
      hashSlots,
    ]),
    [
      [0, 'a', 'a1', ['a2'], STATE.shards[0]!.hashSlots],
      [1, 'b', 'b2', ['b1'], STATE.shards[1]!.hashSlots],
    ],
    'in the order of the catalogue, whatever the order of the configuration',
  );
  t.strictSame([view.shardOfSlot[8191], view.shardOfSlot[8192], view.shardOfSlot[16383]], [0, 1, 1]);
});

t.test('shards that only one of configuration and catalogue knows are named', async (t) => {
  const settings = (...names: string[]) =>
    defaultSettings({ shards: names.map((name) => ({ name, nodes: [{ host: `host-${name}` }] })) }).shards;
  t.throws(() => viewFrom(settings('a'), STATE), {
    message: 'the catalogue has shard "b", the configuration does not',
    hint: /Add \[\[shards\]\]/,
  });
  t.throws(() => viewFrom(settings('a', 'b', 'c', 'd'), STATE), {
    message: 'the configuration has shards "c", "d", the catalogue does not',
    hint: /The catalogue has shards "a", "b"/,
  });
});
