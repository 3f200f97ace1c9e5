// The statements of one pipeline of reads, each merged with other clients' statements, and their answers put together again
// in order, with the one ReadyForQuery that its Sync asks for. Where one of them has to be run by itself, all are (D12). A
// later statement must not see less than an earlier one, so that those for one shard have to be in one batch: they are all
// of one form.
import { READY_IDLE } from '../../wire/server-messages.js';
import { type MergedClient, MergedRequest } from './merged-request.js';

export class MergedPipeline {
  readonly #requests: readonly MergedRequest[];
  readonly #answers: (Buffer | undefined)[];
  readonly #host: Omit<MergedClient, 'unknown'>;
  #left: number;
  #failed = false;

  constructor(count: number, host: Omit<MergedClient, 'unknown'>) {
    this.#host = host;
    this.#left = count;
    this.#answers = new Array(count);
    this.#requests = Array.from({ length: count }, (_, index) => {
      const request = new MergedRequest({
        answered: (answer) => {
          this.#answers[index] = answer;
          this.#settled();
        },
        rerun: () => this.#giveUp(),
        unknown: () => this.#giveUp(),
      });
      request.group = this;
      return request;
    });
  }

  request(index: number): MergedRequest {
    return this.#requests[index]!;
  }

  /** The client is gone. */
  drop(): void {
    for (const request of this.#requests) request.dropped = true;
  }

  #giveUp(): void {
    this.#failed = true;
    this.#settled();
  }

  #settled(): void {
    if (--this.#left > 0) return;
    if (this.#failed) {
      this.#host.rerun();
      return;
    }
    const parts: Buffer[] = [];
    for (const answer of this.#answers) parts.push(answer!.subarray(0, answer!.length - READY_IDLE.length));
    parts.push(READY_IDLE);
    this.#host.answered(Buffer.concat(parts));
  }
}
