// Start-up: protocol versions, parameters, refusals, requests in front of the StartupMessage.
import { cstring, encodeRequest, encodeStartup, int32, REQUEST_CODES } from '../../support/frontend-message.js';
import { PROTOCOL_3_0, PROTOCOL_3_2 } from '../../support/wire-client.js';
import type { Scenario, SessionOptions, Theme } from '../scenario.js';

const starts = (name: string, options: SessionOptions, ...queries: string[]): Scenario => ({
  name: `start-up: ${name}`,
  readOnly: true,
  sessions: { a: options },
  steps: [{ send: queries.map((query) => ({ query })), until: queries.length }],
});

const refused = (name: string, bytes: Buffer): Scenario => ({
  name: `start-up: ${name}`,
  readOnly: true,
  steps: [{ open: bytes, until: 'closed' }],
});

const SHOW =
  'select current_setting($$application_name$$), current_setting($$DateStyle$$), current_setting($$search_path$$)';

export const startup: Theme = {
  name: 'start-up',
  scenarios: [
    starts(
      'parameters that are settings',
      { parameters: { application_name: 'mine', DateStyle: 'German', search_path: 'pg_catalog' } },
      SHOW,
      'reset all',
      SHOW,
    ),
    starts(
      'options',
      { parameters: { options: '-c work_mem=3MB -c app.tenant=from\\ options --enable-seqscan=off' } },
      'show work_mem',
      'show app.tenant',
      'show enable_seqscan',
      'reset all',
      'show work_mem',
    ),
    starts('an unknown parameter', { parameters: { no_such_setting: '1' } }),
    starts('a value that does not fit', { parameters: { work_mem: 'much' } }),
    starts('a setting only the superuser may set', { parameters: { session_replication_role: 'replica' } }),
    starts(
      'a custom setting',
      { parameters: { 'app.tenant': 'started' } },
      'show app.tenant',
      'reset app.tenant',
      'show app.tenant',
    ),
    starts('bad options', { parameters: { options: '-c' } }),
    starts('an empty application name', { parameters: { application_name: '' } }, 'show application_name'),
    starts('a long application name', { parameters: { application_name: 'n'.repeat(100) } }, 'show application_name'),
    starts(
      'a time zone',
      { parameters: { TimeZone: 'Asia/Tokyo' } },
      'show timezone',
      `set timezone = 'UTC'; reset timezone; show timezone`,
    ),
    starts('an unknown database', { database: 'no_such_database' }),
    starts('an unknown role', { user: 'no_such_role' }),
    starts('another role', { user: 'other' }, 'select current_user', 'select * from pg_authid'),
    starts('the superuser', { user: 'postgres' }, 'select current_user', 'show is_superuser'),
    starts('the database template1', { database: 'template1' }, 'select current_database()'),
    starts('a database that takes no connections', { database: 'template0' }),
    starts('protocol 3.0', { protocol: PROTOCOL_3_0 }, 'select 1'),
    starts('protocol 3.2', { protocol: PROTOCOL_3_2 }, 'select 1'),
    starts(
      'protocol 3.9999 with an unknown option',
      { protocol: (3 << 16) | 9999, parameters: { '_pq_.test_protocol_negotiation': 'x' } },
      'select 1',
    ),
    starts('protocol 3.0 with an unknown option', { parameters: { '_pq_.no_such': 'x' } }, 'select 1'),
    starts('protocol 3.1', { protocol: (3 << 16) | 1 }, 'select 1'),
    starts('replication off', { parameters: { replication: 'false' } }, 'select 1'),
    refused('protocol 2.0', encodeStartup(2 << 16, { user: 'app' })),
    refused('protocol 4.0', encodeStartup(4 << 16, { user: 'app' })),
    refused('no user', encodeStartup(PROTOCOL_3_0, { database: 'postgres' })),
    refused('an empty user', encodeStartup(PROTOCOL_3_0, { user: '' })),
    refused(
      'parameters without their end',
      Buffer.concat([int32(8 + 9), int32(PROTOCOL_3_0), cstring('user'), Buffer.from('app\0')]),
    ),
    refused('a length of three', Buffer.concat([int32(3), int32(PROTOCOL_3_0)])),
    refused('a length beyond the limit', Buffer.concat([int32(20000), int32(PROTOCOL_3_0)])),
    refused('a negative length', Buffer.concat([int32(-1), int32(PROTOCOL_3_0)])),
    refused('garbage', Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')),
    refused(
      'a cancel request that matches nothing',
      encodeRequest(REQUEST_CODES.cancel, Buffer.concat([int32(1), int32(2)])),
    ),
    refused('a cancel request without a key', encodeRequest(REQUEST_CODES.cancel)),
    {
      name: 'start-up: a database that is not given is the one of the role',
      readOnly: true,
      steps: [{ open: encodeStartup(PROTOCOL_3_0, { user: 'other' }), until: 'closed' }],
    },
  ],
};
