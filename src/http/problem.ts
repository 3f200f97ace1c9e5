// Answers that are not what was asked for, as application/problem+json (RFC 9457).
import { STATUS_CODES } from 'node:http';
import type { FastifyReply } from 'fastify';

export interface Problem {
  readonly status: number;
  /** What happened here, for the person who reads it. */
  readonly detail: string;
  /** Further members of the object. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8';

export function problemText({ status, detail, extra }: Problem): string {
  return JSON.stringify({ type: 'about:blank', title: STATUS_CODES[status] ?? 'Error', status, detail, ...extra });
}

export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  return reply.code(problem.status).header('content-type', PROBLEM_TYPE).send(problemText(problem));
}
