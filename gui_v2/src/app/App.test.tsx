import { act, cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sessionStore } from "../client/storage";
import type { Json } from "../protocol/frames";
import { closeConsole } from "../stores/console";
import { useMethods } from "../stores/methods";
import { applyPrefs } from "../stores/prefs";
import { FakeServer, refusal } from "../test/fakeServer";
import { App } from "./App";
import { createRuntime, type Runtime } from "./runtime";

let server: FakeServer;
let runtime: Runtime;

const METHODS: Json = {
  methods: [
    {
      name: "notes.add",
      summary: "Add a note",
      params: [{ name: "title", required: true, schema: { type: "string" } }],
    },
    { name: "debug.incr", summary: "Increment", params: [] },
  ],
};
const get = (id: string) => screen.getByTestId(id);
const type = (id: string, value: string) => fireEvent.change(get(id), { target: { value } });
const rows = () => within(get("console-history")).queryAllByRole("listitem");

function open(): void {
  runtime = createRuntime("ws://test/ws", { WebSocket: server.WebSocket, random: () => 0 });
  render(<App runtime={runtime} />);
}

/** As a reload of the tab: the same storage, nothing else. */
function reload(): void {
  runtime.dispose();
  cleanup();
  closeConsole();
  open();
}

async function logIn(): Promise<void> {
  type("login-username", "ann");
  type("login-password", "pw");
  fireEvent.click(get("login-submit"));
  await screen.findByTestId("whoami");
}

beforeEach(() => {
  server = new FakeServer();
  server.on["rpc.discover"] = () => ({ result: METHODS });
  server.on["ping"] = () => ({ result: { pong: true, time: 1, tabs: 1, incarnation: 3, restarts: 2 } });
  server.on["get_settings"] = () => ({ result: { settings: {}, preferences: {} } });
  server.on["update_user_preferences"] = () => ({ result: { preferences: {} } });
  server.on["session.info"] = () => ({
    result: {
      sid: "s-1",
      state: "active",
      incarnation: 3,
      restarts: 2,
      tabs: [{ id: "a", address: "::1", user_agent: "x", connected_at: 1, current: true }],
      queue: { depth: 0, bytes: 0 },
    },
  });
  applyPrefs({ language: "en", theme: "light" });
  useMethods.setState({ document: { methods: [] }, loaded: false });
  closeConsole();
});

afterEach(() => runtime.dispose());

describe("login page", () => {
  it("says a wrong password and keeps the username", async () => {
    server.on["login"] = () => refusal("INVALID_CREDENTIALS");
    open();
    type("login-username", "ann");
    type("login-password", "bad");
    fireEvent.click(get("login-submit"));
    expect((await screen.findByTestId("login-error")).textContent).toBe("Username or password is wrong.");
    expect((get("login-username") as HTMLInputElement).value).toBe("ann");
  });

  it("says when to try again after too many attempts", async () => {
    server.on["login"] = () => refusal("RATE_LIMITED", { retry_after_ms: 42_000 });
    open();
    type("login-username", "ann");
    type("login-password", "bad");
    fireEvent.click(get("login-submit"));
    expect((await screen.findByTestId("login-error")).textContent).toContain("42 s");
    expect((get("login-submit") as HTMLButtonElement).disabled).toBe(true);
  });

  it("shows the server's words when sign-up is closed", async () => {
    server.on["signup"] = () => ({
      status: "error",
      error: { code: "FORBIDDEN", message: "sign-up is closed" },
    });
    open();
    fireEvent.click(get("login-signup"));
    type("login-username", "new");
    type("login-password", "pw");
    fireEvent.click(get("login-submit"));
    expect((await screen.findByTestId("login-error")).textContent).toContain("sign-up is closed");
  });

  it("changes its language at once", async () => {
    open();
    fireEvent.click(get("login-language-zh"));
    expect(await screen.findByText("还没有账号？立即注册")).toBeTruthy();
    expect(document.documentElement.lang).toBe("zh");
  });
});

describe("session page", () => {
  it("shows who, connection and session", async () => {
    open();
    await logIn();
    await waitFor(() => expect(get("session-incarnation").textContent).toBe("3"));
    expect(get("whoami").textContent).toContain("Ann");
    expect(get("whoami").textContent).toContain("ann@example.com");
    expect(get("connection-state").textContent).toContain("Connected");
    expect(get("session-sid").textContent).toBe("s-1");
    expect(get("session-restarts").textContent).toBe("2");
    expect(get("session-tabs").textContent).toBe("1");
    expect(get("session-state").textContent).toBe("active");
  });

  it("goes back to login with the reason, and the draft is there after the next login", async () => {
    open();
    await logIn();
    type("console-method", "notes.add");
    type("console-params", '{"title": "half');
    act(() => server.socket.push("session.closed", { reason: "idle" }));
    expect((await screen.findByTestId("login-reason")).textContent).toContain("inactive for too long");
    await logIn();
    expect((get("console-method") as HTMLInputElement).value).toBe("notes.add");
    expect((get("console-params") as HTMLTextAreaElement).value).toBe('{"title": "half');
  });

  it("keeps the draft over a reload", async () => {
    open();
    await logIn();
    type("console-method", "notes.add");
    type("console-params", '{"title": 1}');
    reload();
    await screen.findByTestId("console-params");
    expect((get("console-params") as HTMLTextAreaElement).value).toBe('{"title": 1}');
  });

  it("takes up an unfinished request after a reload, with the same id", async () => {
    open();
    await logIn();
    type("console-method", "notes.add");
    fireEvent.click(get("console-send"));
    const id = rows()[0]?.dataset["requestId"];
    server.on["notes.add"] = () => ({ result: "kept", meta: { replayed: true } });
    reload();
    await waitFor(() => expect(rows()[0]?.dataset["status"]).toBe("success"));
    expect(server.requests("notes.add").map((r) => r.id)).toEqual([id, id]);
    expect(get("row-replayed")).toBeTruthy();
  });

  it("stays on the page with a failed session and says so", async () => {
    open();
    await logIn();
    server.on["job"] = () => refusal("SESSION_FAILED", { details: { reason: "crash_loop" } });
    type("console-method", "job");
    fireEvent.click(get("console-send"));
    expect((await screen.findByTestId("banner-failed")).textContent).toContain("SESSION_FAILED");
    fireEvent.click(get("failed-retry"));
    await waitFor(() => expect(screen.queryByTestId("banner-failed")).toBeNull());
  });

  it("logs out", async () => {
    open();
    await logIn();
    fireEvent.click(get("logout"));
    await screen.findByTestId("login-submit");
    expect(sessionStore.load()).toBeNull();
  });
});

describe("console", () => {
  it("fills in a template for a method, but never over what was typed", async () => {
    open();
    await logIn();
    await waitFor(() => expect(useMethods.getState().loaded).toBe(true));
    type("console-method", "notes.add");
    expect(JSON.parse((get("console-params") as HTMLTextAreaElement).value)).toEqual({ title: "" });
    expect(get("console-summary").textContent).toContain("Add a note");
    type("console-params", '{"mine": 1}');
    type("console-method", "debug.incr");
    expect((get("console-params") as HTMLTextAreaElement).value).toBe('{"mine": 1}');
  });

  it("names the place of a JSON mistake and does not send", async () => {
    open();
    await logIn();
    type("console-method", "notes.add");
    type("console-params", '{"a": 1,\n b: 2}');
    expect(get("console-json").textContent).toContain("Line 2, column 2");
    expect((get("console-send") as HTMLButtonElement).disabled).toBe(true);
  });

  it("sends with Ctrl+Enter, shows progress, then the result with its meta", async () => {
    open();
    await logIn();
    type("console-method", "work");
    type("console-deadline", "900");
    fireEvent.keyDown(get("console-params"), { key: "Enter", ctrlKey: true });
    const request = server.socket.requests("work")[0];
    if (!request) throw new Error("not sent");
    expect(request.meta?.deadline_ms).toBe(900);
    act(() => server.socket.reply(request, { status: "pending", result: { step: 1 } }));
    expect(rows()[0]?.dataset["status"]).toBe("pending");
    expect(get("row-progress").textContent).toBe('{"step":1}');
    act(() =>
      server.socket.reply(request, { result: 42, meta: { queue_ms: 1, run_ms: 20, incarnation: 3 } }),
    );
    await waitFor(() => expect(rows()[0]?.dataset["status"]).toBe("success"));
    expect(get("row-result").textContent).toBe("42");
    expect(rows()[0]?.textContent).toContain("run 20 ms");
  });

  it("shows an error in full", async () => {
    open();
    await logIn();
    server.on["bad"] = () =>
      refusal("BUSY", { retryable: true, outcome: "not_run", retry_after_ms: 250, details: { why: "full" } });
    type("console-method", "bad");
    fireEvent.click(get("console-send"));
    const error = await screen.findByTestId("row-error");
    for (const part of ["BUSY", "it did not run", "may be retried", "250 ms", "full"]) {
      expect(error.textContent).toContain(part);
    }
  });

  it("queues visibly without a connection and sends after the resume", async () => {
    open();
    await logIn();
    server.up = false;
    act(() => server.socket.drop(1006));
    type("console-method", "later");
    fireEvent.click(get("console-send"));
    expect(rows()[0]?.textContent).toContain("waiting for connection");
    expect(get("connection-state").textContent).toMatch(/Reconnecting in \d+ s \(attempt 1\)/);
    server.on["later"] = () => ({ result: "sent" });
    server.up = true;
    await waitFor(() => expect(rows()[0]?.dataset["status"]).toBe("success"), { timeout: 4_000 });
  });

  it("can take back, send again and edit", async () => {
    open();
    await logIn();
    server.on["session.cancel"] = (request, socket) => {
      const target = (request.params as { request_id: string }).request_id;
      queueMicrotask(() =>
        socket.deliver({ id: target, type: "response", ...refusal("CANCELLED", { outcome: "unknown" }) }),
      );
      return { result: {} };
    };
    type("console-method", "slow");
    type("console-params", '{"n": 1}');
    fireEvent.click(get("console-send"));
    fireEvent.click(get("row-cancel"));
    await waitFor(() => expect(rows()[0]?.dataset["status"]).toBe("error"));
    type("console-params", "{}");
    fireEvent.click(get("row-edit"));
    expect((get("console-params") as HTMLTextAreaElement).value).toBe('{"n": 1}');
    fireEvent.click(get("row-resend"));
    expect(rows()).toHaveLength(2);
    const ids = server.requests("slow").map((r) => r.id);
    expect(new Set(ids).size).toBe(2);
  });
});

describe("pushes", () => {
  it("lists pushes and gaps, newest first", async () => {
    open();
    await logIn();
    act(() => {
      server.socket.push("note", { a: 1 }, { seq: 1, epoch: "e1" });
      server.socket.push("note", { a: 2 }, { seq: 5, epoch: "e1" });
    });
    const items = within(get("pushes-list")).getAllByRole("listitem");
    expect(items.map((item) => item.dataset["seq"] ?? item.textContent)).toEqual([
      "5",
      "3 messages missed",
      "1",
    ]);
  });

  it("answers ui.ask with what the person chose", async () => {
    open();
    await logIn();
    act(() => {
      server.socket.push(
        "ui.ask",
        { question: "Sure?", kind: "confirm" },
        { seq: 1, epoch: "e1", expects_answer: true },
        "q1",
      );
    });
    fireEvent.click(await screen.findByTestId("ask-yes"));
    const answers = server.socket.frames.filter((f) => f.type === "response");
    expect(answers).toMatchObject([{ id: "q1", method: "ui.ask", result: { answer: true } }]);
  });

  it("warns before an idle logout and keeps the session on request", async () => {
    open();
    await logIn();
    act(() => server.socket.push("session.expiring", { in_s: 60 }, { seq: 1, epoch: "e1" }));
    fireEvent.click(await screen.findByTestId("session-keep"));
    expect(server.requests("session.keep")).toHaveLength(1);
  });

  it("tells a restart and asks for the session again", async () => {
    open();
    await logIn();
    const before = server.requests("session.info").length;
    act(() =>
      server.socket.push("session.restarted", { incarnation: 9, reason: "crash" }, { seq: 1, epoch: "e1" }),
    );
    expect(await screen.findByText("The session was restarted")).toBeTruthy();
    expect(server.requests("session.info").length).toBe(before + 1);
  });

  it("shows a banner while the server drains", async () => {
    open();
    await logIn();
    act(() => server.socket.push("server.draining", { reconnect_in_ms: 9_000 }));
    expect((await screen.findByTestId("banner-draining")).textContent).toContain("9 s");
  });
});

describe("preferences and debug", () => {
  it("loads preferences, and saves a change", async () => {
    server.on["get_settings"] = () => ({
      result: { settings: {}, preferences: { theme: "dark", language: "zh-CN" } },
    });
    open();
    await logIn();
    await waitFor(() => expect(document.documentElement.dataset["theme"]).toBe("dark"));
    expect(get("logout").textContent).toBe("退出登录");
    fireEvent.click(get("pref-theme-light"));
    await waitFor(() =>
      expect(server.requests("update_user_preferences")[0]?.params).toEqual({ theme: "light" }),
    );
    expect(document.documentElement.dataset["theme"]).toBe("light");
  });

  it("shows the debug card only when the server lists debug methods", async () => {
    server.on["rpc.discover"] = () => ({ result: { methods: [{ name: "ping" }] } });
    open();
    await logIn();
    await waitFor(() => expect(useMethods.getState().loaded).toBe(true));
    expect(screen.queryByTestId("debug-crash")).toBeNull();
  });

  it("counts the outcomes of a flood", async () => {
    let n = 0;
    server.on["debug.incr"] = () => (++n > 300 ? refusal("RATE_LIMITED") : { result: n });
    open();
    await logIn();
    fireEvent.click(await screen.findByTestId("debug-flood"));
    const report = await screen.findByTestId("debug-flood-report", {}, { timeout: 5_000 });
    expect(JSON.parse(report.dataset["counts"] ?? "")).toEqual({ ok: 300, RATE_LIMITED: 200 });
  });
});
