import t from 'tap';
import { CommandFailure } from '../../../src/cli/command-failure.js';
import { connectionTarget, tlsSettings } from '../../../src/cli/connection-target.js';

t.test('without anything, the target is the router of pgkv dev', async (t) => {
  t.match(connectionTarget({}, {}), {
    host: '127.0.0.1',
    port: 7432,
    user: 'pgkv',
    database: 'kv',
    sslMode: 'disable',
  });
});

t.test('options go before the URL, the URL before the environment', async (t) => {
  const env = { PGHOST: 'env', PGPORT: '1', PGUSER: 'eve', PGDATABASE: 'edb', PGPASSWORD: 'epw', PGSSLMODE: 'require' };
  t.match(connectionTarget({}, env), {
    host: 'env',
    port: 1,
    user: 'eve',
    database: 'edb',
    password: 'epw',
    sslMode: 'require',
  });
  const url = 'postgresql://us%40er:p%3Aw@[::1]:77/d%20b?sslmode=verify-full&application_name=x';
  t.match(connectionTarget({ url }, env), {
    host: '::1',
    port: 77,
    user: 'us@er',
    password: 'p:w',
    database: 'd b',
    sslMode: 'verify-full',
    applicationName: 'x',
  });
  t.match(connectionTarget({ url: 'postgres:///only' }, env), { host: 'env', user: 'eve', database: 'only' });
  t.match(connectionTarget({ url: 'postgres://u@/d?host=/tmp/s&port=5' }, {}), { host: '/tmp/s', port: 5, user: 'u' });
  t.match(connectionTarget({ url, port: 5, dbname: 'o' }, env), { port: 5, database: 'o', user: 'us@er' });
});

t.test('what cannot be read is refused with what to write instead, without showing a password', async (t) => {
  const refused = (act: () => unknown) => {
    try {
      act();
    } catch (error) {
      if (error instanceof CommandFailure) return `${error.message} ${error.hint}`;
      throw error;
    }
    return 'accepted';
  };
  const wrongUrl = refused(() => connectionTarget({ url: 'mysql://me:secret@h' }, {}));
  t.match(wrongUrl, 'is not a connection URL Write postgres://');
  t.notMatch(wrongUrl, 'secret');
  t.match(
    refused(() => connectionTarget({ url: 'postgres://h/d?ssl=1' }, {})),
    'unknown parameter "ssl"',
  );
  t.match(
    refused(() => connectionTarget({}, { PGPORT: '70000' })),
    '"70000" is not a port',
  );
  t.match(
    refused(() => connectionTarget({}, { PGSSLMODE: 'always' })),
    '"always" is not an sslmode',
  );
  const absent = connectionTarget({ url: 'postgres://h/d?sslmode=verify-ca&sslrootcert=/does/not/exist' }, {});
  t.match(
    refused(() => tlsSettings(absent)),
    'cannot read /does/not/exist',
  );
});

t.test('sslmode means what it means to libpq', async (t) => {
  const tls = (sslMode: string) => tlsSettings(connectionTarget({}, { PGSSLMODE: sslMode }));
  t.equal(tls('disable'), false);
  t.match(tls('require'), { rejectUnauthorized: false });
  t.strictSame(tls('verify-full'), {});
  const withRoot = connectionTarget({}, { PGSSLMODE: 'require', PGSSLROOTCERT: new URL(import.meta.url).pathname });
  t.notOk('rejectUnauthorized' in (tlsSettings(withRoot) || {}), 'a root certificate makes require verify the chain');
});
