// Which system error a failed file operation met.

/** The errno name (`ENOENT`, `EACCES` …) of a failed system call, undefined for any other error. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
