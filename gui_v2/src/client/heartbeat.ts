/** A ping every 10 s: measures the latency, and replaces a connection that has gone silent. */
import { ErrorCode } from "../protocol/codes";
import type { Json } from "../protocol/frames";
import type { EcanClient } from "./client";
import { RpcError } from "./rpc";

/** The first one waits until the page has drawn itself, or it would measure that. */
const FIRST_PING_MS = 500;
export const PING_EVERY_MS = 10_000;
/** Silence after which the connection counts as dead (a browser may take minutes to notice). */
export const PING_TIMEOUT_MS = 10_000;

export class Heartbeat {
  private first: ReturnType<typeof setTimeout> | undefined;
  private timer: ReturnType<typeof setInterval> | undefined;

  constructor(
    private readonly client: EcanClient,
    private readonly onPong: (latencyMs: number, result: Json) => void,
  ) {}

  start(): void {
    this.stop();
    this.first = setTimeout(() => void this.beat(), FIRST_PING_MS);
    this.timer = setInterval(() => void this.beat(), PING_EVERY_MS);
  }

  stop(): void {
    clearTimeout(this.first);
    clearInterval(this.timer);
  }

  async beat(): Promise<void> {
    if (this.client.connection.state.name !== "open") return;
    const sentAt = performance.now();
    const sentClock = Date.now();
    const options = { early: true, whenClosed: "fail", onLost: "fail", timeoutMs: PING_TIMEOUT_MS } as const;
    try {
      const { result } = await this.client.request("ping", {}, options);
      this.onPong(performance.now() - sentAt, result);
    } catch (error) {
      const silent = error instanceof RpcError && error.code === ErrorCode.NO_ANSWER;
      // Other frames may have come meanwhile: then the connection lives and only this answer is late.
      if (silent && this.client.lastHeardAt < sentClock) this.client.connection.restart();
    }
  }
}
