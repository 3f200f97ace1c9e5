// SASLprep (RFC 4013) of a password, as Postgres does it in src/common/saslprep.c: a password that cannot be prepared
// counts with its bytes as they are. Only passwords of our own configuration pass here; clients prepare theirs.
import { saslprep } from '@mongodb-js/saslprep';

// Postgres checks the code points as they were typed, the library those left after NFKC. So what is unassigned in
// Unicode 3.2 or prohibited, but has an allowed NFKC form (superscripts, squared letters and ideographs, U+0340), would
// be mapped here and taken raw there: 701 code points of Unicode 17, found by running both rules over all of them.
// Not levelled: right-to-left presentation forms (U+FB1D to U+FEFC), whose decomposition changes the bidi rule's answer.
const RAW_IN_POSTGRES =
  /[\u0340-\u0341\u03f9\u10fc\u1d2c-\u1dbf\u2090-\u209c\u213b-\u213c\u2150-\u2152\u2189\u2c7c-\u2c7d\u321d-\u321e\u3244-\u3250\u327c-\u327e\u32cc-\u32cf\u32ff\u3377-\u337a\u33de-\u33df\u33ff\ua69c-\uab69\ufa2e-\ufa2f\ufa6b-\ufad9\ufe10-\ufe19\ufe47-\ufe48\u{10781}-\u{107b8}\u{1ccd6}-\u{1ccf9}\u{1d4c1}\u{1d6a4}\u{1d7ca}-\u{1d7cb}\u{1e030}-\u{1e06d}\u{1ee00}-\u{1f251}\u{1fbf0}-\u{1fbf9}]/u;

/** The bytes that go into PBKDF2. Never throws. */
export function preparePassword(password: string): Buffer {
  return Buffer.from(RAW_IN_POSTGRES.test(password) ? password : preparedOrRaw(password), 'utf8');
}

function preparedOrRaw(password: string): string {
  try {
    return saslprep(password);
  } catch {
    // The library throws on prohibited and unassigned code points and on mixed directions: Postgres then takes the raw
    // password, so this is an answer and not a failure.
    return password;
  }
}
