// A setting that is a time, as Postgres reads and shows it: a number with a unit, milliseconds without one.
const FORM = /^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(us|ms|s|min|h|d)?\s*$/i;
const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };
/** Of a timer, which is also the greatest value that such settings have. */
const MAX = 2 ** 31 - 1;

/** 0: there is none. */
export function milliseconds(value: string | undefined): number {
  const found = value === undefined ? null : FORM.exec(value);
  if (found === null) return 0;
  const [, count, unit] = found;
  return Math.min(Math.max(Math.round(Number(count) * UNITS[unit ?? 'ms']!), 0), MAX);
}
