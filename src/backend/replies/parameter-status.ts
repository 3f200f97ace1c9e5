// The settings a server reports (ParameterStatus), as immutable interned maps: "this client has been told these" is one
// comparison of pointers.
import { LRUCache } from 'lru-cache';
import { encodeParameterStatus } from '../../wire/server-messages.js';

export type ReportedParameters = ReadonlyMap<string, string>;

/** What the maps that are kept may hold: a search_path may be long. */
const BYTES_MAX = 8 * 2 ** 20;
const MAP_BYTES = 1500;

const interned = new LRUCache<string, ReportedParameters>({
  max: 1024,
  maxSize: BYTES_MAX,
  sizeCalculation: (_, key) => MAP_BYTES + 2 * key.length,
});

/** One map per distinct content (bounded: a map pushed out merely compares as different). Takes over `parameters`. */
export function internParameters(parameters: Map<string, string>): ReportedParameters {
  const key = JSON.stringify([...parameters].sort((a, b) => (a[0] < b[0] ? -1 : 1)));
  const known = interned.get(key);
  if (known !== undefined) return known;
  interned.set(key, parameters);
  return parameters;
}

export function withParameter(parameters: ReportedParameters, name: string, value: string): ReportedParameters {
  return parameters.get(name) === value ? parameters : internParameters(new Map(parameters).set(name, value));
}

/** The ParameterStatus messages that bring a client from what it was told to what holds now. */
export function parameterChanges(told: ReportedParameters, now: ReportedParameters): Buffer[] {
  const messages: Buffer[] = [];
  for (const [name, value] of now) {
    if (told.get(name) !== value) messages.push(encodeParameterStatus(name, value));
  }
  return messages;
}
