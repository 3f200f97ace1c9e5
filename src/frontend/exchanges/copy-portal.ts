// A portal of COPY … FROM STDIN into a key-value table. It can be run once.
import { Frontend } from '../../wire/protocol.js';
import { NO_DATA } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnAnswers } from './own-answers.js';
import { cannotBeRun, type OwnPortal } from './own-portals.js';

/** What is copied, by which map. */
export type CopySource = Pick<Unit, 'template' | 'text' | 'view'>;

export class CopyPortal implements OwnPortal {
  readonly endsBlock = false;
  readonly template: Unit['template'];
  readonly #text: string;
  readonly #name: string;
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #run: (source: CopySource) => void;
  #isRun = false;

  /** @param run its data is asked for */
  constructor(
    context: ExchangeContext,
    answers: OwnAnswers,
    name: string,
    { template, text }: Unit,
    run: (source: CopySource) => void,
  ) {
    this.#context = context;
    this.#answers = answers;
    this.#name = name;
    this.template = template;
    this.#text = text;
    this.#run = run;
  }

  describe(): void {
    this.#context.output.send(NO_DATA);
  }

  execute(): void {
    if (this.#isRun) return this.#answers.error(Frontend.execute, cannotBeRun(this.#name));
    this.#isRun = true;
    this.#run({ template: this.template, text: this.#text, view: this.#context.kv.view });
  }

  close(): void {
    // What is under way is the exchange's.
  }
}
