// Why a port could not be had, in words that say what to do.
import { messageOf } from './errors.js';

export class ListenError extends Error {
  readonly host: string;
  readonly port: number;
  readonly section: 'listen' | 'http';
  /** The system's code: EADDRINUSE, EACCES, EADDRNOTAVAIL …; '' where it gave none. */
  readonly code: string;

  /** `section` is the one of the settings file that names the port. */
  constructor(section: 'listen' | 'http', host: string, port: number, cause: unknown) {
    const code = (cause as NodeJS.ErrnoException).code ?? '';
    super(describe(`port in [${section}]`, { section, host, port }, code, cause), { cause });
    this.name = 'ListenError';
    this.host = host;
    this.port = port;
    this.section = section;
    this.code = code;
  }

  /** The same for whoever names the port elsewhere: by a flag of the command line. */
  saying(flag: string): string {
    return describe(flag, this, this.code, this.cause);
  }
}

/** `setting`: where the port is chosen. */
function describe(
  setting: string,
  { section, host, port }: Pick<ListenError, 'section' | 'host' | 'port'>,
  code: string,
  cause: unknown,
): string {
  switch (code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is in use by another process: choose another (${setting}), or 0 for a free one`;
    case 'EACCES':
      return `port ${port} on ${host} may not be used by this user: choose one above 1023 (${setting})`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `${host} is not an address of this machine: change host in [${section}]`;
    default:
      return `cannot listen on port ${port} on ${host}: ${messageOf(cause)}`;
  }
}
