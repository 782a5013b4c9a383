/** The pushes of this tab: the cursor, written down with a small delay, and answers that wait for a connection. */
import { answerFrame, type Json, type PushFrame } from "../protocol/frames";
import { type CursorAnswer, PushCursor, type Verdict } from "./cursor";
import { cursorStore } from "./storage";

/** Pushes come in bursts; the storage is written once per this time. */
const SAVE_MS = 200;
const MAX_KEPT_ANSWERS = 20;

export class PushInbox {
  private readonly cursor = new PushCursor(cursorStore.load());
  private timer: ReturnType<typeof setTimeout> | undefined;
  private answers: string[] = [];

  /** Judges one push. */
  see(frame: PushFrame): Verdict {
    const verdict = this.cursor.see(frame.meta?.seq, frame.meta?.epoch);
    if (verdict.kind === "new") this.timer ??= setTimeout(() => this.save(), SAVE_MS);
    return verdict;
  }

  /** What to tell `session.resume`. */
  resumeParams(sid: string): { last_seq?: number; epoch?: string | number } {
    return this.cursor.resumeParams(sid);
  }

  /** Takes over what login or resume answered; returns how many pushes are lost. */
  attach(answer: CursorAnswer): number {
    const missed = this.cursor.attach(answer);
    this.save();
    return missed;
  }

  /** The session is over. */
  clear(): void {
    this.cursor.clear();
    this.answers = [];
    this.save();
  }

  /** Answers a push with `send`, or keeps the answer when that is not possible now. */
  answer(push: PushFrame, result: Json, send: (text: string) => boolean): void {
    if (!push.id) return;
    const text = JSON.stringify(answerFrame({ id: push.id, method: push.method }, result));
    if (!send(text)) this.answers = [...this.answers, text].slice(-MAX_KEPT_ANSWERS);
  }

  flushAnswers(send: (text: string) => boolean): void {
    for (const text of this.answers.splice(0)) send(text);
  }

  save(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    cursorStore.save(this.cursor.state);
  }
}
