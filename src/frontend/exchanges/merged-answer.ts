// What a client is told of a statement that was run with others': the dress of the wire around the rows that the merged lane
// has found. ParseComplete, BindComplete and RowDescription stand in front of them, as far as the client has asked for them,
// CommandComplete and ReadyForQuery behind; the whole is put together once, when it goes out.
import type { MergedForm } from '../../execute/merged/merged-form.js';
import { MergedRequest } from '../../execute/merged/merged-request.js';
import { copyBytes, lastingBytes } from '../../wire/copy-bytes.js';
import { Backend } from '../../wire/protocol.js';
import { BIND_COMPLETE, NO_DATA, PARSE_COMPLETE, READY_IDLE } from '../../wire/server-messages.js';

const NOTHING = Buffer.alloc(0);

/** A client's request, which knows what its answer is to begin with. */
export class ClientRequest extends MergedRequest {
  prefix: Buffer = NOTHING;
}

/** Beginnings of answers by form; nearly all are of the form that was asked for last. */
const PREFIXES = new WeakMap<MergedForm, (Buffer | undefined)[]>();
let lastForm: MergedForm | null = null;
let lastPrefixes: (Buffer | undefined)[] = [];

/** What an answer begins with. @param simple the query was */
export function prefixOf(
  form: MergedForm,
  parses: boolean,
  describes: boolean,
  format: number,
  simple: boolean,
): Buffer {
  if (form !== lastForm) {
    let kept = PREFIXES.get(form);
    if (kept === undefined) {
      kept = new Array(16);
      PREFIXES.set(form, kept);
    }
    lastForm = form;
    lastPrefixes = kept;
  }
  const index = (parses ? 1 : 0) | (describes ? 2 : 0) | (format === 1 ? 4 : 0) | (simple ? 8 : 0);
  const known = lastPrefixes[index];
  if (known !== undefined) return known;
  const made = makePrefix(form, parses, describes, format, simple);
  const prefix = made === form.description ? made : lastingBytes(made);
  lastPrefixes[index] = prefix;
  return prefix;
}

function makePrefix(
  { description }: MergedForm,
  parses: boolean,
  describes: boolean,
  format: number,
  simple: boolean,
): Buffer {
  if (simple) return description ?? NOTHING;
  const parts: Buffer[] = [];
  if (parses) parts.push(PARSE_COMPLETE);
  parts.push(BIND_COMPLETE);
  if (describes) parts.push(description === null ? NO_DATA : inFormat(description, format));
  return Buffer.concat(parts);
}

/** The RowDescription with another format for all its columns. */
function inFormat(description: Buffer, format: number): Buffer {
  if (format === 0) return description;
  const changed = Buffer.from(description);
  let at = 7;
  for (let left = changed.readUInt16BE(5); left > 0; left--) {
    at = changed.indexOf(0, at) + 1 + 18;
    changed.writeInt16BE(format, at - 2);
  }
  return changed;
}

/** CommandComplete and ReadyForQuery by tag and row count; those up to a few rows are made once. */
const ENDINGS = new Map<string, (Buffer | undefined)[]>();
const ENDING_ROWS_KEPT = 64;

function endingOf({ form, rows }: MergedRequest): Buffer {
  const { tag } = form!.plan;
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
export function wholeAnswer(request: ClientRequest): Buffer {
  const ending = endingOf(request);
  const answer = Buffer.allocUnsafe(bytesOf(request) + ending.length);
  const at = write(request, answer, 0);
  copyBytes(ending, 0, ending.length, answer, at);
  request.forgetAnswer();
  return answer;
}

/** The answer to a pipeline: those to its statements, and the one ReadyForQuery that its Sync asks for. */
export function pipelineAnswer(requests: readonly ClientRequest[], count: number): Buffer {
  let bytes = READY_IDLE.length;
  for (let index = 0; index < count; index++) {
    const request = requests[index]!;
    bytes += bytesOf(request) + endingOf(request).length - READY_IDLE.length;
  }
  const answer = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let index = 0; index < count; index++) {
    const request = requests[index]!;
    const ending = endingOf(request);
    at = write(request, answer, at);
    at = copyBytes(ending, 0, ending.length - READY_IDLE.length, answer, at);
  }
  copyBytes(READY_IDLE, 0, READY_IDLE.length, answer, at);
  return answer;
}

const bytesOf = ({ start, end, prefix }: ClientRequest): number => prefix.length + (start < 0 ? 0 : end - start);

function write({ start, end, prefix, answers }: ClientRequest, to: Buffer, at: number): number {
  const rowsAt = copyBytes(prefix, 0, prefix.length, to, at);
  return start < 0 ? rowsAt : copyBytes(answers, start, end, to, rowsAt);
}
