/**
 * The client: one connection, one session, the pending requests and the push cursor, outside React.
 *
 * A frame's way: `request` → pending map → (connection open and session resumed) → socket → answer by id.
 * After every (re)connect the first frame is `session.resume`; when it is answered, everything that waits or
 * was in flight goes out (again) with its old id, in order. The app listens to `events` and never touches the socket.
 */
import { ErrorCode, endsSession, SESSION_OVER } from "../protocol/codes";
import {
  field,
  type Json,
  numberField,
  type PushFrame,
  parseFrame,
  type RequestMeta,
  type ResponseFrame,
  requestFrame,
  stringField,
  type WireError,
} from "../protocol/frames";
import { cursorOf, sessionOfLogin } from "./answers";
import { Connection, type ConnectionOptions } from "./connection";
import { DrainWatch } from "./drain";
import { Emitter } from "./emitter";
import type { ClientEvents, Phase } from "./events";
import { PushInbox } from "./inbox";
import { type ResumeHost, Resumer } from "./resumer";
import { type PendingRequest, PendingRequests, type Reply, type RequestOptions } from "./rpc";
import { type StoredSession, sessionStore } from "./storage";
import { refreshMoment } from "./token";

const LOGIN_TIMEOUT_MS = 30_000;
const LOGOUT_TIMEOUT_MS = 4_000;
/** Methods whose success may carry a new token for this session. */
const RENEWING: ReadonlySet<string> = new Set(["refresh_token", "change_password"]);

export class EcanClient {
  readonly events = new Emitter<ClientEvents>();
  readonly connection: Connection;
  /** When the last frame of any kind came in (ms since the epoch). */
  lastHeardAt = 0;
  private readonly pending = new PendingRequests((request) => this.transmit(request));
  private readonly inbox = new PushInbox();
  private readonly drain: DrainWatch;
  private readonly resumer = new Resumer(this.resumeHost());
  private currentPhase: Phase = { name: "anonymous", reason: null };
  private currentSession: StoredSession | null = sessionStore.load();
  private stopWatching: () => void = () => {};

  constructor(url: string, options: ConnectionOptions = {}) {
    this.connection = new Connection(url, options);
    this.connection.events.on("open", () => this.opened());
    this.connection.events.on("lost", () => this.connectionLost());
    this.connection.events.on("text", (text) => this.received(text));
    this.drain = new DrainWatch(this.connection, () => this.pending.sentCount);
    this.drain.onChange = (until) => this.events.emit("draining", until);
    if (this.currentSession) this.currentPhase = { name: "resuming" };
  }

  get phase(): Phase {
    return this.currentPhase;
  }

  get session(): StoredSession | null {
    return this.currentSession;
  }

  start(): void {
    this.stopWatching = sessionStore.watch((stored) => this.storedElsewhere(stored));
    this.connection.start();
  }

  /** Ends everything without logging out (the page goes away, or a test ends). */
  dispose(): void {
    this.stopWatching();
    this.drain.clear();
    this.resumer.cancel();
    this.inbox.save();
    this.connection.stop();
  }

  /** Writes down what is saved with a delay; call it when the page goes away. */
  flush(): void {
    this.inbox.save();
  }

  /** Calls a method. Raises: RpcError with the server's error. */
  request(method: string, params: Json = {}, options: RequestOptions = {}): Promise<Reply> {
    return this.pending.add(method, params, options);
  }

  async login(username: string, password: string, lang: string): Promise<void> {
    const reply = await this.request(
      "login",
      { username, password, lang },
      { early: true, onLost: "fail", timeoutMs: LOGIN_TIMEOUT_MS },
    );
    this.loggedIn(reply, username);
  }

  /** Creates an account; true when the server logged the new user in at once. */
  async signup(params: { [key: string]: Json }): Promise<boolean> {
    const reply = await this.request("signup", params, {
      early: true,
      onLost: "fail",
      timeoutMs: LOGIN_TIMEOUT_MS,
    });
    if (!stringField(reply.result, "session_id")) return false;
    this.loggedIn(reply, stringField(params, "username") ?? "");
    return true;
  }

  /** Logs out here and in all tabs. Works without a connection too: then only this browser forgets. */
  async logout(): Promise<void> {
    const options = {
      early: true,
      whenClosed: "fail",
      onLost: "fail",
      timeoutMs: LOGOUT_TIMEOUT_MS,
    } as const;
    await this.request("logout", {}, options).catch(() => {});
    this.endSession("logout");
  }

  /** Cancels a request: a waiting one is taken back, a sent one is cancelled at the server. */
  async cancel(requestId: string): Promise<void> {
    const request = this.pending.get(requestId);
    if (!request) return;
    if (request.sends === 0) {
      const error = {
        code: ErrorCode.CANCELLED,
        message: "taken back before it was sent",
        outcome: "not_run",
      };
      this.pending.fail(requestId, error as WireError);
      return;
    }
    await this.request("session.cancel", { request_id: requestId });
  }

  /** Answers a push the server waits for; without a connection, after the next resume. */
  answer(push: PushFrame, result: Json): void {
    const send = (text: string) => this.currentPhase.name === "ready" && this.connection.send(text);
    this.inbox.answer(push, result, send);
  }

  /** Tries again to take up a failed session. */
  retryResume(): void {
    if (this.connection.state.name === "open") void this.resumer.start();
    else this.connection.start();
  }

  private loggedIn(reply: Reply, username: string): void {
    const session = sessionOfLogin(reply, username);
    this.inbox.clear();
    this.inbox.attach(cursorOf(reply.result, session.sid));
    this.setSession(session);
    this.becomeReady("login", reply.meta.incarnation);
  }

  private opened(): void {
    this.lastHeardAt = Date.now();
    this.drain.clear();
    if (this.currentSession) void this.resumer.start();
    else this.pending.flush();
  }

  private connectionLost(): void {
    this.resumer.cancel();
    this.drain.connectionLost();
    if (this.currentSession && this.currentPhase.name !== "failed") this.setPhase({ name: "resuming" });
    this.pending.connectionLost();
    const { name, closed } = this.connection.state;
    const reason = name === "stopped" ? SESSION_OVER[closed?.code ?? 0] : undefined;
    // Later, because it opens a new socket and the old one is still handling its close.
    if (reason) queueMicrotask(() => this.endSession(reason));
  }

  private resumed({ result, meta }: Reply): void {
    const session = this.currentSession;
    if (!session) return;
    const answer = cursorOf(result, session.sid);
    const missed = this.inbox.attach(answer);
    if (answer.gap) this.events.emit("gap", { missed });
    const { sid, epoch } = answer;
    if (sid !== session.sid || epoch !== session.epoch) this.setSession({ ...session, sid, epoch });
    this.becomeReady("resume", numberField(result, "incarnation") ?? meta.incarnation);
  }

  private resumeHost(): ResumeHost {
    return {
      session: () => this.newestSession(),
      request: (method, params, options) => this.request(method, params, options),
      cursorParams: (sid) => this.inbox.resumeParams(sid),
      resuming: () => this.setPhase({ name: "resuming" }),
      resumed: (reply) => this.resumed(reply),
      ended: (reason, message) => this.endSession(reason, message),
      failed: (error) => this.setPhase({ name: "failed", error }),
      silent: () => this.connection.restart(),
    };
  }

  /** Our session with the token another tab may just have stored: the storage event can lag behind. */
  private newestSession(): StoredSession | null {
    const stored = sessionStore.load();
    if (stored && stored.session_id === this.currentSession?.session_id) this.currentSession = stored;
    return this.currentSession;
  }

  private becomeReady(how: "login" | "resume", incarnation: number | undefined): void {
    this.setPhase({ name: "ready" });
    this.inbox.flushAnswers((text) => this.connection.send(text));
    this.pending.flush();
    this.events.emit("ready", { how, incarnation });
  }

  /** Back to anonymous, once. Later frames of the old session cannot reach us: the connection is replaced. */
  private endSession(reason: string, message?: string): void {
    const ended = this.currentSession;
    if (!ended) return;
    sessionStore.clear(ended.session_id, reason);
    this.leaveSession(null);
    this.setPhase({ name: "anonymous", reason, ...(message ? { message } : {}) });
    this.connection.restart();
  }

  private leaveSession(next: StoredSession | null): void {
    this.currentSession = next;
    this.resumer.cancel();
    this.inbox.clear();
    this.pending.failAll((request) => ({
      code: ErrorCode.SESSION_CLOSED,
      message: "the session ended",
      retryable: false,
      outcome: request.sends > 0 ? "unknown" : "not_run",
    }));
    this.events.emit("session", next);
  }

  private storedElsewhere(stored: StoredSession | null): void {
    const mine = this.currentSession;
    if (!stored) {
      if (mine) this.endSession(sessionStore.endReason());
    } else if (stored.session_id === mine?.session_id) {
      this.currentSession = stored;
      this.events.emit("session", stored);
    } else {
      this.leaveSession(stored);
      this.setPhase({ name: "resuming" });
      this.connection.restart();
    }
  }

  private received(text: string): void {
    this.lastHeardAt = Date.now();
    const frame = parseFrame(text);
    if (frame?.type === "response") this.receivedResponse(frame);
    else if (frame) this.receivedPush(frame);
  }

  private receivedResponse(frame: ResponseFrame): void {
    const request = this.pending.get(frame.id);
    const code = frame.status === "error" ? frame.error?.code : undefined;
    const session = this.currentSession;
    if (code && request && session && !request.options.early) {
      if (code === ErrorCode.INVALID_TOKEN && request.token !== session.token) {
        this.pending.resend(frame.id);
        return;
      }
      if (code === ErrorCode.SESSION_FAILED && frame.error) {
        this.setPhase({ name: "failed", error: frame.error });
      } else if (endsSession(code) && this.currentPhase.name === "ready") {
        void this.resumer.start(); // asks the server about this session before giving it up
      }
    }
    if (request && RENEWING.has(request.method) && frame.status === "success") this.tokenRenewed(frame);
    this.pending.accept(frame);
  }

  /** Takes over a new token for this and all tabs, whoever asked for it. */
  private tokenRenewed({ result, timestamp }: ResponseFrame): void {
    const token = stringField(result, "token");
    if (!token || !this.currentSession) return;
    const refreshAt = refreshMoment(field(result, "expires_at"), timestamp);
    this.setSession({ ...this.currentSession, token, refreshAt });
  }

  private receivedPush(frame: PushFrame): void {
    const verdict = this.inbox.see(frame);
    if (verdict.kind === "duplicate") return;
    if (verdict.missed > 0) this.events.emit("gap", { missed: verdict.missed });
    this.events.emit("push", { frame, at: Date.now() });
    if (frame.method === "session.closed") {
      this.endSession(stringField(frame.params, "reason") ?? "closed");
    } else if (frame.method === "session.failed") {
      this.setPhase({ name: "failed", error: { code: ErrorCode.SESSION_FAILED, message: "" } });
    } else if (frame.method === "session.restarted" && this.currentPhase.name === "failed") {
      void this.resumer.start(); // an operator has revived it
    } else if (frame.method === "server.draining") {
      this.drain.begin(numberField(frame.params, "reconnect_in_ms") ?? 1_000);
    } else if (frame.method !== "ui.ask" && frame.meta?.expects_answer === true) {
      this.answer(frame, { received: true });
    }
  }

  private transmit(request: PendingRequest): boolean {
    if (!request.options.early && this.currentSession && this.currentPhase.name !== "ready") return false;
    const meta: RequestMeta = {};
    if (this.currentSession && request.method !== "login" && request.method !== "signup") {
      meta.session_id = this.currentSession.session_id;
      meta.token = this.currentSession.token;
    }
    if (request.options.deadlineMs !== undefined) meta.deadline_ms = request.options.deadlineMs;
    request.token = meta.token;
    return this.connection.send(
      JSON.stringify(requestFrame(request.id, request.method, request.params, meta)),
    );
  }

  private setSession(session: StoredSession): void {
    this.currentSession = session;
    sessionStore.save(session);
    this.events.emit("session", session);
  }

  private setPhase(phase: Phase): void {
    this.currentPhase = phase;
    this.events.emit("phase", phase);
  }
}
