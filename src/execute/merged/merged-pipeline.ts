// The statements of one pipeline of reads, each merged with other clients' statements, and their answers put together again
// in order, with the one ReadyForQuery that its Sync asks for. Where one of them has to be run by itself, all are (D12). A
// later statement must not see less than an earlier one, so that those for one shard have to be in one batch: they are all
// of one form. A client has at most one pipeline under way; its requests are used again by the next one.
import { pipelineAnswer } from './merged-answer.js';
import { type MergedClient, MergedRequest } from './merged-request.js';

export interface PipelineHost {
  /** The whole answer; the client's to keep. */
  answered(answer: Buffer): void;
  rerun(): void;
}

const REQUESTS_KEPT = 32;

export class MergedPipeline implements MergedClient {
  readonly #host: PipelineHost;
  readonly #requests: MergedRequest[] = [];
  #count = 0;
  #left = 0;
  #failed = false;

  constructor(host: PipelineHost) {
    this.#host = host;
  }

  /** Makes ready for a pipeline of so many statements. */
  begin(count: number): void {
    this.#count = this.#left = count;
    this.#failed = false;
    while (this.#requests.length < count) {
      const request = new MergedRequest(this);
      request.group = this;
      this.#requests.push(request);
    }
  }

  request(index: number): MergedRequest {
    return this.#requests[index]!;
  }

  /** Sends all of them on their way. */
  offer(): void {
    for (let index = 0; index < this.#count; index++) {
      const request = this.#requests[index]!;
      request.queue.offer(request);
    }
  }

  /** The client is gone. */
  drop(): void {
    for (const request of this.#requests) request.dropped = true;
  }

  settled(): void {
    if (--this.#left > 0) return;
    const answer = this.#failed ? null : pipelineAnswer(this.#requests, this.#count);
    for (const request of this.#requests) request.forgetAnswer();
    // Nearly all pipelines are short: a long one's requests are not kept.
    if (this.#requests.length > REQUESTS_KEPT) this.#requests.length = REQUESTS_KEPT;
    if (answer === null) this.#host.rerun();
    else this.#host.answered(answer);
  }

  rerun(): void {
    this.#failed = true;
    this.settled();
  }

  unknown(): void {
    this.rerun();
  }
}
