// Logs of finished transactions in the format of `pgbench -l`: "client number latency_µs script seconds microseconds". Read here,
// and written by loader.mjs, so that both generators are measured alike.

import { readFileSync } from 'node:fs';

const NEWLINE = 10;
const SPACE = 32;
const ZERO = 48;
const NINE = 57;
const LATENCY_FIELD = 2;
const SECONDS_FIELD = 4;
const MICROSECONDS_FIELD = 5;

/** Latencies in µs of the transactions that ended well between two instants (µs since 1970), sorted. */
export function latenciesBetween(path, fromUs, toUs) {
  const bytes = readFileSync(path);
  const latencies = [];
  const fields = [0, 0, 0, 0, 0, 0];
  let field = 0;
  let isWhole = true; // a failed transaction has a word instead of its latency
  // By hand: a run logs up to a million lines, and splitting them into strings takes longer than the run.
  for (const byte of bytes) {
    if (byte === NEWLINE) {
      const endedUs = fields[SECONDS_FIELD] * 1e6 + fields[MICROSECONDS_FIELD];
      if (isWhole && endedUs >= fromUs && endedUs < toUs) latencies.push(fields[LATENCY_FIELD]);
      fields.fill(0);
      field = 0;
      isWhole = true;
    } else if (byte === SPACE) field += 1;
    else if (byte < ZERO || byte > NINE) isWhole = false;
    else fields[field] = fields[field] * 10 + byte - ZERO;
  }
  return Float64Array.from(latencies).sort();
}

/** @param {Float64Array} sorted */
export const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

/** One line of such a log. */
export function logLine(client, number, latencyUs, script, endedUs) {
  const seconds = Math.floor(endedUs / 1e6);
  return `${client} ${number} ${Math.round(latencyUs)} ${script} ${seconds} ${Math.floor(endedUs - seconds * 1e6)}\n`;
}
