/**
 * The connection: a state machine over single-shot sockets.
 *
 * Theory of operation. `partysocket` opens one socket, times the attempt out and keeps late events of a
 * replaced socket away from us; its own retry loop (no jitter, no way to see or set the next delay) and its
 * queue are off. When and whether to try again is decided here, by the table below, the close code's range
 * and `backoffDelayMs`. What is sent and re-sent is decided above, in `EcanClient`.
 */
import ReconnectingWebSocket, { CloseEvent as SyntheticClose } from "partysocket/ws";
import { reconnectsAfter } from "../protocol/codes";
import { backoffDelayMs, GOOD_UPTIME_MS } from "./backoff";
import { Emitter } from "./emitter";

export type ConnectionName = "idle" | "connecting" | "open" | "waiting" | "offline" | "stopped";
type Trigger = "start" | "opened" | "lost" | "refused" | "retry" | "wentOffline" | "cameOnline" | "stop";

/** State × trigger → state. A pair that is not here is ignored. */
export const TRANSITIONS: Record<ConnectionName, Partial<Record<Trigger, ConnectionName>>> = {
  idle: { start: "connecting" },
  connecting: { opened: "open", lost: "waiting", refused: "stopped", wentOffline: "offline", stop: "idle" },
  open: { lost: "waiting", refused: "stopped", start: "connecting", stop: "idle" },
  waiting: { retry: "connecting", start: "connecting", wentOffline: "offline", stop: "idle" },
  offline: { cameOnline: "connecting", start: "connecting", stop: "idle" },
  stopped: { start: "connecting", stop: "idle" },
};

export interface ConnectionState {
  name: ConnectionName;
  /** Attempts since the last good connection; 1 is the first try. */
  attempt: number;
  /** When the next attempt starts (ms since the epoch), while waiting. */
  retryAt: number | null;
  /** Why the last connection ended. */
  closed: { code: number; reason: string } | null;
}

interface ConnectionEvents {
  state: ConnectionState;
  open: undefined;
  lost: undefined;
  text: string;
}

export interface ConnectionOptions {
  /** The socket class, for tests. */
  WebSocket?: typeof WebSocket;
  random?: () => number;
  isOnline?: () => boolean;
}

/** A TCP connect plus handshake that takes longer than this is given up. */
const CONNECT_TIMEOUT_MS = 8_000;

export class Connection {
  readonly events = new Emitter<ConnectionEvents>();
  private current: ConnectionState = { name: "idle", attempt: 0, retryAt: null, closed: null };
  private readonly socket: ReconnectingWebSocket;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private uptimeTimer: ReturnType<typeof setTimeout> | undefined;
  private notBefore = 0;
  /** True while we close a socket ourselves: its close event is not a loss. */
  private leaving = false;

  constructor(
    url: string,
    private readonly options: ConnectionOptions = {},
  ) {
    this.socket = new ReconnectingWebSocket(url, null, {
      startClosed: true,
      maxRetries: 0,
      maxEnqueuedMessages: 0,
      minReconnectionDelay: 0,
      connectionTimeout: CONNECT_TIMEOUT_MS,
      ...(options.WebSocket ? { WebSocket: options.WebSocket } : {}),
    });
    this.socket.onopen = () => this.opened();
    // A listener for messages, handlers for the rest: happy-dom calls a handler twice (harmless there), and
    // partysocket hands listeners a copy of the close event that has lost its code.
    this.socket.addEventListener("message", (event) => {
      if (this.current.name === "open") this.events.emit("text", event.data as string);
    });
    // A failed attempt reaches us as a close that partysocket made up (code 1000): call it 1006, as browsers do.
    this.socket.onclose = (event) => {
      if (this.leaving) return;
      this.lost(event instanceof SyntheticClose ? 1006 : (event as CloseEvent).code, event.reason ?? "");
    };
    // A socket that could not even be made (a bad address) has no close event.
    this.socket.onerror = () => {
      if (this.current.name === "connecting") this.lost(1006, "");
    };
  }

  get state(): ConnectionState {
    return this.current;
  }

  /** Connects now, whatever was being waited for. Does nothing while connecting or open. */
  start(): void {
    const { name, attempt } = this.current;
    if (name === "connecting" || name === "open") return;
    if (this.move("start", { attempt: name === "waiting" ? attempt + 1 : 1 })) this.socket.reconnect();
  }

  /** Closes for good (until `start`). */
  stop(): void {
    this.move("stop", { attempt: 0, closed: null });
    this.leave(() => this.socket.close(1000, "client"));
  }

  /** Leaves this connection for a fresh one, e.g. because it is silent or belongs to a finished session. */
  restart(): void {
    if (this.current.name !== "open") {
      this.start();
      return;
    }
    this.move("start", { attempt: 1 });
    this.events.emit("lost", undefined);
    this.leave(() => this.socket.reconnect(1000, "client"));
  }

  /** The server asked not to be called again before `delayMs` from now. */
  holdOff(delayMs: number): void {
    this.notBefore = Date.now() + delayMs;
  }

  /** Sends at once; false when there is no open connection (nothing is queued here). */
  send(text: string): boolean {
    if (this.current.name !== "open") return false;
    return this.socket.send(text);
  }

  /** The browser says the network is gone: no point in trying until it is back. */
  wentOffline(): void {
    if (this.move("wentOffline", {})) this.leave(() => this.socket.close(1000, "offline"));
  }

  cameOnline(): void {
    if (this.current.name === "offline" && this.move("cameOnline", { attempt: 1 })) this.socket.reconnect();
    else if (this.current.name === "waiting" && this.notBefore <= Date.now()) this.start();
  }

  private opened(): void {
    if (!this.move("opened", { closed: null })) return;
    this.notBefore = 0;
    this.uptimeTimer = setTimeout(() => this.set({ ...this.current, attempt: 0 }), GOOD_UPTIME_MS);
    this.events.emit("open", undefined);
  }

  private lost(code: number, reason: string): void {
    const before = this.current;
    if (before.name !== "open" && before.name !== "connecting") return;
    const closed = { code, reason };
    if (!reconnectsAfter(code)) {
      this.move("refused", { closed });
    } else if (this.options.isOnline && !this.options.isOnline()) {
      this.move("lost", { closed });
      this.move("wentOffline", {});
    } else {
      const attempt = Math.max(before.attempt, 1);
      const delay = Math.max(backoffDelayMs(attempt, this.options.random), this.notBefore - Date.now());
      this.move("lost", { attempt, retryAt: Date.now() + delay, closed });
      this.retryTimer = setTimeout(() => this.retry(), delay);
    }
    if (before.name === "open") this.events.emit("lost", undefined);
  }

  private retry(): void {
    if (this.move("retry", { attempt: this.current.attempt + 1 })) this.socket.reconnect();
  }

  private leave(close: () => void): void {
    this.leaving = true;
    close();
    this.leaving = false;
  }

  private move(trigger: Trigger, change: Partial<ConnectionState>): boolean {
    const next = TRANSITIONS[this.current.name][trigger];
    if (!next) return false;
    clearTimeout(this.retryTimer);
    clearTimeout(this.uptimeTimer);
    this.set({ ...this.current, retryAt: null, ...change, name: next });
    return true;
  }

  private set(state: ConnectionState): void {
    this.current = state;
    this.events.emit("state", state);
  }
}
