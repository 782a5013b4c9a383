/**
 * The pending map: every request that has no final answer yet, in the order it was made.
 *
 * No I/O: `transmit` is given by the client. A request is `waiting` (never sent, or not since the last
 * connection) or `sent`. When a connection breaks, `connectionLost` puts the sent ones back to waiting with
 * the same id (the server runs an id at most once, P10); those that must not be repeated fail instead.
 */
import { ErrorCode } from "../protocol/codes";
import {
  type Json,
  newId,
  type Outcome,
  type ResponseFrame,
  type ResponseMeta,
  type WireError,
} from "../protocol/frames";

/** A connection that breaks this soon after a sending may have broken because of it (a frame too large …). */
const QUICK_LOSS_MS = 2_000;
/** After so many quick losses in a row a request is given up: it must not keep the tab from working. */
export const MAX_QUICK_LOSSES = 5;

export interface RequestOptions {
  id?: string;
  deadlineMs?: number;
  /** May leave before the session is resumed (login, resume, ping, logout). */
  early?: boolean;
  /** When there is no connection now: wait for one (default) or fail at once. */
  whenClosed?: "wait" | "fail";
  /** When the connection breaks under it: send again with the same id (default) or fail. */
  onLost?: "resend" | "fail";
  /** Give up waiting after this long; the request may still have run. Default: never. */
  timeoutMs?: number;
  onSent?: (times: number) => void;
  onPending?: (frame: ResponseFrame) => void;
  /** The connection broke under it: it waits again. */
  onWaiting?: () => void;
}

/** An error answer; also made in the browser for CONNECTION_LOST and NO_ANSWER. */
export class RpcError extends Error {
  override readonly name = "RpcError";
  constructor(
    readonly wire: WireError,
    readonly meta: ResponseMeta | undefined = undefined,
  ) {
    super(wire.message);
  }
  get code(): string {
    return this.wire.code;
  }
}

export interface Reply {
  result: Json;
  meta: ResponseMeta;
  timestamp: number | undefined;
}

export interface PendingRequest {
  readonly id: string;
  readonly method: string;
  readonly params: Json;
  readonly options: RequestOptions;
  /** Times it went out; more than 1 means it was re-sent. */
  sends: number;
  waiting: boolean;
  /** The token of the last sending: an INVALID_TOKEN for an older one is worth a second try. */
  token: string | undefined;
}

interface Entry extends PendingRequest {
  resolve: (reply: Reply) => void;
  reject: (error: RpcError) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
  sentAt: number;
  quickLosses: number;
}

export class PendingRequests {
  private readonly entries = new Map<string, Entry>();

  /** Sends one request; false when it could not leave now. */
  constructor(private readonly transmit: (request: PendingRequest) => boolean) {}

  get size(): number {
    return this.entries.size;
  }

  /** Requests that are out and not answered. */
  get sentCount(): number {
    return [...this.entries.values()].filter((e) => !e.waiting).length;
  }

  get(id: string): PendingRequest | undefined {
    return this.entries.get(id);
  }

  /** Makes a request. An id that is already pending joins nothing: ids are the caller's to keep unique. */
  add(method: string, params: Json, options: RequestOptions = {}): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const id = options.id ?? newId();
      const entry: Entry = {
        id,
        method,
        params,
        options,
        sends: 0,
        waiting: true,
        token: undefined,
        resolve,
        reject,
        timer: undefined,
        sentAt: 0,
        quickLosses: 0,
      };
      this.entries.set(id, entry);
      if (options.timeoutMs !== undefined) {
        entry.timer = setTimeout(() => this.fail(id, browserError(ErrorCode.NO_ANSWER)), options.timeoutMs);
      }
      this.trySend(entry);
      if (entry.waiting && options.whenClosed === "fail") {
        this.fail(id, browserError(ErrorCode.CONNECTION_LOST, "not_run"));
      }
    });
  }

  /** Sends everything that waits, oldest first. */
  flush(): void {
    for (const entry of [...this.entries.values()]) if (entry.waiting) this.trySend(entry);
  }

  /** Sends one request again at once, e.g. with a newer token. */
  resend(id: string): void {
    const entry = this.entries.get(id);
    if (entry) this.trySend(entry);
  }

  /** Takes a response frame; false when nobody waits for it (a late or doubled answer). */
  accept(frame: ResponseFrame): boolean {
    const entry = this.entries.get(frame.id);
    if (!entry) return false;
    if (frame.status === "pending") {
      entry.options.onPending?.(frame);
      return true;
    }
    this.forget(entry);
    if (frame.status === "success") {
      entry.resolve({ result: frame.result ?? null, meta: frame.meta ?? {}, timestamp: frame.timestamp });
    } else {
      entry.reject(
        new RpcError(frame.error ?? { code: "UNKNOWN", message: "error without a body" }, frame.meta),
      );
    }
    return true;
  }

  connectionLost(): void {
    for (const entry of [...this.entries.values()]) {
      if (entry.waiting) continue;
      entry.waiting = true;
      entry.quickLosses = Date.now() - entry.sentAt < QUICK_LOSS_MS ? entry.quickLosses + 1 : 0;
      const hopeless = entry.quickLosses >= MAX_QUICK_LOSSES;
      if (entry.options.onLost === "fail" || hopeless)
        this.fail(entry.id, browserError(ErrorCode.CONNECTION_LOST));
      else entry.options.onWaiting?.();
    }
  }

  /** Ends one request without an answer. */
  fail(id: string, error: WireError): void {
    const entry = this.entries.get(id);
    if (!entry) return;
    this.forget(entry);
    entry.reject(new RpcError(error));
  }

  failAll(error: (request: PendingRequest) => WireError): void {
    for (const entry of [...this.entries.values()]) this.fail(entry.id, error(entry));
  }

  private trySend(entry: Entry): void {
    entry.sentAt = Date.now();
    entry.waiting = false; // first: the connection may break inside `transmit`
    if (!this.transmit(entry)) {
      entry.waiting = true;
      return;
    }
    entry.sends += 1;
    entry.options.onSent?.(entry.sends);
  }

  private forget(entry: Entry): void {
    clearTimeout(entry.timer);
    this.entries.delete(entry.id);
  }
}

function browserError(code: "CONNECTION_LOST" | "NO_ANSWER", outcome: Outcome = "unknown"): WireError {
  const message =
    code === ErrorCode.CONNECTION_LOST ? "the connection was lost" : "no answer from the server in time";
  return { code, message, retryable: true, outcome };
}
