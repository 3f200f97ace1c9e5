// `pgkv status`: asks a running router for `SHOW pgkv.status` and shows its answer.
import pg from 'pg';
import { messageOf } from '../base/errors.js';
import { SUPERUSER } from '../dev/server-settings.js';
import { CommandFailure } from './command-failure.js';
import { connect } from './connect.js';
import { type ConnectionTarget, placeOf } from './connection-target.js';
import type { StatusOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { devRun, type RunFile, routerTarget } from './run-file.js';
import { alignedTable } from './sql/aligned-table.js';
import type { Terminal } from './terminal.js';

const UNDEFINED_OBJECT = '42704';

interface Address {
  readonly host: string;
  readonly port: number;
}

/** The fields of the router's answer that people are shown; `--json` passes on all of them. */
export interface RouterStatus {
  readonly epoch: number;
  readonly version?: string;
  readonly shards: readonly {
    readonly id: number;
    readonly name: string;
    readonly primary: Address;
    readonly replicas: readonly Address[];
    /** Hash slots, first and last of each range. */
    readonly slots: readonly (readonly [number, number])[];
    readonly healthy?: boolean;
    /** Where it is not healthy. */
    readonly state?: string;
    readonly reason?: string;
  }[];
}

const HEALTH: Readonly<Record<string, string>> = { other: 'another server', silent: 'silent' };

/** @throws CommandFailure with exit code 2 where no router answers */
export async function runStatus(options: StatusOptions, terminal: Terminal): Promise<number> {
  const target = routerTarget(options, terminal.env);
  const text = await askRouter(target, terminal);
  const status = parseStatus(text, target);
  const lines = options.json
    ? [text]
    : [...statusLines(status, target), ...superuserLines(devRun(options, terminal.env))];
  terminal.output.write(`${lines.join('\n')}\n`);
  return 0;
}

async function askRouter(target: ConnectionTarget, terminal: Terminal): Promise<string> {
  const client = await connect(target, passwordPrompt(terminal.input, terminal.errors));
  try {
    const answer = await client.query<[string]>({ text: 'SHOW pgkv.status', rowMode: 'array' });
    return answer.rows[0]?.[0] ?? '';
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code === UNDEFINED_OBJECT) {
      throw new CommandFailure(2, `what answers at ${placeOf(target)} is not a pgkv router`, undefined, error);
    }
    throw new CommandFailure(2, `the router at ${placeOf(target)} failed: ${messageOf(error)}`, undefined, error);
  } finally {
    await client.end();
    terminal.input.destroy();
  }
}

function parseStatus(text: string, target: ConnectionTarget): RouterStatus {
  let status: Partial<RouterStatus> | null;
  try {
    status = JSON.parse(text) as Partial<RouterStatus> | null;
  } catch {
    status = null;
  }
  if (typeof status?.epoch === 'number' && Array.isArray(status.shards)) return status as RouterStatus;
  throw new CommandFailure(2, `the router at ${placeOf(target)} gave a status this program cannot read: ${text}`);
}

function statusLines(status: RouterStatus, target: ConnectionTarget): string[] {
  const version = status.version === undefined ? '' : ` ${status.version}`;
  const table = alignedTable({
    columns: [
      { name: 'id', align: 'right' },
      { name: 'shard', align: 'left' },
      { name: 'primary', align: 'left' },
      { name: 'replicas', align: 'left' },
      { name: 'slots', align: 'left' },
      { name: 'health', align: 'left' },
    ],
    rows: status.shards.map((shard) => [
      String(shard.id),
      shard.name,
      addressText(shard.primary),
      shard.replicas.map(addressText).join('\n'),
      shard.slots.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', '),
      shard.healthy === undefined ? '' : shard.healthy ? 'ok' : (HEALTH[shard.state ?? ''] ?? 'down'),
    ]),
    footers: [],
  });
  const reasons = status.shards.flatMap(({ name, reason }) =>
    reason === undefined ? [] : [`shard ${name}: ${reason}`],
  );
  return [
    `pgkv${version} at ${addressText(target)}, epoch ${status.epoch}`,
    '',
    ...[...table].slice(0, -1),
    ...reasons,
  ];
}

/** Of `pgkv dev`: the sockets' folder is open to the servers' user and root alone. */
function superuserLines(run: RunFile | undefined): string[] {
  if (run === undefined) return [];
  const ways = run.shards.map(({ name, socketDir, port }) => {
    return `  ${name}: psql -h ${socketDir} -p ${port} -U ${SUPERUSER} ${run.database}`;
  });
  return ['', 'superuser, for the user whose folder this is and root:', ...ways];
}

function addressText({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
