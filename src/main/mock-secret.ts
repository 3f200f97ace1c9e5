// The secret behind stand-ins for the verifiers of unknown roles. Kept beside the catalogue, so that what an unknown role is
// shown does not change with a restart, which would tell it from one that exists; without a catalogue it is made anew.
import { readFileSync, writeFileSync } from 'node:fs';
import type { Random } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import { errnoOf } from '../catalog/errno.js';
import type { Settings } from '../config/settings.js';
import type { Logger } from '../telemetry/log.js';

const BYTES = 32;

export function mockSecret({ catalog, auth }: Settings, random: Random, log: Logger): Buffer {
  const fresh = random.bytes(BYTES);
  if (catalog.path === null || auth.method === 'trust') return fresh;
  const path = `${catalog.path}.mock-secret`;
  try {
    try {
      writeFileSync(path, `${fresh.toString('hex')}\n`, { mode: 0o600, flag: 'wx' });
      return fresh;
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    const kept = Buffer.from(readFileSync(path, 'utf8').trim(), 'hex');
    if (kept.length === BYTES) return kept;
    throw new Error('it is not 64 hexadecimal digits');
  } catch (error) {
    log.warn({ path, reason: messageOf(error) }, 'unknown roles will look different after a restart');
    return fresh;
  }
}
