// All themes of the differential suite for key-value tables.
import { kvChanges } from './kv-scenarios/changes.js';
import { kvErrors } from './kv-scenarios/errors.js';
import { kvExpiry } from './kv-scenarios/expiry.js';
import { kvFunctions } from './kv-scenarios/functions.js';
import { kvGenerated } from './kv-scenarios/generated.js';
import { kvInserts } from './kv-scenarios/inserts.js';
import { kvPipelines } from './kv-scenarios/pipelines.js';
import { kvPoints } from './kv-scenarios/points.js';
import { kvRanges } from './kv-scenarios/ranges.js';
import { kvTransactions } from './kv-scenarios/transactions.js';
import type { Theme } from './scenario.js';

export const KV_THEMES: readonly Theme[] = [
  ...[
    kvPoints,
    kvInserts,
    kvChanges,
    kvFunctions,
    kvRanges,
    kvExpiry,
    kvErrors,
    kvTransactions,
    kvPipelines,
    kvGenerated,
  ],
];
