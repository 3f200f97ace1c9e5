// Sends a CancelRequest to a server. The server answers nothing; it closes the connection once the signal is sent, so
// a cancel counts as delivered at that moment, not when its bytes were written.
import type { Clock } from '../../base/clock.js';
import { encodeCancelRequest } from '../../wire/client-messages.js';
import type { OpenStream, ServerAddress } from './server-socket.js';

/** Calls `delivered` exactly once: when the server has closed, on any failure, or after `timeoutMs`. */
export function sendCancelRequest(options: {
  openStream: OpenStream;
  address: ServerAddress;
  pid: number;
  secretKey: Buffer;
  clock: Clock;
  timeoutMs: number;
  delivered: () => void;
}): void {
  let open = true;
  const finish = (): void => {
    if (!open) return;
    open = false;
    timer.cancel();
    options.delivered();
  };
  const timer = options.clock.after(options.timeoutMs, () => {
    attempt.abort();
    finish();
  });
  const attempt = options.openStream(
    options.address,
    ({ stream }) => {
      stream.on('error', finish);
      stream.on('close', finish);
      stream.on('end', () => stream.destroy());
      stream.resume();
      stream.write(encodeCancelRequest(options.pid, options.secretKey));
    },
    finish,
  );
}
