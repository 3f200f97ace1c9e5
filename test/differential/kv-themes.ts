// All themes of the differential suite for key-value tables.
import { kvChanges } from './kv-scenarios/changes.js';
import { kvFunctions } from './kv-scenarios/functions.js';
import { kvInserts } from './kv-scenarios/inserts.js';
import { kvPoints } from './kv-scenarios/points.js';
import { kvRanges } from './kv-scenarios/ranges.js';
import type { Theme } from './scenario.js';

export const KV_THEMES: readonly Theme[] = [kvPoints, kvInserts, kvChanges, kvFunctions, kvRanges];
