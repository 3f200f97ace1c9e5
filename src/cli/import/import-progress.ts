// How far an import is: a bar on a terminal, a line every ten seconds elsewhere.
import type { Terminal } from '../terminal.js';

const BAR_WIDTH = 30;
const TERMINAL_MS = 200;
const LOG_MS = 10_000;
/** Takes away the bar, where there is one. */
export const clearLine = ({ errors }: Terminal): string => (errors.isTTY === true ? '\r\u001b[K' : '');
const grouped = (count: number): string => Math.round(count).toLocaleString('en-US');

export class ImportProgress {
  readonly #terminal: Terminal;
  readonly #total: number;
  readonly #isEstimate: boolean;
  readonly #start = performance.now();
  readonly #before: number;
  #shownAt = 0;

  /** @param before rows that were done when it began */
  constructor(terminal: Terminal, total: number, isEstimate: boolean, before: number) {
    this.#terminal = terminal;
    this.#total = total;
    this.#isEstimate = isEstimate;
    this.#before = before;
    this.#shownAt = terminal.errors.isTTY === true ? 0 : this.#start;
  }

  show(rows: number): void {
    const now = performance.now();
    const isTerminal = this.#terminal.errors.isTTY === true;
    if (now - this.#shownAt < (isTerminal ? TERMINAL_MS : LOG_MS)) return;
    this.#shownAt = now;
    const line = this.#line(rows, now);
    this.#terminal.errors.write(isTerminal ? `${clearLine(this.#terminal)}${line}` : `pgkv: ${line}\n`);
  }

  #line(rows: number, now: number): string {
    const share = this.#total === 0 ? 1 : Math.min(1, rows / this.#total);
    const full = Math.round(share * BAR_WIDTH);
    const bar = `[${'#'.repeat(full)}${' '.repeat(BAR_WIDTH - full)}]`;
    const rate = ((rows - this.#before) * 1000) / Math.max(1, now - this.#start);
    const about = this.#isEstimate ? 'about ' : '';
    const left = Math.max(0, this.#total - rows) / Math.max(rate, 0.001);
    const percent = `${Math.floor(share * 100)}%`.padStart(4);
    return `${bar}${percent}  ${grouped(rows)} of ${about}${grouped(this.#total)} rows, ${grouped(rate)} a second, ${duration(left)} left`;
  }
}

function duration(seconds: number): string {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  return seconds < 6_000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
