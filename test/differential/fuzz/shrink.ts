// Cuts a script that fails down to what it needs to fail in the same way: first packets, in halves and then one by one, then
// parts of packets, then statements of texts.
import { partsOf } from './answers.js';
import type { Fault } from './play-script.js';
import type { FuzzMessage, Packet, Script } from './script.js';

/** Each is a play of the script; one that hangs takes seconds. */
const ATTEMPTS_MAX = 160;
const SHRINK_MS_MAX = 60_000;

export interface Shrunk {
  readonly script: Script;
  readonly fault: Fault;
}

/** @param play plays a script from a clean start */
export async function shrink(first: Shrunk, play: (script: Script) => Promise<Fault | null>): Promise<Shrunk> {
  let best = first;
  let attempts = 0;
  const end = performance.now() + SHRINK_MS_MAX;
  const fails = async (packets: readonly Packet[]): Promise<boolean> => {
    if (attempts++ >= ATTEMPTS_MAX || performance.now() > end || packets.length === 0) return false;
    const script = { ...best.script, packets };
    const fault = await play(script);
    if (fault?.kind !== first.fault.kind) return false;
    best = { script, fault };
    return true;
  };
  await fails(best.script.packets.slice(0, best.fault.packet + 1));
  for (let size = Math.ceil(best.script.packets.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = best.script.packets.length - size; at >= 0; at -= size) {
      const { packets } = best.script;
      await fails([...packets.slice(0, at), ...packets.slice(at + size)]);
    }
  }
  for (let at = best.script.packets.length - 1; at >= 0; at--) {
    for (const smaller of smallerPackets(best.script.packets[at]!)) {
      const { packets } = best.script;
      if (await fails([...packets.slice(0, at), smaller, ...packets.slice(at + 1)]))
        at = Math.min(at + 1, packets.length);
      if (best.script.packets !== packets) break;
    }
  }
  return best;
}

function* smallerPackets({ session, messages }: Packet): Generator<Packet> {
  const parts = partsOf(messages);
  if (parts.length > 1) {
    for (const skipped of parts.keys()) {
      yield { session, messages: parts.filter((_, index) => index !== skipped).flat() };
    }
  }
  for (const [place, message] of messages.entries()) {
    for (const smaller of smallerMessages(message)) yield { session, messages: messages.with(place, smaller) };
  }
  // Without its last Flush a batch that goes on in the next packet is answered there only.
  const isOptional = (message: FuzzMessage, place: number) =>
    (message === 'flush' && place < messages.length - 1) ||
    (typeof message !== 'string' && ('describe' in message || 'close' in message));
  for (const [place, message] of messages.entries()) {
    if (isOptional(message, place)) yield { session, messages: messages.toSpliced(place, 1) };
  }
}

function* smallerMessages(message: FuzzMessage): Generator<FuzzMessage> {
  if (typeof message === 'string' || !('query' in message) || message.query.length < 2) return;
  for (const skipped of message.query.keys()) {
    yield { ...message, query: message.query.filter((_, index) => index !== skipped) };
  }
}
