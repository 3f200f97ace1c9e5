// What is known of a database's code is of one moment: what is made between two questions is not missed.
import t from 'tap';
import { type Ask, readNews } from '../../../src/backend/pool/routine-news.js';

t.test('a trigger that is made behind the reading and in front of the digest is read', async (t) => {
  let isThere = false;
  let reads = 0;
  const ask: Ask = async (sql) => {
    if (sql.startsWith('EXECUTE')) return [['f', isThere ? 'with it' : 'without', isThere ? '12' : '11', 'f']];
    reads++;
    const rows: [string, string][] = [
      ['n', 'app.mark'],
      ['k', 'p16384'],
      ['i', '11'],
    ];
    if (isThere) rows.push(['t', '']);
    // Committed by the time of the next question.
    isThere = true;
    return rows;
  };
  const known = await readNews(ask, null);
  t.type(known, 'object');
  t.equal(typeof known === 'object' && known.routines.writesLeaveState, true);
  t.equal(reads, 2);
});

t.test('code that never comes to rest is refused', async (t) => {
  let count = 0;
  const ask: Ask = async (sql) =>
    sql.startsWith('EXECUTE')
      ? [['f', `${count++}`, '11', 'f']]
      : [
          ['k', 'p16384'],
          ['i', '11'],
        ];
  t.equal(await readNews(ask, null), 'refused');
});
