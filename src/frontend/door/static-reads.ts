// Clients' sockets read into one buffer for all of them. Node would allocate 64 KiB a read, cut that to what came and leave it
// to the garbage collector; here what came is copied into memory of its size, before the next socket reads: whoever gets it
// may keep it. The mechanism is that of the `onread` option, which sockets that are connected have, and accepted ones lack the
// option for. Where it is kept in a socket is looked up on one made with the option; a Node that keeps it elsewhere, and TLS,
// whose bytes come from below JavaScript, read as before.
import { Socket } from 'node:net';
import { nobodyKeeps } from '../../base/read-poison.js';

/** As Node's own reads. */
const READ_BYTES_MAX = 65_536;
/** Views of the first so many bytes are made once: making one costs as much as copying it. */
const VIEWS_MAX = 1024;

const buffer = Buffer.allocUnsafeSlow(READ_BYTES_MAX);
const views: (Buffer | undefined)[] = new Array(VIEWS_MAX).fill(undefined);

type ReadHandle = { useUserBuffer(buffer: Uint8Array): unknown };

interface Places {
  readonly buffer: symbol;
  readonly callback: symbol;
}

/** Where a socket keeps what its `onread` option says; null where that cannot be told. */
function findPlaces(): Places | null {
  const callback = (): boolean => true;
  // Its types do not know that the option of `connect` is the constructor's.
  const options = { allowHalfOpen: true, onread: { buffer, callback } };
  const made = new Socket(options);
  const keys = Object.getOwnPropertySymbols(made);
  const holdBuffer = keys.filter((key) => Reflect.get(made, key) === buffer);
  const holdCallback = keys.filter((key) => Reflect.get(made, key) === callback);
  if (holdBuffer.length !== 1 || holdCallback.length !== 1) return null;
  return { buffer: holdBuffer[0]!, callback: holdCallback[0]! };
}

const PLACES = findPlaces();

const isUnset = (socket: Socket, key: symbol): boolean =>
  Object.hasOwn(socket, key) && Reflect.get(socket, key) === null;

function handleOf(socket: Socket): ReadHandle | null {
  const handle: unknown = Reflect.get(socket, '_handle');
  const isFit = typeof handle === 'object' && handle !== null && 'useUserBuffer' in handle;
  return isFit ? (handle as ReadHandle) : null;
}

function copyOf(bytes: number): Buffer {
  let view = bytes < VIEWS_MAX ? views[bytes] : buffer.subarray(0, bytes);
  view ??= views[bytes] = buffer.subarray(0, bytes);
  const copy = Buffer.allocUnsafe(bytes);
  copy.set(view);
  return copy;
}

/**
 * From now on the socket reads into the shared buffer. All events are as they were, 'data' included, and so is pausing.
 * @returns false: it reads as before
 */
export function readStatically(socket: Socket): boolean {
  const handle = handleOf(socket);
  if (PLACES === null || handle === null || !isUnset(socket, PLACES.buffer) || !isUnset(socket, PLACES.callback)) {
    return false;
  }
  const callback = (bytes: number): boolean => {
    const chunk = copyOf(bytes);
    nobodyKeeps(buffer, bytes);
    socket.emit('data', chunk);
    return true;
  };
  handle.useUserBuffer(buffer);
  Reflect.set(socket, PLACES.callback, callback);
  Reflect.set(socket, PLACES.buffer, buffer);
  return true;
}
