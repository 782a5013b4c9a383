/** Keeps the token fresh: `refresh_token` at 80 % of its life, by one tab for all. */
import type { EcanClient } from "./client";
import { sessionStore } from "./storage";

/** Longest timer: setTimeout overflows at 24.8 days, and a sleeping laptop's timers lag. */
const MAX_TIMER_MS = 3_600_000;
/** However short a token lives, it is not refreshed more often than this. */
const MIN_DELAY_MS = 1_000;
const RETRY_MS = 15_000;
/** Tabs spread by this much, so that usually the first one's token is there when the others look. */
const SPREAD_MS = 2_000;
const ANSWER_TIMEOUT_MS = 10_000;

export class TokenRefresher {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running = false;
  private readonly unsubscribe: Array<() => void>;

  constructor(
    private readonly client: EcanClient,
    private readonly random: () => number = Math.random,
  ) {
    this.unsubscribe = [
      client.events.on("session", () => this.schedule()),
      client.events.on("ready", () => this.schedule()),
    ];
    this.schedule();
  }

  stop(): void {
    clearTimeout(this.timer);
    for (const stop of this.unsubscribe) stop();
  }

  private schedule(atLeastMs = MIN_DELAY_MS): void {
    clearTimeout(this.timer);
    const refreshAt = this.client.session?.refreshAt ?? null;
    if (refreshAt === null) return;
    const delay = Math.max(refreshAt - Date.now() + this.random() * SPREAD_MS, atLeastMs);
    this.timer = setTimeout(() => void this.due(), Math.min(delay, MAX_TIMER_MS));
  }

  private async due(): Promise<void> {
    const session = this.client.session;
    if (!session || this.running) return;
    const stored = sessionStore.load();
    const fresh = stored?.session_id === session.session_id && stored.token !== session.token;
    const early = session.refreshAt !== null && Date.now() < session.refreshAt;
    if (fresh || early || this.client.phase.name !== "ready") {
      this.schedule(this.client.phase.name === "ready" ? MIN_DELAY_MS : RETRY_MS);
      return;
    }
    this.running = true;
    try {
      const options = { whenClosed: "fail", onLost: "fail", timeoutMs: ANSWER_TIMEOUT_MS } as const;
      await this.client.request("refresh_token", {}, options); // the client takes the new token itself
    } catch {
      this.schedule(RETRY_MS);
    } finally {
      this.running = false;
    }
  }
}
