// The answer to one member of a batch, put together once, when it goes to its client: what was owed before the rows and
// the rows themselves stand in the batch's answers, CommandComplete and ReadyForQuery behind them.
import { copyBytes } from '../../wire/copy-bytes.js';
import { Backend } from '../../wire/protocol.js';
import { READY_IDLE } from '../../wire/server-messages.js';
import type { MergedRequest } from './merged-request.js';

/** CommandComplete and ReadyForQuery by tag and row count; those up to a few rows are made once. */
const ENDINGS = new Map<string, (Buffer | undefined)[]>();
const ENDING_ROWS_KEPT = 64;

/** @param tag of the command, without its row count: "INSERT 0" */
export function endingOf(tag: string, rows: number): Buffer {
  let kept = ENDINGS.get(tag);
  if (kept === undefined) {
    kept = [];
    ENDINGS.set(tag, kept);
  }
  const known = kept[rows];
  if (known !== undefined) return known;
  const text = Buffer.from(`\0\0\0\0\0${tag} ${rows}\0`, 'latin1');
  text[0] = Backend.commandComplete;
  text.writeInt32BE(text.length - 1, 1);
  const ending = Buffer.concat([text, READY_IDLE]);
  if (rows < ENDING_ROWS_KEPT) kept[rows] = ending;
  return ending;
}

/** The whole answer to a request that stands for itself. */
export function wholeAnswer(request: MergedRequest): Buffer {
  const answer = Buffer.allocUnsafe(bytesOf(request) + request.ending.length);
  const at = write(request, answer, 0);
  copyBytes(request.ending, 0, request.ending.length, answer, at);
  request.forgetAnswer();
  return answer;
}

/** The answer to a pipeline: those to its statements, and the one ReadyForQuery that its Sync asks for. */
export function pipelineAnswer(requests: readonly MergedRequest[], count: number): Buffer {
  let bytes = READY_IDLE.length;
  for (let index = 0; index < count; index++) {
    const request = requests[index]!;
    bytes += bytesOf(request) + request.ending.length - READY_IDLE.length;
  }
  const answer = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let index = 0; index < count; index++) {
    const request = requests[index]!;
    at = write(request, answer, at);
    at = copyBytes(request.ending, 0, request.ending.length - READY_IDLE.length, answer, at);
  }
  copyBytes(READY_IDLE, 0, READY_IDLE.length, answer, at);
  return answer;
}

const bytesOf = ({ start, end, prefix }: MergedRequest): number => (start < 0 ? prefix.length : end - start);

function write({ start, end, prefix, answers }: MergedRequest, to: Buffer, at: number): number {
  return start < 0 ? copyBytes(prefix, 0, prefix.length, to, at) : copyBytes(answers, start, end, to, at);
}
