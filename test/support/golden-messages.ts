// One of every message of the protocol (versions 3.0 to 3.2), byte for byte, written down by hand from the manual's
// "Message Formats" page: no encoder stands between these bytes and the page.

export interface GoldenMessage {
  readonly name: string;
  readonly bytes: Buffer;
}

const hex = (name: string, text: string): GoldenMessage => ({
  name,
  bytes: Buffer.from(text.replaceAll(/\s/g, ''), 'hex'),
});

/** Messages a client sends after start-up. */
export const FRONTEND_MESSAGES: readonly GoldenMessage[] = [
  // Portal "p", statement "s1", formats [text, binary], values "7", NULL, results [binary].
  hex('Bind', '42 0000001e 7000 733100 0002 0000 0001 0002 00000001 37 ffffffff 0001 0001'),
  hex('Close', '43 00000008 53 733100'),
  hex('CopyData', '64 00000008 61 09 62 0a'),
  hex('CopyDone', '63 00000004'),
  hex('CopyFail', '66 00000009 6e6f7065 00'),
  hex('Describe', '44 00000006 50 00'),
  hex('Execute', '45 0000000a 7000 00000064'),
  hex('Flush', '48 00000004'),
  // OID 1574, one binary argument of 4 bytes, text result.
  hex('FunctionCall', '46 00000018 00000626 0001 0001 0001 00000004 00000007 0000'),
  hex('Parse', '50 0000001b 733100 53454c45435420243100 0002 00000017 00000019'),
  hex('Query', '51 0000000d 53454c454354203100'),
  hex('Sync', '53 00000004'),
  hex('Terminate', '58 00000004'),
];

/** The answers to an authentication request; they share one type byte. */
export const PASSWORD_MESSAGES: readonly GoldenMessage[] = [
  hex('PasswordMessage', '70 0000000b 73656372657400'),
  hex('SASLInitialResponse', '70 0000001e 534352414d2d5348412d32353600 00000008 6e2c2c6e3d2c723d'),
  hex('SASLResponse', '70 00000007 633d62'),
];

/** Messages a server sends. */
export const BACKEND_MESSAGES: readonly GoldenMessage[] = [
  hex('AuthenticationOk', '52 00000008 00000000'),
  hex('AuthenticationCleartextPassword', '52 00000008 00000003'),
  hex('AuthenticationMD5Password', '52 0000000c 00000005 01020304'),
  hex('AuthenticationSASL', '52 00000017 0000000a 534352414d2d5348412d32353600 00'),
  hex('AuthenticationSASLContinue', '52 0000000b 0000000b 723d61'),
  hex('AuthenticationSASLFinal', '52 0000000b 0000000c 763d62'),
  hex('BackendKeyData', '4b 0000000c 000004d2 00000929'),
  hex('BackendKeyData of 3.2', `4b 00000028 000004d2 ${'5a'.repeat(32)}`),
  hex('BindComplete', '32 00000004'),
  hex('CloseComplete', '33 00000004'),
  hex('CommandComplete', '43 0000000d 53454c454354203100'),
  hex('CopyData', '64 00000008 61 09 62 0a'),
  hex('CopyDone', '63 00000004'),
  hex('CopyInResponse', '47 0000000b 00 0002 0000 0000'),
  hex('CopyOutResponse', '48 00000009 01 0001 0001'),
  hex('CopyBothResponse', '57 00000007 00 0000'),
  hex('DataRow', '44 0000000f 0002 00000001 31 ffffffff'),
  hex('EmptyQueryResponse', '49 00000004'),
  hex('ErrorResponse', '45 00000017 534552524f5200 43343236303100 4d6e6f00 00'),
  hex('FunctionCallResponse', '56 0000000c 00000004 00000007'),
  hex('NegotiateProtocolVersion', '76 00000013 00030002 00000001 5f70715f2e7800'),
  hex('NoData', '6e 00000004'),
  hex('NoticeResponse', '4e 00000010 534e4f5449434500 4d6100 00'),
  hex('NotificationResponse', '41 0000000d 000004d2 636800 7000'),
  hex('ParameterDescription', '74 0000000a 0001 00000017'),
  hex('ParameterStatus', '53 00000014 54696d655a6f6e6500 4575726f706500'),
  hex('ParseComplete', '31 00000004'),
  hex('PortalSuspended', '73 00000004'),
  hex('ReadyForQuery', '5a 00000005 49'),
  hex('RowDescription', '54 0000001a 0001 6e00 00000000 0000 00000017 0004 ffffffff 0000'),
];
