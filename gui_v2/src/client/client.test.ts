import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeServer, LOGIN_RESULT, refusal } from "../test/fakeServer";
import { EcanClient } from "./client";
import { Heartbeat, PING_EVERY_MS, PING_TIMEOUT_MS } from "./heartbeat";
import { TokenRefresher } from "./refresher";
import { RpcError } from "./rpc";
import { type StoredSession, sessionStore } from "./storage";

const STORED: StoredSession = {
  session_id: "secret-session",
  token: "token-1",
  sid: "s-1",
  epoch: "e1",
  user_info: { username: "ann" },
  refreshAt: null,
};

let server: FakeServer;
let client: EcanClient;

/** Lets timers and microtasks run for `ms` of fake time. */
const pass = (ms = 1) => vi.advanceTimersByTimeAsync(ms);
const make = () =>
  new EcanClient("ws://test/ws", { WebSocket: server.WebSocket, random: () => 0.5, isOnline: () => true });

async function started(stored: StoredSession | null = STORED): Promise<void> {
  if (stored) sessionStore.save(stored);
  client = make();
  client.start();
  await pass();
}

async function reconnected(): Promise<void> {
  await pass(250);
}

function elsewhere(session: StoredSession | null): void {
  if (session) sessionStore.save(session);
  else localStorage.removeItem("ecan.session");
  window.dispatchEvent(new StorageEvent("storage", { key: "ecan.session" }));
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  server = new FakeServer();
});

afterEach(() => client.dispose());

describe("login and logout", () => {
  it("stores the session for all tabs and sends meta with every later request", async () => {
    await started(null);
    await client.login("ann", "pw", "en");
    expect(sessionStore.load()).toMatchObject({ session_id: "secret-session", token: "token-1", sid: "s-1" });
    void client.request("app.hello", { a: 1 }, { deadlineMs: 500 });
    expect(server.socket.requests("app.hello")[0]).toMatchObject({
      params: { a: 1 },
      meta: { session_id: "secret-session", token: "token-1", deadline_ms: 500 },
    });
    expect(server.socket.requests("login")[0]?.meta).toBeUndefined();
  });

  it("rejects with the server's error and stays anonymous", async () => {
    server.on["login"] = () => refusal("INVALID_CREDENTIALS");
    await started(null);
    await expect(client.login("ann", "bad", "en")).rejects.toMatchObject({ code: "INVALID_CREDENTIALS" });
    expect(client.phase.name).toBe("anonymous");
    expect(sessionStore.load()).toBeNull();
  });

  it("does not send a login twice when the connection breaks under it", async () => {
    server.on["login"] = (_request, socket) => {
      socket.drop(1006);
      return null;
    };
    await started(null);
    await expect(client.login("ann", "pw", "en")).rejects.toMatchObject({ code: "CONNECTION_LOST" });
    await reconnected();
    expect(server.requests("login")).toHaveLength(1);
  });

  it("logs out at the server, forgets the session and takes a fresh connection", async () => {
    await started();
    await client.logout();
    await pass();
    expect(server.requests("logout")).toHaveLength(1);
    expect(sessionStore.load()).toBeNull();
    expect(client.phase).toEqual({ name: "anonymous", reason: "logout" });
    expect(server.sockets).toHaveLength(2);
  });

  it("forgets the session even when the server cannot be reached", async () => {
    await started();
    server.up = false;
    server.socket.drop(1006);
    await client.logout();
    expect(sessionStore.load()).toBeNull();
  });
});

describe("resume", () => {
  it("is the first frame of every connection, without a cursor on a brand-new tab", async () => {
    await started();
    const first = server.socket.frames[0];
    expect(first).toMatchObject({
      method: "session.resume",
      params: { session_id: "secret-session", token: "token-1" },
    });
    expect(first).not.toHaveProperty("params.last_seq");
    expect(client.phase.name).toBe("ready");
  });

  it("names the last push this tab saw after a reconnect, and after a reload of the tab", async () => {
    await started();
    server.socket.push("note", {}, { seq: 1, epoch: "e1" });
    server.socket.drop(1006);
    await reconnected();
    expect(server.socket.frames[0]).toMatchObject({ params: { last_seq: 1, epoch: "e1" } });
    client.dispose();
    await started();
    expect(server.socket.frames[0]).toMatchObject({ params: { last_seq: 1, epoch: "e1" } });
  });

  it("holds requests back until it is answered, then sends them in order", async () => {
    server.on["session.resume"] = () => null;
    await started();
    void client.request("a");
    void client.request("b");
    expect(server.socket.frames).toHaveLength(1);
    const resume = server.socket.requests("session.resume")[0];
    if (!resume) throw new Error("no resume");
    server.socket.reply(resume, { result: { status: "resumed", sid: "s-1", epoch: "e1", seq: 0 } });
    await pass();
    expect(server.socket.frames.map((f) => f.method)).toEqual(["session.resume", "a", "b"]);
  });

  it("sends what was in flight again with the same id, and shows a replayed answer", async () => {
    await started();
    const sends: number[] = [];
    const answer = client.request("order", { n: 1 }, { onSent: (times) => sends.push(times) });
    const id = server.socket.requests("order")[0]?.id;
    server.on["order"] = () => ({ result: "done", meta: { replayed: true, incarnation: 2 } });
    server.socket.drop(1006);
    await reconnected();
    expect(server.requests("order").map((r) => r.id)).toEqual([id, id]);
    expect(sends).toEqual([1, 2]);
    expect((await answer).meta).toEqual({ replayed: true, incarnation: 2 });
  });

  it("gives up a request that breaks every connection it is sent on", async () => {
    await started();
    server.on["poison"] = (_request, socket) => {
      queueMicrotask(() => socket.drop(1009));
      return null;
    };
    const answer = client.request("poison").catch((error: RpcError) => error.wire);
    await pass(30_000);
    expect(await answer).toMatchObject({ code: "CONNECTION_LOST", outcome: "unknown" });
    expect(server.requests("poison")).toHaveLength(5);
    expect(client.phase.name).toBe("ready");
  });

  it("keeps a request made without a connection and sends it after the resume", async () => {
    await started();
    server.up = false;
    server.socket.drop(1006);
    server.on["later"] = () => ({ result: 7 });
    const answer = client.request("later");
    await pass(1_000);
    server.up = true;
    await pass(2_000);
    expect((await answer).result).toBe(7);
    expect(server.socket.frames.map((f) => f.method)).toEqual(["session.resume", "later"]);
  });

  it.each(["SESSION_NOT_FOUND", "SESSION_EXPIRED", "SESSION_CLOSED", "INVALID_TOKEN"])(
    "goes back to the login page on %s with the reason",
    async (code) => {
      server.on["session.resume"] = () => refusal(code, { details: { reason: "idle" } });
      await started();
      expect(client.phase).toMatchObject({ name: "anonymous", reason: "idle" });
      expect(sessionStore.load()).toBeNull();
    },
  );

  it("stays on SESSION_FAILED and can be tried again", async () => {
    server.on["session.resume"] = () => refusal("SESSION_FAILED", { details: { reason: "crash_loop" } });
    await started();
    expect(client.phase).toMatchObject({ name: "failed", error: { code: "SESSION_FAILED" } });
    server.on["session.resume"] = () => ({ result: { status: "resumed", sid: "s-1", epoch: "e1", seq: 0 } });
    client.retryResume();
    await pass();
    expect(client.phase.name).toBe("ready");
  });

  it("hears that the session failed, and that an operator revived it", async () => {
    await started();
    server.socket.push("session.failed", { reason: "crash_loop" });
    expect(client.phase).toMatchObject({ name: "failed", error: { code: "SESSION_FAILED" } });
    server.socket.push("session.restarted", { incarnation: 5, reason: "revived" });
    await pass();
    expect(client.phase.name).toBe("ready");
  });

  it("comes back by itself when the server is too busy to resume", async () => {
    let calls = 0;
    server.on["session.resume"] = () =>
      ++calls === 1
        ? refusal("BUSY", { retryable: true, retry_after_ms: 300 })
        : { result: { status: "resumed", sid: "s-1", epoch: "e1", seq: 0 } };
    await started();
    expect(client.phase.name).toBe("resuming");
    await pass(301);
    expect(client.phase.name).toBe("ready");
  });

  it("replaces a connection on which the resume gets no answer", async () => {
    server.on["session.resume"] = () => null;
    await started();
    await pass(10_001);
    expect(server.sockets).toHaveLength(2);
  });
});

describe("pushes", () => {
  it("drops duplicates, says gaps, and starts over in a new epoch", async () => {
    await started();
    const seen: Array<number | undefined> = [];
    const gaps: number[] = [];
    client.events.on("push", ({ frame }) => seen.push(frame.meta?.seq));
    client.events.on("gap", ({ missed }) => gaps.push(missed));
    for (const seq of [1, 2, 2, 1, 6]) server.socket.push("note", {}, { seq, epoch: "e1" });
    server.socket.push("note", {}, { seq: 1, epoch: "e2" });
    expect(seen).toEqual([1, 2, 6, 1]);
    expect(gaps).toEqual([3]);
  });

  it("says the gap of a resume once", async () => {
    await started();
    const gaps: number[] = [];
    client.events.on("gap", ({ missed }) => gaps.push(missed));
    server.socket.push("note", {}, { seq: 2, epoch: "e1" });
    gaps.length = 0;
    server.on["session.resume"] = () => ({
      result: { status: "gap", from: 3, to: 5, sid: "s-1", epoch: "e1", seq: 6 },
    });
    server.socket.drop(1006);
    await reconnected();
    server.socket.push("note", {}, { seq: 6, epoch: "e1" });
    expect(gaps).toEqual([3]);
  });

  it("answers only a push that expects an answer", async () => {
    await started();
    server.socket.push("note", {}, { seq: 1, epoch: "e1" }, "p1");
    server.socket.push("note", {}, { seq: 2, epoch: "e1", expects_answer: true }, "p2");
    const answers = server.socket.frames.filter((f) => f.type === "response");
    expect(answers).toMatchObject([
      { id: "p2", method: "note", status: "success", result: { received: true } },
    ]);
  });

  it("keeps an answer given without a connection until the session is resumed", async () => {
    await started();
    const asked = { id: "q", type: "request", method: "ui.ask", meta: { expects_answer: true } } as const;
    server.socket.deliver(asked);
    server.socket.drop(1006);
    client.answer(asked, { answer: "yes" });
    await reconnected();
    expect(server.socket.frames).toMatchObject([
      { method: "session.resume" },
      { id: "q", type: "response", result: { answer: "yes" } },
    ]);
  });

  it("ends the session on session.closed, with what was waiting answered", async () => {
    await started();
    const lost = client.request("never").catch((error: RpcError) => error.wire);
    server.socket.push("session.closed", { reason: "killed" });
    expect(client.phase).toMatchObject({ name: "anonymous", reason: "killed" });
    expect(await lost).toMatchObject({ code: "SESSION_CLOSED", outcome: "unknown" });
  });

  it.each([
    [4500, "closed"],
    [4501, "killed"],
  ])("ends the session on close code %i, even if the push was lost", async (code, reason) => {
    await started();
    server.socket.drop(code);
    await pass();
    expect(client.phase).toMatchObject({ name: "anonymous", reason });
    await pass();
    expect(client.connection.state.name).toBe("open"); // ready for the next login
  });

  it("leaves a draining server after the asked time and not before", async () => {
    await started();
    server.socket.push("server.draining", { reconnect_in_ms: 3_000 });
    await pass(2_900);
    expect(server.sockets).toHaveLength(1);
    await pass(200);
    expect(server.sockets).toHaveLength(2);
    expect(client.phase.name).toBe("ready");
  });

  it("waits out the asked time when a draining server closes first", async () => {
    await started();
    server.socket.push("server.draining", { reconnect_in_ms: 3_000 });
    server.socket.drop(1012);
    await pass(2_900);
    expect(server.sockets).toHaveLength(1);
    await pass(200);
    expect(server.sockets).toHaveLength(2);
  });

  it("lets a running request finish before it leaves a draining server", async () => {
    await started();
    const running = client.request("slow");
    server.socket.push("server.draining", { reconnect_in_ms: 1_000 });
    await pass(2_000);
    expect(server.sockets).toHaveLength(1);
    const slow = server.socket.requests("slow")[0];
    if (slow) server.socket.reply(slow, { result: 1 });
    await running;
    await pass(600);
    expect(server.sockets).toHaveLength(2);
  });
});

describe("several tabs", () => {
  it("follows a logout in another tab", async () => {
    await started();
    elsewhere(null);
    expect(client.phase).toMatchObject({ name: "anonymous", reason: "logout" });
  });

  it("follows a login in another tab", async () => {
    await started(null);
    elsewhere(STORED);
    await pass();
    expect(client.phase.name).toBe("ready");
  });

  it("uses a token that another tab refreshed, and repeats a request that carried the old one", async () => {
    await started();
    server.on["job"] = (request) =>
      request.meta?.token === "token-2" ? { result: "ok" } : refusal("INVALID_TOKEN");
    const answer = client.request("job");
    elsewhere({ ...STORED, token: "token-2" });
    expect((await answer).result).toBe("ok");
    const ids = server.requests("job").map((r) => r.id);
    expect(new Set(ids).size).toBe(1);
  });

  it("does not wipe the session of a tab that has logged in since", async () => {
    await started();
    sessionStore.save({ ...STORED, session_id: "newer" });
    server.socket.push("session.closed", { reason: "idle" });
    expect(sessionStore.load()?.session_id).toBe("newer");
  });
});

describe("token and heartbeat", () => {
  it("refreshes the token at 80 % of its life and stores it", async () => {
    const life = 100_000;
    server.on["login"] = () => ({ result: { ...LOGIN_RESULT, expires_at: Date.now() + life } });
    server.on["refresh_token"] = () => ({ result: { token: "token-2", expires_at: Date.now() + life } });
    await started(null);
    await client.login("ann", "pw", "en");
    const refresher = new TokenRefresher(client, () => 0);
    await pass(79_000);
    expect(server.requests("refresh_token")).toHaveLength(0);
    await pass(2_000);
    expect(sessionStore.load()?.token).toBe("token-2");
    refresher.stop();
  });

  it("asks the server about the session when a request is refused for it", async () => {
    await started();
    server.on["job"] = () => refusal("SESSION_EXPIRED", { details: { reason: "idle" } });
    server.on["session.resume"] = () => refusal("SESSION_EXPIRED", { details: { reason: "idle" } });
    await expect(client.request("job")).rejects.toBeInstanceOf(RpcError);
    await pass();
    expect(client.phase).toMatchObject({ name: "anonymous", reason: "idle" });
  });

  it("measures pings and replaces a silent connection", async () => {
    await started();
    const pongs: unknown[] = [];
    const heartbeat = new Heartbeat(client, (_ms, result) => pongs.push(result));
    heartbeat.start();
    await pass(PING_EVERY_MS);
    expect(pongs).toHaveLength(2); // one at once, one after the first interval
    server.on["ping"] = () => null;
    await pass(PING_EVERY_MS + PING_TIMEOUT_MS + 10);
    expect(server.sockets.length).toBeGreaterThan(1);
    heartbeat.stop();
  });
});

describe("cancel", () => {
  it("takes back a waiting request and cancels a sent one at the server", async () => {
    await started();
    server.on["session.cancel"] = () => ({ result: {} });
    void client.request("slow", {}, { id: "r1" }).catch(() => {});
    await client.cancel("r1");
    expect(server.requests("session.cancel")[0]?.params).toEqual({ request_id: "r1" });
    server.up = false;
    server.socket.drop(1006);
    const waiting = client.request("later", {}, { id: "r2" });
    await client.cancel("r2");
    await expect(waiting).rejects.toMatchObject({ wire: { code: "CANCELLED", outcome: "not_run" } });
  });
});
