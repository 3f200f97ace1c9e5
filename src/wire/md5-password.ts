// The answer to AuthenticationMD5Password (the manual's "Message Flow: Start-up"), for servers whose role still has an
// md5 password. Needs the plaintext: a ClientKey is of no use there. Without SASLprep, unlike SCRAM.
import { createHash } from 'node:crypto';

const md5Hex = (data: Buffer): string => createHash('md5').update(data).digest('hex');

/** The text of PasswordMessage, without its terminating NUL. `salt`: the 4 bytes of the server's message. */
export function md5Password(user: string, password: string, salt: Buffer): string {
  const stored = md5Hex(Buffer.from(password + user, 'utf8'));
  return `md5${md5Hex(Buffer.concat([Buffer.from(stored, 'latin1'), salt]))}`;
}
