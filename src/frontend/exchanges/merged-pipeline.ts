// The statements of one pipeline of reads, each merged with other clients' statements, and their answers put together again
// in order, with the one ReadyForQuery that its Sync asks for. Where one of them has to be run by itself, all are (D12). A
// later statement must not see less than an earlier one, so that those for one shard have to be in one batch: they are all
// of one form. A client has at most one pipeline under way; its requests are used again by the next one. It is over when all of
// its statements have come back; how they came back, the worst of them says: completed, to be run again, failed.

import type { PgkvError } from '../../base/errors.js';
import type { BatchSink } from '../../execute/merged/merged-request.js';
import { ClientRequest, pipelineAnswer } from './merged-answer.js';

export interface PipelineHost {
  /** The whole answer; the client's to keep. */
  answered(answer: Buffer): void;
  rerun(): void;
  failed(error: PgkvError): void;
}

const REQUESTS_KEPT = 32;

export class MergedPipeline implements BatchSink {
  readonly #host: PipelineHost;
  readonly #requests: ClientRequest[] = [];
  #count = 0;
  #left = 0;
  #error: PgkvError | null = null;
  #reruns = false;

  constructor(host: PipelineHost) {
    this.#host = host;
  }

  /** Makes ready for a pipeline of so many statements. */
  begin(count: number): void {
    this.#count = this.#left = count;
    this.#error = null;
    this.#reruns = false;
    while (this.#requests.length < count) {
      const request = new ClientRequest(this);
      request.group = this;
      this.#requests.push(request);
    }
  }

  request(index: number): ClientRequest {
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

  completed(): void {
    if (--this.#left > 0) return;
    const error = this.#error;
    const answer = error !== null || this.#reruns ? null : pipelineAnswer(this.#requests, this.#count);
    for (const request of this.#requests) request.forgetAnswer();
    // Nearly all pipelines are short: a long one's requests are not kept.
    if (this.#requests.length > REQUESTS_KEPT) this.#requests.length = REQUESTS_KEPT;
    if (answer !== null) this.#host.answered(answer);
    else if (error !== null) this.#host.failed(error);
    else this.#host.rerun();
  }

  rerun(): void {
    this.#reruns = true;
    this.completed();
  }

  failed(error: PgkvError): void {
    this.#error ??= error;
    this.completed();
  }
}
