// How the embedded cluster says what it does; the composition root passes its logger.

export type ClusterLog = (level: 'info' | 'warn' | 'error', message: string, fields?: object) => void;
