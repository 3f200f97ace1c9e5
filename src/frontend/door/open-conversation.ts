// Makes a session of a login: its key for cancel requests, the lanes it may use, the conversation on them, and the greeting.
import { withParameter } from '../../backend/replies/parameter-status.js';
import { PgkvError } from '../../base/errors.js';
import type { NodeId } from '../../cluster/cluster-view.js';
import { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { MergedLane } from '../../execute/merged/merged-lane.js';
import type { MakeLane } from '../../execute/session-lanes.js';
import { Session } from '../../session/session.js';
import { FrameReader } from '../../wire/frame-reader.js';
import { encodeBackendKeyData, encodeParameterStatus, READY_IDLE } from '../../wire/server-messages.js';
import { Conversation, type ConversationHost } from '../conversation/conversation.js';
import type { MergedServices } from '../exchanges/merged-exchange.js';
import type { Login } from './client-startup.js';
import type { FrontendServices } from './frontend-services.js';

const TERMINATED = new PgkvError('shutting_down', {
  message: 'terminating connection due to administrator command',
});

/**
 * The conversation takes no message before it is resumed.
 * @param rest what the client has sent behind its login
 */
export function openConversation(
  host: ConversationHost & { cut(error: PgkvError): void },
  services: FrontendServices,
  login: Login,
  rest: Buffer,
): Conversation {
  const { version, startup, group, applicationName, reported } = login;
  const { registry } = services;
  const { pid, secretKey } = services.cancels.register(version, {
    user: group.user,
    cancel: () => conversation.cancel(),
    // Not before the answer to who asked has been sent: it may be the session itself.
    terminate: () =>
      setImmediate(() => {
        conversation.stop();
        host.cut(TERMINATED);
      }),
  });
  const named = applicationName !== '';
  const session = new Session({
    pid,
    secretKey,
    user: group.user,
    database: startup.get('database')!,
    settings: named ? registry.intern(new Map([['application_name', applicationName]])) : registry.empty,
    told: named ? withParameter(reported, 'application_name', applicationName) : reported,
  });
  const reader = new FrameReader(services.limits.frontendLimits, 0, 'frontend');
  reader.push(rest);
  const conversation = new Conversation(host, services.conversation, {
    session,
    reader,
    startSearchPath: startup.get('search_path') ?? null,
    makeLane: laneMaker(services, login, session),
    merged: mergedServices(services, login),
  });
  for (const [name, value] of session.told) host.output.push(encodeParameterStatus(name, value));
  host.output.push(encodeBackendKeyData(pid, secretKey));
  host.output.push(READY_IDLE);
  return conversation;
}

function laneMaker(services: FrontendServices, login: Login, session: Session): MakeLane {
  const { startup, credential, roles, group, applicationName } = login;
  const { nodes, registry, clock } = services;
  return (shard, client) => {
    const pool = nodes.primary(shard);
    return new LeasedLane({
      session,
      pool,
      group: pool === nodes.home ? group : pool.group(startup, credential, roles.get(shard.primary.id)),
      registry,
      client,
      clock,
      cancelStatement: (connection, delivered) => services.cancelStatement(shard, connection, delivered),
      applicationName,
    });
  };
}

/** Null where statements are not merged. */
function mergedServices(services: FrontendServices, { startup, credential, roles }: Login): MergedServices | null {
  const { merged, nodes, clock, conversation } = services;
  if (merged === null) return null;
  const lanes = new Map<NodeId, MergedLane>();
  return {
    lane(shard) {
      const { id } = shard.primary;
      let lane = lanes.get(id);
      if (lane === undefined) {
        const pool = nodes.primary(shard);
        lane = merged.lane(pool, pool.group(startup, credential, roles.get(id)));
        lanes.set(id, lane);
      }
      return lane;
    },
    settings: (of) => merged.settings(of),
    bound: merged.bound,
    groups: merged.groups,
    clock,
    sources: conversation.sources,
  };
}
