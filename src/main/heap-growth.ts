// How much garbage V8 lets pile up beside what lives: by default as much as lives, or thrice as much, before it looks. That is
// cheap for small heaps, but a process whose caches of texts are full would have 350 MB where it holds 85.
import { setFlagsFromString } from 'node:v8';

/**
 * In percent of what lives. After 120,000 texts that are not found (RSS; CPU): V8's own choice 348 MB, 13.3 s; 60: 257, 14.4;
 * 25: 233, 15.0.
 */
const GROWTH_PERCENT = 50;

/** For a process that has come to hold much: V8 reads it behind each collection. */
export function boundHeapGrowth(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
}
