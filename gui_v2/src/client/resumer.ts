/** Takes a session up again on a new connection: asks `session.resume` and decides what its answer means. */
import { ErrorCode, endsSession } from "../protocol/codes";
import { type Json, stringField, type WireError } from "../protocol/frames";
import { type Reply, type RequestOptions, RpcError } from "./rpc";
import type { StoredSession } from "./storage";

/** A resume that gets no answer for this long means the connection is dead. */
const TIMEOUT_MS = 10_000;
/** When a refusal is worth another try and the server did not say when. */
const RETRY_MS = 1_000;

/** What the resumer needs of the client. */
export interface ResumeHost {
  /** The session with its newest token, or null when there is none. */
  session(): StoredSession | null;
  request(method: string, params: Json, options: RequestOptions): Promise<Reply>;
  cursorParams(sid: string): { last_seq?: number; epoch?: string | number };
  resuming(): void;
  resumed(reply: Reply): void;
  /** The session is over. */
  ended(reason: string, message: string): void;
  /** The session cannot go on for now. */
  failed(error: WireError): void;
  /** The connection gives no answer. */
  silent(): void;
}

export class Resumer {
  /** Counts attempts: the answer of an older one is not listened to. */
  private run = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly host: ResumeHost) {}

  /** Forgets the attempt under way: its connection or its session is gone. */
  cancel(): void {
    this.run += 1;
    clearTimeout(this.timer);
  }

  async start(): Promise<void> {
    const session = this.host.session();
    if (!session) return;
    this.cancel();
    const run = this.run;
    this.host.resuming();
    const { session_id, token, sid } = session;
    const params = { session_id, token, ...this.host.cursorParams(sid) };
    const options = { early: true, whenClosed: "fail", onLost: "fail", timeoutMs: TIMEOUT_MS } as const;
    try {
      const reply = await this.host.request("session.resume", params, options);
      if (run === this.run) this.host.resumed(reply);
    } catch (error) {
      if (run === this.run && error instanceof RpcError) this.refused(error.wire, token);
    }
  }

  private refused(error: WireError, usedToken: string): void {
    const { code, message, details, retryable, retry_after_ms: retryAfterMs } = error;
    if (code === ErrorCode.CONNECTION_LOST) return; // the next open resumes
    if (code === ErrorCode.NO_ANSWER) {
      this.host.silent();
    } else if (endsSession(code)) {
      // RACE: another tab refreshed the token between our reading it and the server's looking at it.
      if (this.host.session()?.token !== usedToken) void this.start();
      else this.host.ended(stringField(details, "reason") ?? code, message);
    } else if (code !== ErrorCode.SESSION_FAILED && (retryable || retryAfterMs !== undefined)) {
      this.timer = setTimeout(() => void this.start(), retryAfterMs ?? RETRY_MS);
    } else {
      this.host.failed(error);
    }
  }
}
