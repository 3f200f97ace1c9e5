// What a differential scenario is: steps that are played to plain Postgres and to pgkv, whose answers must be equal.
import { type FrontendMessage, readyForQueryCount, type Value } from '../support/frontend-message.js';
import type { Until } from '../support/wire-client.js';

/** How steps given as SQL travel: simple query, or extended with results in text or in binary. */
export type SqlMode = 'simple' | 'text' | 'binary';
/** `wire`: the scenario spells out all its messages. */
export type Mode = SqlMode | 'wire';

/** A group of scenarios over the same tables. */
export interface Theme {
  readonly name: string;
  /** Objects that exist, freshly made, before each scenario; made by the role `app`. */
  readonly fixture?: string;
  /** Rows of key-value tables, as SQL of the superuser: each server keeps those that are its own. */
  readonly rows?: string;
  readonly scenarios: readonly Scenario[];
}

export interface Scenario {
  /** A sentence; unique in the suite. */
  readonly name: string;
  readonly steps: readonly Step[];
  /** SQL run on the server itself, as superuser, before the first step. */
  readonly setup?: string;
  /** SQL run on the server itself, as superuser, after the last step: for what lives outside the schema. */
  readonly teardown?: string;
  /** Default: every mode that the steps allow. */
  readonly modes?: readonly Mode[];
  /** Leaves the fixture as it was, so that it need not be made again. */
  readonly readOnly?: boolean;
  readonly sessions?: Readonly<Record<string, SessionOptions>>;
  /** Of key-value tables: played on one shard only, or on several only. */
  readonly shards?: 'one' | 'several';
  /** Not played on servers of a lower or higher major version. */
  readonly sinceMajor?: number;
  readonly untilMajor?: number;
}

export interface SessionOptions {
  readonly user?: string;
  readonly database?: string;
  readonly protocol?: number;
  readonly parameters?: Readonly<Record<string, string>>;
}

/** Steps act on session `a` unless they name another; a session connects at its first step. */
export type Step =
  /** One statement (simple mode: or several), sent as the mode says. */
  | string
  | SqlStep
  | SendStep
  /** Opens a bare connection as the session and sends these bytes instead of an ordinary StartupMessage. */
  | { readonly open: Buffer; readonly until?: Until; readonly session?: string }
  /** Waits until a statement on the server is blocked by a lock. */
  | { readonly blocked: string }
  /** The session's connection vanishes without Terminate. */
  | { readonly vanish: string }
  /** SQL run by the superuser on the servers themselves: on Postgres, and on each server behind pgkv. */
  | { readonly behind: { readonly postgres: string; readonly pgkv: string } }
  /** A simple query of the session that is not sent to pgkv, where it has nothing to do; its answer is not compared. */
  | { readonly onlyPostgres: string; readonly session?: string };

/** What of an answer is not compared as it stands. */
export interface AnswerForm {
  /** Rows that follow each other may come in any order. */
  readonly anyOrder?: true;
  /** Times with microseconds are those of the statement, and differ. */
  readonly anyTime?: true;
  /** From which table columns come is not compared: rows put together from several shards come from no one table. */
  readonly anyOrigin?: true;
  /**
   * pgkv answers 0A000 with a message that contains this, and a HINT. Postgres is sent something that fails: both are to
   * be left as if the statement had not been.
   */
  readonly refused?: string;
}

export interface SqlStep extends AnswerForm {
  readonly sql: string;
  /** With parameters the extended protocol is used in every mode. */
  readonly params?: readonly Value[];
  readonly types?: readonly number[];
  readonly session?: string;
}

export interface SendStep extends AnswerForm {
  readonly send: readonly FrontendMessage[];
  /** What Postgres is sent instead; the same number of answers is waited for. */
  readonly postgres?: readonly FrontendMessage[];
  /** Default: as many ReadyForQuery as the messages ask for. */
  readonly until?: Until;
  readonly session?: string;
  /** Sends the bytes in packets cut at these offsets. */
  readonly cutAt?: readonly number[];
}

export function modesOf(scenario: Scenario): readonly Mode[] {
  if (scenario.modes) return scenario.modes;
  const sqlSteps = scenario.steps.filter((step) => typeof step === 'string' || 'sql' in step);
  if (sqlSteps.length === 0) return ['wire'];
  const allHaveParameters = sqlSteps.every((step) => typeof step !== 'string' && step.params !== undefined);
  return allHaveParameters ? ['text', 'binary'] : ['simple', 'text', 'binary'];
}

/**
 * Some of its modes, where not all are played: one format of results instead of both, and the statements as simple queries wherever
 * they can be. @param turn goes on from scenario to scenario
 */
export function someModesOf(scenario: Scenario, turn: number): readonly Mode[] {
  const other: Mode = turn % 2 === 0 ? 'text' : 'binary';
  return scenario.modes ? modesOf(scenario) : modesOf(scenario).filter((mode) => mode !== other);
}

export function playedOn(scenario: Scenario, major: number): boolean {
  return major >= (scenario.sinceMajor ?? 0) && major <= (scenario.untilMajor ?? Number.POSITIVE_INFINITY);
}

export function sessionOf(step: Step): string {
  if (typeof step === 'string') return 'a';
  if ('blocked' in step) return step.blocked;
  if ('vanish' in step) return step.vanish;
  if ('behind' in step) return 'server';
  return step.session ?? 'a';
}

/** The step in a few words. */
export function titleOf(step: Step): string {
  const text =
    typeof step === 'string' ? step : 'sql' in step ? step.sql : 'send' in step ? titleOfMessages(step.send) : '';
  if (text !== '') return text.replace(/\s+/g, ' ').slice(0, 100);
  return Object.keys(step)[0] ?? '';
}

function titleOfMessages(messages: readonly FrontendMessage[]): string {
  return messages
    .map((message) => {
      if (typeof message === 'string') return message;
      const [kind, value] = Object.entries(message)[0] as [string, unknown];
      return typeof value === 'string' && value.length < 40 ? `${kind} ${value}` : kind;
    })
    .join(', ');
}

/** The messages of an SQL step in a mode. */
export function messagesOf(step: SqlStep, mode: Mode): readonly FrontendMessage[] {
  if (mode === 'simple' && !step.params) return [{ query: step.sql }];
  const parse: FrontendMessage = { parse: step.sql, ...(step.types && { types: step.types }) };
  const params = step.params ?? [];
  const bind: FrontendMessage = { bind: params, resultFormats: mode === 'binary' ? [1] : [] };
  // Text mode also asks for the description of the statement, as drivers do that prepare before they bind.
  const described: FrontendMessage[] = mode === 'binary' ? [] : [{ describe: 'statement' }];
  return [parse, ...described, bind, { describe: 'portal' }, { execute: '' }, 'sync'];
}

/** Every distinct SQL text the scenario sends, whatever the message. */
export function statementsOf(scenario: Scenario): string[] {
  const texts: string[] = [];
  for (const step of scenario.steps) {
    if (typeof step === 'string') texts.push(step);
    else if ('sql' in step) texts.push(step.sql);
    else if ('send' in step) {
      for (const message of step.send) {
        if (typeof message === 'string') continue;
        if ('query' in message) texts.push(message.query.toString('utf8'));
        if ('parse' in message) texts.push(message.parse.toString('utf8'));
      }
    }
  }
  return texts;
}

export function untilOf(step: SendStep): Until {
  return step.until ?? readyForQueryCount(step.send);
}
