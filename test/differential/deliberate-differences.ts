// Where pgkv deliberately answers other than Postgres, each with its reason. Anything not listed here is a defect, and
// so is an entry whose difference no longer occurs. Entries match a step and all its differing lines.
import type { DeliberateDifference } from './compare.js';

export const DELIBERATE_DIFFERENCES: readonly DeliberateDifference[] = [];
