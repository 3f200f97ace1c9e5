// Writes the protocol messages of one session to the log, as `log.trace_sessions` asks. Sees whole messages in both
// directions, apart from pgkv's forwarding: nothing on the data path depends on it.
import { messageOf } from '../../base/errors.js';
import { describeMessage } from '../../telemetry/session-trace.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import { Backend, backendLimits, frontendLimits, LARGE_MESSAGE_BYTES_MAX } from '../../wire/protocol.js';

const FRONTEND_LIMITS = frontendLimits(LARGE_MESSAGE_BYTES_MAX);
const BACKEND_LIMITS = backendLimits(LARGE_MESSAGE_BYTES_MAX);

export class ProtocolTap {
  readonly #write: (line: string) => void;
  readonly #values: boolean;
  readonly #clientReader = new FrameReader(FRONTEND_LIMITS, 0, 'frontend');
  readonly #serverReader = new FrameReader(BACKEND_LIMITS, Backend.dataRow, 'backend');

  /** @param values show literals and row values */
  constructor(write: (line: string) => void, values: boolean) {
    this.#write = write;
    this.#values = values;
  }

  /** Bytes from the client, cut anywhere. */
  fromClient(bytes: Buffer): void {
    this.#describe('from-client', this.#clientReader, bytes);
  }

  /** Bytes on their way to the client, cut anywhere. */
  toClient(bytes: Buffer): void {
    this.#describe('to-client', this.#serverReader, bytes);
  }

  #describe(direction: 'from-client' | 'to-client', reader: FrameReader, bytes: Buffer): void {
    reader.push(bytes);
    try {
      for (let found = reader.next(); found !== Frame.none; found = reader.next()) {
        if (found === Frame.more || found === Frame.last) continue;
        const payload = reader.buffer.subarray(reader.start + 5, reader.end);
        this.#write(describeMessage(direction, reader.type, payload, { values: this.#values }));
      }
    } catch (error) {
      // The conversation meets the same bytes and ends the session with the same words.
      this.#write(`${direction} ${messageOf(error)}`);
    }
  }
}
