// All themes of the differential suite.
import type { Theme } from './scenario.js';
import { ddl } from './scenarios/ddl.js';
import { dml } from './scenarios/dml.js';
import { errors } from './scenarios/errors.js';
import { select } from './scenarios/select.js';
import { settings } from './scenarios/settings.js';
import { transactions } from './scenarios/transactions.js';
import { types } from './scenarios/types.js';

export const THEMES: readonly Theme[] = [select, types, dml, ddl, errors, transactions, settings];
