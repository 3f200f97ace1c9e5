// A cancel that ends a deadlock over shards (R66) is told as 40P01; one that comes too late leaves nothing to be told so later.
import t from 'tap';
import { LaneCancels } from '../../../src/execute/leased/lane-cancels.js';
import { CANCELLED, DONE, QuietConnection } from '../../support/quiet-connection.js';

function bench() {
  const server = new QuietConnection(1);
  const landings: (() => void)[] = [];
  const cancels = new LaneCancels(server.receiver, (_connection, landed) => landings.push(landed));
  let told = 0;
  const condemn = () => {
    server.connection.deadlock = { detail: 'a circle', told: () => told++ };
    cancels.send(server.connection);
  };
  return { server, condemn, land: () => landings.shift()!(), told: () => told };
}

t.test('the cancel that was sent is told as a deadlock, whether it is known to have landed or not', async (t) => {
  for (const isLanded of [true, false]) {
    const { server, condemn, land, told } = bench();
    server.ask();
    condemn();
    if (isLanded) land();
    t.match(await server.says(CANCELLED), /40P01.*a circle/s);
    t.equal(told(), 1);
  }
});

t.test('a later cancel, as by statement_timeout, is told as what it is', async (t) => {
  for (const landsWhen of ['at work', 'at rest', 'at work again']) {
    const { server, condemn, land, told } = bench();
    server.ask();
    condemn();
    if (landsWhen === 'at work') land();
    await server.says(DONE);
    if (landsWhen === 'at rest') land();
    server.ask();
    if (landsWhen === 'at work again') {
      land();
      // It may hit this one, whose answer tells.
      await server.says(DONE);
      server.ask();
    }
    t.match(await server.says(CANCELLED), /57014/, landsWhen);
    t.equal(told(), 0);
  }
});
