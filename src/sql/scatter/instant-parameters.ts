// The pseudo-parameters by which all shards of a statement are told one time (one-instant.ts): numbered beyond any that a
// client's text has while it is planned, and behind the client's own when it is run, which is when their number is known.
import type { TextParts } from '../text/text-parts.js';

/** Postgres allows 65535 at most. */
export const FIRST_INSTANT = 65_534;
const IN_TEXT = /\$(6553[45])(?!\d)/g;

/** now() of one server for all shards. */
export const TRANSACTION_INSTANT = `$${FIRST_INSTANT}::pg_catalog.timestamptz`;
/** Its statement_timestamp(). */
export const STATEMENT_INSTANT = `$${FIRST_INSTANT + 1}::pg_catalog.timestamptz`;

/** @param first the number that now() gets; statement_timestamp() gets the next one */
export const numberedInstants = (parts: TextParts, first: number): TextParts =>
  parts.map((part) =>
    typeof part === 'number'
      ? part
      : part.replace(IN_TEXT, (_, number) => `$${first + Number(number) - FIRST_INSTANT}`),
  );
