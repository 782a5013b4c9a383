/** What a `server.draining` push does: come back after the time it names, not before and not much later. */
import type { Connection } from "./connection";

/** While requests run, the old connection is kept this long past the asked time; the server closes it anyway. */
const PATIENCE_MS = 25_000;
const RECHECK_MS = 500;

export class DrainWatch {
  onChange: (until: number | null) => void = () => {};
  private timer: ReturnType<typeof setTimeout> | undefined;
  private until: number | null = null;

  constructor(
    private readonly connection: Connection,
    private readonly runningRequests: () => number,
  ) {}

  begin(reconnectInMs: number): void {
    this.until = Date.now() + reconnectInMs;
    this.connection.holdOff(reconnectInMs);
    this.schedule(reconnectInMs);
    this.onChange(this.until);
  }

  /** The server closed first: the connection itself waits for the time now. */
  connectionLost(): void {
    clearTimeout(this.timer);
  }

  /** A new connection is there. */
  clear(): void {
    clearTimeout(this.timer);
    if (this.until === null) return;
    this.until = null;
    this.onChange(null);
  }

  private schedule(delayMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const overdue = Date.now() - (this.until ?? 0);
      if (this.runningRequests() > 0 && overdue < PATIENCE_MS) this.schedule(RECHECK_MS);
      else this.connection.restart();
    }, delayMs);
  }
}
