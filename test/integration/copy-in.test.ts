// While a server waits for COPY data nothing else may be waited for: data, its end, and whatever a client sends instead go to it
// as they come, and a client that goes leaves no copy behind. All texts with a COPY that pgkv has reasons to wait for (a block that
// may have begun, an encoding that may have changed, code that is not known, another lane) with all that can follow, to Postgres
// and through pgkv.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { encodeAll as encoded, type FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const COPY = 'copy plain from stdin';
const TEXTS: readonly string[] = [
  COPY,
  `begin; ${COPY}`,
  `${COPY}; commit`,
  `${COPY}; select 1`,
  `${COPY}; reset all`,
  `set client_encoding = latin1; ${COPY}`,
  `set standard_conforming_strings = off; ${COPY}`,
  `select unknown_code(); ${COPY}`,
  `do $$begin null; end$$; ${COPY}`,
  `begin; set client_encoding = latin1; ${COPY}; commit; begin`,
];
const batch = (sql: string): FrontendMessage[] => [{ parse: sql }, { bind: [] }, { execute: '' }];
const KEYED = "select value from kv where tenant_id = 'a' and key = 'k3'";

type Ends = 'ready' | 'closed';
/** What a client sends to a server in a copy, and how that ends. */
const NEXT: Readonly<Record<string, readonly [Ends, readonly FrontendMessage[]]>> = {
  data: ['ready', [{ copyData: '1\n' }, 'copyDone']],
  'data with Flush and Sync': ['ready', ['flush', { copyData: '1\n' }, 'sync', 'flush', 'copyDone']],
  'bad data': ['ready', [{ copyData: 'x\n' }, 'copyDone']],
  CopyFail: ['ready', [{ copyFail: 'no' }]],
  Query: ['closed', [{ copyData: '1\n' }, { query: 'select 1' }]],
  'Query on a key': ['closed', [{ query: KEYED }]],
  'Query on all keys': ['closed', [{ query: 'select count(*) from kv' }]],
  'Query that is refused': ['closed', [{ query: 'lock table kv' }]],
  BEGIN: ['closed', [{ query: 'begin' }]],
  batch: ['closed', [...batch('select 1'), 'sync']],
  'batch on a key': ['closed', [...batch(KEYED), 'sync']],
  'batch without Sync': ['closed', batch('select 1')],
  Execute: ['closed', [{ execute: 'absent' }]],
  Describe: ['closed', [{ describe: 'portal' }]],
  Close: ['closed', [{ close: 'statement', name: 'absent' }]],
  FunctionCall: ['closed', [{ functionCall: 2026, args: [] }]],
};

function told(messages: readonly BackendMessage[]): string[] {
  const shown = messages.filter(({ type }) => type !== 'ParameterStatus' && type !== 'NoticeResponse');
  return shown.map((message) => {
    if (message.type === 'ReadyForQuery') return `ready ${message.status}`;
    if (message.type === 'ErrorResponse') return `${message.fields['S']} ${message.fields['C']} ${message.fields['M']}`;
    return message.type === 'CommandComplete' ? message.tag : message.type;
  });
}

/** @param apart what follows is sent when the server has said that it waits for data */
async function play(client: WireClient, text: string, next: string, apart: boolean): Promise<string[]> {
  const [ends, messages] = NEXT[next]!;
  const all: BackendMessage[] = [];
  if (apart) all.push(...(await client.exchange([{ query: text }], { type: 'CopyInResponse' })).messages);
  const rest = apart ? messages : [{ query: text }, ...messages];
  const { messages: answers, outcome } = await client.exchange(rest, ends === 'ready' ? 1 : 'closed');
  return [...told([...all, ...answers]), outcome];
}

const COPYING = `select count(*) from pg_stat_activity where state = 'active' and query ~ '${COPY}' and pid <> pg_backend_pid()`;

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) ? false : `no Postgres ${version}`;
  t.test(`a server in a copy, ${version}`, { skip, bail: true, timeout: 600_000 }, async (t) => {
    const cluster = await kvServers(t, 2, { version });
    const plain = await startPostgres({ version });
    t.teardown(() => plain.stop());
    const login = { user: plain.superuser, database: 'postgres' };
    const router = await kvRouter(t, cluster);
    const home = await SqlClient.connect(cluster.servers[0]!, login);
    t.teardown(() => home.end());
    for (const server of [plain, cluster.servers[0]!]) {
      const client = await SqlClient.connect(server, login);
      await client.run(
        'create table plain (a int)',
        'create function unknown_code() returns int language plpgsql as $$ begin return 1; end $$',
      );
      await client.end();
    }
    for (const text of TEXTS) {
      for (const next of Object.keys(NEXT)) {
        for (const apart of [true, false]) {
          const [here, there] = await Promise.all([
            WireClient.connect(router, login),
            WireClient.connect(plain, login),
          ]);
          const [ours, theirs] = await Promise.all([here, there].map((client) => play(client, text, next, apart)));
          here.destroy();
          there.destroy();
          if (!t.strictSame(ours, theirs, `${text}; ${next}, ${apart ? 'apart' : 'together'}`)) return;
        }
      }
      for (const goes of [['terminate'], [], [{ copyData: '1\n' }], [{ query: 'select 1' }]] as FrontendMessage[][]) {
        for (const apart of [true, false]) {
          const client = await WireClient.connect(router, login);
          if (apart) await client.exchange([{ query: text }], { type: 'CopyInResponse' });
          client.socket.end(encoded(apart ? goes : [{ query: text }, ...goes]));
          await client.wait('closed');
          client.destroy();
          await router.quiet();
          // The server hears of it a moment later.
          while ((await home.value(COPYING)) !== '0') await sleep(5);
          t.pass(`${text}; gone behind ${JSON.stringify(goes)}`);
        }
      }
    }
  });
}
