// How pgkv proves to a server that it may log in as a role.
import type { ScramCredential } from '../../wire/scram-client.js';

export type Credential =
  /** The server is expected to trust us (loopback, socket). */
  | { readonly kind: 'none' }
  /** A password from the configuration, or the ClientKey learnt from the client's own SCRAM exchange (D17). */
  | ScramCredential;
