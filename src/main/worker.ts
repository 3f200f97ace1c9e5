// The program of a data process (worker): serves clients with pools of its own. Begins with what the control process
// hands it, ends when that one says so, or is gone. Signals are for the control process alone: a terminal and systemd
// send them to both.
import type { Socket } from 'node:net';
import { systemClock, systemRandom } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import type { ControlMessage, ShardHealth, WorkerAssignment, WorkerMessage } from '../cluster/control-port.js';
import { pidsOf } from '../cluster/session-pids.js';
import { ViewHolder } from '../cluster/view-holder.js';
import { Secret } from '../config/secrets.js';
import type { Settings } from '../config/settings.js';
import { tlsMaterial } from '../frontend/door/tls-material.js';
import { createLogger, type Logger } from '../telemetry/log.js';
import { readProcessUsage } from '../telemetry/process-usage.js';
import { type DataPlane, openDataPlane } from './data-plane.js';
import { IpcControlPort } from './ipc-control-port.js';
import { LaneSockets } from './lane-sockets.js';
import { poolServices, serviceNodes } from './node-pools.js';
import { routerStatus } from './router-status.js';

/** A look-up at one time; the control process has one connection for probes. */
const LOOK_UP_CONNECTIONS = 1;

/** What another worker takes beside the time its server is given. */
const SIGNAL_GRACE_MS = 1_000;

const NOT_HEARD: ShardHealth = { state: 'unknown', reason: 'the control process has not told yet' };

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);

/** A control process that is gone is noticed elsewhere. */
function tell(message: WorkerMessage, sent: () => void = () => undefined): void {
  process.send?.(message, undefined, {}, sent);
}

process.once('message', (message: ControlMessage) => {
  if (message.kind === 'start') run(message.assignment);
});

function run(assignment: WorkerAssignment): void {
  const settings = completeSettings(assignment);
  const log = createLogger(settings.log).child({ worker: assignment.worker });
  const worker = new DataProcess(assignment, settings, log);
  const started = worker.start();
  // In the order they were sent, behind the start.
  process.on('message', (message: ControlMessage, socket?: Socket) => {
    started.then(
      () => worker.received(message, socket),
      () => undefined,
    );
  });
  process.on('disconnect', () => worker.controlLost());
  started.then(
    () => tell({ kind: 'serving' }),
    (error: unknown) => tell({ kind: 'failed', reason: messageOf(error) }, () => process.exit(1)),
  );
}

function completeSettings({ settings, servicePassword }: WorkerAssignment): Settings {
  const password = servicePassword === null ? null : new Secret(servicePassword);
  return { ...settings, auth: { ...settings.auth, service: { ...settings.auth.service, password } } };
}

class DataProcess {
  readonly #assignment: WorkerAssignment;
  readonly #settings: Settings;
  readonly #log: Logger;
  readonly #views: ViewHolder;
  readonly #port: IpcControlPort;
  readonly #sockets: LaneSockets | null;
  #plane: DataPlane | null = null;
  #state: WorkerAssignment['state'];
  #leaving = false;

  constructor(assignment: WorkerAssignment, settings: Settings, log: Logger) {
    this.#assignment = assignment;
    this.#settings = settings;
    this.#log = log;
    this.#port = new IpcControlPort(tell, systemClock, settings.servers.answerTimeoutMs + SIGNAL_GRACE_MS);
    this.#views = new ViewHolder(assignment.view);
    const { laneFolder, worker } = assignment;
    this.#sockets = laneFolder === null ? null : new LaneSockets(laneFolder, worker, log);
    this.#state = assignment.state;
  }

  async start(): Promise<void> {
    const { worker, version, certificate, mockSecret } = this.#assignment;
    const settings = this.#settings;
    const services = poolServices(settings, systemClock, systemRandom);
    const views = this.#views;
    this.#plane = await openDataPlane({
      ...services,
      log: this.#log,
      version,
      views,
      tls: tlsMaterial(certificate, settings),
      mockSecret: Buffer.from(mockSecret),
      service: serviceNodes(views, LOOK_UP_CONNECTIONS, settings.auth.service, services),
      status: () => {
        const { health, workers } = this.#state;
        return routerStatus({ view: views.current, version, health: ({ id }) => health[id] ?? NOT_HEARD, workers });
      },
      prepared: () => this.#state.prepared,
      copiesElsewhere: () => this.#state.copies.filter((copy) => copy.worker !== worker),
      warmsUp: true,
      siblings: { port: this.#port, pids: pidsOf(worker), worker, sockets: this.#sockets },
    });
  }

  /** @param socket of a client */
  received(message: ControlMessage, socket: Socket | undefined): void {
    const plane = this.#plane!;
    switch (message.kind) {
      case 'start':
        return;
      case 'client':
        this.#accept(plane, socket);
        return;
      case 'view':
        this.#views.swap(message.view);
        return;
      case 'state':
        this.#state = message.state;
        return;
      case 'reload': {
        const { settings, certificate } = message;
        const tls = tlsMaterial(certificate, settings);
        plane.reload({ tls, allow: settings.auth.allow, adminRoles: settings.admin.roles });
        this.#log.level = settings.log.level;
        return;
      }
      case 'schema-changed':
        plane.schemaChangedElsewhere(message.shard);
        return;
      case 'verifier-forgotten':
        plane.verifierForgottenElsewhere(message.role);
        return;
      case 'database-left':
        plane.databaseLeftElsewhere(message.database);
        return;
      case 'cancel':
        plane.cancel(message.pid, Buffer.from(message.secretKey));
        tell({ kind: 'cancel-done', from: message.from, request: message.request });
        return;
      case 'cancel-done':
        this.#port.cancelDone(message.request);
        return;
      case 'signal': {
        const { from, request, pid, what, by } = message;
        plane.signal(pid, what, by, (outcome) => tell({ kind: 'signal-done', from, request, outcome }));
        return;
      }
      case 'signal-done':
        this.#port.signalDone(message.request, message.outcome);
        return;
      case 'report-wanted': {
        plane.refreshCounters();
        const { counters } = plane;
        const report = {
          epoch: this.#views.current.epoch,
          counters,
          usage: readProcessUsage(),
          copies: plane.copies.states,
        };
        tell({ kind: 'report', report });
        return;
      }
      case 'drain':
        void plane.drain().then(() => this.#leave());
        return;
      case 'stop':
        this.#leave();
        return;
    }
  }

  controlLost(): void {
    if (this.#leaving) return;
    this.#log.fatal('the control process is gone: ending');
    this.#plane?.destroy();
    this.#sockets?.remove();
    // What clients are told has been written by now.
    process.exit(1);
  }

  #accept(plane: DataPlane, socket: Socket | undefined): void {
    tell({ kind: 'taken' });
    // It was closed on its way.
    if (socket === undefined) return;
    socket.allowHalfOpen = true;
    plane.listener.accept(socket);
  }

  /** Ends what is open; the process ends with the last of it. */
  #leave(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#plane?.destroy();
    process.disconnect();
  }
}
