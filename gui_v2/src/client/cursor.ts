/**
 * Which pushes this tab has seen (P12): drops duplicates and notices gaps.
 *
 * Numbers are 1, 2, 3 … within an epoch; a new epoch starts over. A tab that resumes without a cursor (it is
 * brand-new) takes the server's current number as its own and lets older ones of the replay through once.
 */
export interface CursorState {
  sid: string;
  epoch: string | number | null;
  last: number;
}

/** Where the pushes stand, as the server says. */
export interface CursorAnswer {
  sid: string;
  epoch: string | number | null;
  seq: number;
  /** First and last push that are lost for good. */
  gap?: { from?: number; to?: number };
}

export type Verdict = { kind: "new"; missed: number } | { kind: "duplicate" };

export class PushCursor {
  private replayed = 0;
  private replaying = false;

  constructor(private current: CursorState | null = null) {}

  get state(): CursorState | null {
    return this.current;
  }

  /** What to tell `session.resume`: nothing on a brand-new tab or for another session. */
  resumeParams(sid: string | undefined): { last_seq?: number; epoch?: string | number } {
    if (!this.current || this.current.sid !== sid || this.current.epoch === null) return {};
    return { last_seq: this.current.last, epoch: this.current.epoch };
  }

  /** Forgets everything: the session is over. */
  clear(): void {
    this.current = null;
    this.replaying = false;
  }

  /**
   * Takes over what login or resume answered.
   *
   * Returns how many pushes are lost for good: those of a stated gap.
   */
  attach(answer: CursorAnswer): number {
    const known =
      this.current !== null && this.current.sid === answer.sid && this.current.epoch === answer.epoch;
    this.replaying = !known;
    this.replayed = 0;
    if (!known) this.current = { sid: answer.sid, epoch: answer.epoch, last: answer.seq };
    if (!answer.gap || !this.current) return 0;
    const { from, to } = answer.gap;
    if (from === undefined || to === undefined || to < from) return 0;
    // INVARIANT: the stated gap is counted here once, not again at the first push behind it.
    if (known) this.current = { ...this.current, last: Math.max(this.current.last, to) };
    return to - from + 1;
  }

  /** Judges one push. A push without a number is always new. */
  see(seq: number | undefined, epoch: string | number | undefined): Verdict {
    if (seq === undefined || !this.current) return { kind: "new", missed: 0 };
    if (epoch !== undefined && this.current.epoch !== null && epoch !== this.current.epoch) {
      this.current = { ...this.current, epoch, last: 0 };
      this.replaying = false;
    } else if (epoch !== undefined && this.current.epoch === null) {
      this.current = { ...this.current, epoch };
    }
    const { last } = this.current;
    if (seq <= last) {
      if (!this.replaying || seq <= this.replayed) return { kind: "duplicate" };
      this.replayed = seq;
      return { kind: "new", missed: 0 };
    }
    this.replaying = false;
    this.current = { ...this.current, last: seq };
    return { kind: "new", missed: seq - last - 1 };
  }
}
