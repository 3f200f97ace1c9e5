// Lanes of a block over several shards (D31) that pgkv asks something beside what the client has sent, and who hears of the answers.
// Invariant: each is asked one thing at a time, which is answered once: by its server, or as lost (null).
import type { Clock } from '../../base/clock.js';
import type { BlockAnswer, BlockQuestion } from '../../execute/leased/lane-block.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { Told } from '../../execute/two-phase/lane-branch.js';

interface Question {
  readonly told: Told;
  /** The client may cancel it. */
  readonly mayCancel: boolean;
}

export class AskedLanes {
  readonly #questions = new Map<LeasedLane, Question>();

  get busy(): boolean {
    return this.#questions.size > 0;
  }

  has(lane: LeasedLane): boolean {
    return this.#questions.has(lane);
  }

  /** In the block that it has. */
  ask(lane: LeasedLane, questions: readonly BlockQuestion[], told: Told, mayCancel = true): void {
    this.#questions.set(lane, { told, mayCancel });
    lane.block.ask(questions, (answers) => this.answer(lane, answers));
  }

  /** What begins one. */
  askToBegin(lane: LeasedLane, questions: readonly BlockQuestion[], told: Told): void {
    this.#questions.set(lane, { told, mayCancel: true });
    lane.block.askToBegin(questions, (answers) => this.answer(lane, answers));
  }

  /** @param told all have answered */
  askAll(lanes: readonly LeasedLane[], questions: readonly BlockQuestion[], told: () => void): void {
    let left = lanes.length;
    for (const lane of lanes) this.ask(lane, questions, () => --left === 0 && told());
  }

  /** Their blocks end by what the client has said: nothing of that is cancelled. */
  rollBack(lanes: readonly LeasedLane[], told: () => void): void {
    let left = lanes.length;
    for (const lane of lanes) this.ask(lane, ['ROLLBACK'], () => --left === 0 && told(), false);
  }

  answer(lane: LeasedLane, answers: readonly BlockAnswer[] | null): void {
    const question = this.#questions.get(lane);
    this.#questions.delete(lane);
    question?.told(answers);
  }

  /** CancelRequest of the client. */
  cancel(): void {
    for (const [lane, { mayCancel }] of this.#questions) if (mayCancel) lane.cancel();
  }

  /** Nobody answers any more: what is being committed goes on, as lost where its connections are closed. */
  abandon(clock: Clock): void {
    for (const lane of [...this.#questions.keys()]) clock.after(0, () => this.answer(lane, null));
  }
}
