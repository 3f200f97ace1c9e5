// What is known of a database's routines, brought up to date: one prepared question tells whether code that matters has come or
// gone since the last one, which most DDL leaves as it is; only if so is all of it read again.
// Invariant: what is given back is as the database was when it was asked for, or later.
import { PgkvError } from '../../base/errors.js';
import { type Landmarks, type Routines, readRoutines } from './routines.js';
import { MARK_CLASSES, MARKS_MAX, NEWS_SQL, ROUTINES_SQL } from './routines-sql.js';

export type Ask = (sql: string) => Promise<(string | null)[][]>;

export interface Known {
  readonly routines: Routines;
  /** For NEWS_SQL, after the snapshot; null: there are too many marks. */
  readonly marks: string | null;
  /** Of what matters, see NEWS_SQL. */
  readonly digest: string;
  /** xid8: where the next question goes on. */
  readonly snapshot: string;
}

/** Code that matters may be made faster than it is read, which is done twice where it has changed. */
const TRIES_MAX = 6;

/** `refused`: the server will not say. `lost`: it could not, since the connection broke. */
export type Failure = 'refused' | 'lost';

export async function readNews(ask: Ask, last: Known | null): Promise<Known | Failure> {
  let known = last;
  let digest = last?.digest ?? null;
  try {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      if (known === null || (known === last && known.marks === null)) known = await readAll(ask);
      if (known.marks === null) return known;
      const news = await askNews(ask, known);
      if (!news.hasChanged && news.digest === digest) {
        const routines = { ...known.routines, hasSequences: news.hasSequences };
        return { ...known, routines, digest, snapshot: news.snapshot };
      }
      // A digest that is new is younger than what was read before it (a trigger may have come between): what is read behind it
      // holds if the digest is the same once more.
      digest = news.hasChanged || digest !== null ? null : news.digest;
      known = null;
    }
    return 'refused';
  } catch (error) {
    // What it is that cannot be asked is told where it matters: by the health checks, and to who logs in.
    return isLoss(error) ? 'lost' : 'refused';
  }
}

/** The connection broke, or none could be made: nothing was said against the question. */
function isLoss(error: unknown): boolean {
  if (!(error instanceof PgkvError) || error.errorName !== 'server_unreachable') return false;
  const { cause } = error;
  return cause === undefined || (cause instanceof PgkvError && cause.errorName === 'server_unreachable');
}

async function readAll(ask: Ask): Promise<Known> {
  let known: Known | null = null;
  const query = readRoutines(0, (routines, _failure, landmarks) => {
    known = { routines, marks: marksText(landmarks), digest: '', snapshot: landmarks.snapshot };
  });
  for (const values of await ask(ROUTINES_SQL)) query.row(values);
  query.ready();
  return known!;
}

function marksText({ marks, snapshot }: Landmarks): string | null {
  if (marks.length > MARKS_MAX || snapshot === '') return null;
  const lists = MARK_CLASSES.map((one) => marks.filter((mark) => mark[0] === one).map((mark) => mark.slice(1)));
  return lists.map((oids) => `'{${oids.join(',')}}'`).join(',');
}

interface News {
  readonly hasChanged: boolean;
  readonly digest: string;
  readonly snapshot: string;
  readonly hasSequences: boolean;
}

/** Prepared: planning it anew costs 3 ms, running it half of one. */
async function askNews(ask: Ask, { snapshot, marks }: Known): Promise<News> {
  const execute = `EXECUTE pgkv_news('${snapshot}',${marks})`;
  let rows: (string | null)[][];
  try {
    rows = await ask(execute);
  } catch {
    // Nearly always because the connection is new; what else it may be shows now.
    rows = await ask(`${NEWS_SQL};${execute}`);
  }
  const [changed, digest, at, sequences] = rows[0]!;
  return { hasChanged: changed !== 'f', digest: digest ?? '', snapshot: at ?? '', hasSequences: sequences !== 'f' };
}
