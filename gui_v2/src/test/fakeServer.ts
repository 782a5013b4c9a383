/** A server for tests: sockets that open, answer and close when the test says so. Never shipped. */
import type { Json, PushFrame, RequestFrame, ResponseFrame } from "../protocol/frames";

type Answer = Partial<ResponseFrame> | null;
type Responder = (request: RequestFrame, socket: FakeSocket) => Answer;

export const LOGIN_RESULT = {
  token: "token-1",
  session_id: "secret-session",
  expires_at: "2126-01-01T00:00:00Z",
  sid: "s-1",
  epoch: "e1",
  seq: 0,
  message: "welcome",
  user_info: { username: "ann", email: "ann@example.com", role: "user", name: "Ann" },
};

export class FakeSocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;
  readyState = 0;
  binaryType = "blob";
  readonly frames: Array<RequestFrame | ResponseFrame> = [];

  constructor(
    readonly url: string,
    private readonly server: FakeServer,
  ) {
    super();
    server.sockets.push(this);
    queueMicrotask(() => {
      if (this.readyState !== 0) return;
      if (!server.up) return this.drop(1006);
      this.readyState = 1;
      this.dispatchEvent(new Event("open"));
    });
  }

  send(text: string): void {
    const frame = JSON.parse(text) as RequestFrame | ResponseFrame;
    this.frames.push(frame);
    if (frame.type !== "request") return;
    const answer = this.server.respond(frame, this);
    if (answer) queueMicrotask(() => this.reply(frame, answer));
  }

  reply(request: RequestFrame, answer: Partial<ResponseFrame>): void {
    this.deliver({ id: request.id, type: "response", method: request.method, status: "success", ...answer });
  }

  push(method: string, params: Json = {}, meta: PushFrame["meta"] = {}, id = "push-1"): void {
    this.deliver({ id, type: "request", method, params, meta });
  }

  deliver(frame: unknown): void {
    if (this.readyState !== 1) return;
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(frame) }));
  }

  /** The peer or the network ends the connection. */
  drop(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.dispatchEvent(new CloseEvent("close", { code, reason }));
  }

  close(code = 1000): void {
    this.drop(code);
  }

  requests(method: string): RequestFrame[] {
    return this.frames.filter((f): f is RequestFrame => f.type === "request" && f.method === method);
  }
}

export class FakeServer {
  up = true;
  readonly sockets: FakeSocket[] = [];
  readonly on: Record<string, Responder> = {
    login: () => ({ result: LOGIN_RESULT }),
    logout: () => ({ result: {} }),
    ping: () => ({ result: { pong: true, time: 1, tabs: 2, incarnation: 1, restarts: 0 } }),
    "session.resume": () => ({
      result: { status: "resumed", sid: "s-1", incarnation: 1, epoch: "e1", seq: 0 },
    }),
  };
  readonly WebSocket: typeof WebSocket;

  constructor() {
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string) {
        super(url, server);
      }
    } as unknown as typeof WebSocket;
  }

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (!last) throw new Error("no connection yet");
    return last;
  }

  respond(request: RequestFrame, socket: FakeSocket): Answer {
    return this.on[request.method]?.(request, socket) ?? null;
  }

  /** Every request of this method over all connections, in order. */
  requests(method: string): RequestFrame[] {
    return this.sockets.flatMap((s) => s.requests(method));
  }
}

export function refusal(code: string, more: Record<string, Json> = {}): Partial<ResponseFrame> {
  return { status: "error", error: { code, message: code.toLowerCase(), ...more } };
}
