// Has the current lane made ready for the message at hand: it takes it now, or later, or never, and then the message is
// answered with why. Invariant: a refusal that comes while a message is handled is that message's answer; one that comes
// later is the conversation's to answer, which put the message back.
import type { Handling } from '../../execute/exchange.js';
import type { Template } from '../../sql/plan/template.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnAnswers } from './own-answers.js';

/** `asked`: the lane is at it; bytes: it has refused meanwhile, with this ErrorResponse. Between messages `none`. */
type Readiness = 'none' | 'asked' | Buffer;

/** Asks for one message at a time: the state is back at `none` before the message is answered. */
export class LaneReadiness {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  #state: Readiness = 'none';

  constructor(context: ExchangeContext, answers: OwnAnswers) {
    this.#context = context;
    this.#answers = answers;
  }

  /** Has the current lane take the message at hand; where it cannot serve it, the message is answered. */
  ensure(unit: Unit, template: Template): Handling | 'ready' {
    this.#state = 'asked';
    const ready = this.#context.lanes.current.ensure(template);
    const after = this.#state as Readiness;
    this.#state = 'none';
    if (ready) return 'ready';
    return typeof after === 'string' ? 'wait' : this.#answers.refuse(unit, after);
  }

  /** Whether the message at hand is handled now, so that a refusal is its answer. */
  refused(bytes: Buffer): boolean {
    if (this.#state === 'none') return false;
    this.#state = bytes;
    return true;
  }
}
