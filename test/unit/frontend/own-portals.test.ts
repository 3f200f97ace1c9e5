// What portals of pgkv's own are told of the messages about them.
import t from 'tap';
import type { ClientOutput } from '../../../src/frontend/exchanges/client-output.js';
import { OwnPortals } from '../../../src/frontend/exchanges/own-portals.js';
import type { Unit } from '../../../src/frontend/unit/unit.js';
import { encodeAll, type FrontendMessage } from '../../support/frontend-message.js';

/** The first of the messages, the others behind it in the buffer. */
function unitOf(messages: readonly FrontendMessage[], arrived = Number.POSITIVE_INFINITY): Unit {
  const all = encodeAll(messages);
  const buffer = all.subarray(0, arrived);
  return { type: buffer[0]!, buffer, start: 0, end: 1 + buffer.readInt32BE(1) } as Unit;
}

function bench() {
  const told: string[] = [];
  const portals = new OwnPortals({ send: () => undefined } as unknown as ClientOutput);
  for (const name of ['p', 'pp', '']) {
    portals.bind(name, {
      endsBlock: false,
      describe: (executeFollows) => told.push(`${name} described, ${executeFollows ? 'then' : 'not'} executed`),
      execute: (rowsMax) => told.push(`${name} executed for ${rowsMax}`),
      close: () => undefined,
    });
  }
  return { portals, told };
}

t.test('a negative count of rows is none, as in Postgres', async (t) => {
  for (const [rows, wanted] of [
    [-(2 ** 31), 0],
    [-1, 0],
    [0, 0],
    [1, 1],
    [2 ** 31 - 1, 2 ** 31 - 1],
  ] as const) {
    const { portals, told } = bench();
    portals.take(unitOf([{ execute: 'p', rows }]));
    t.same(told, [`p executed for ${wanted}`]);
  }
});

t.test('whether the Execute that follows is of the portal described, however much of it has arrived', async (t) => {
  for (const name of ['p', 'pp', '']) {
    for (const other of ['p', 'pp', '']) {
      const messages: FrontendMessage[] = [{ describe: 'portal', name }, { execute: other }, 'sync'];
      const described = encodeAll(messages.slice(0, 1)).length;
      for (let arrived = described; arrived <= encodeAll(messages).length; arrived++) {
        const { portals, told } = bench();
        portals.take(unitOf(messages, arrived));
        const isKnown = arrived > described + 5 + other.length;
        t.same(told, [`${name} described, ${isKnown && name === other ? 'then' : 'not'} executed`], `${arrived} bytes`);
      }
    }
  }
});
