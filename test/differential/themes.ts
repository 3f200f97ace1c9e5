// All themes of the differential suite.
import type { Theme } from './scenario.js';
import { catalog } from './scenarios/catalog.js';
import { concurrent } from './scenarios/concurrent.js';
import { copy } from './scenarios/copy.js';
import { cursors } from './scenarios/cursors.js';
import { ddl } from './scenarios/ddl.js';
import { dml } from './scenarios/dml.js';
import { documents } from './scenarios/documents.js';
import { errors } from './scenarios/errors.js';
import { extended } from './scenarios/extended.js';
import { hostile } from './scenarios/hostile.js';
import { objects } from './scenarios/objects.js';
import { pipelines } from './scenarios/pipelines.js';
import { procedures } from './scenarios/procedures.js';
import { select } from './scenarios/select.js';
import { sessionState } from './scenarios/session-state.js';
import { settings } from './scenarios/settings.js';
import { startup } from './scenarios/startup.js';
import { texts } from './scenarios/texts.js';
import { transactions } from './scenarios/transactions.js';
import { types } from './scenarios/types.js';

export const THEMES: readonly Theme[] = [
  ...[concurrent, select, types, documents, dml, ddl, errors, transactions, settings, cursors, extended, pipelines],
  ...[copy, sessionState, procedures, texts, startup, hostile, catalog, objects],
];
