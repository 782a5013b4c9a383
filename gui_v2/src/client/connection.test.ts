import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { reconnectsAfter } from "../protocol/codes";
import { FakeServer } from "../test/fakeServer";
import { backoffDelayMs, MAX_DELAY_MS } from "./backoff";
import { Connection, type ConnectionState } from "./connection";

describe("backoffDelayMs", () => {
  it("doubles from 0.2 s to 10 s", () => {
    const delays = [1, 2, 3, 4, 5, 6, 7, 8, 100].map((n) => backoffDelayMs(n, () => 0.5));
    expect(delays).toEqual([200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
  });
  it("spreads by 20 % both ways", () => {
    expect(backoffDelayMs(9, () => 0)).toBe(MAX_DELAY_MS * 0.8);
    expect(backoffDelayMs(9, () => 1)).toBe(MAX_DELAY_MS * 1.2);
  });
});

describe("close codes", () => {
  it.each([
    [1000, true],
    [1001, true],
    [1006, true],
    [1012, true],
    [1013, true],
    [4000, true],
    [4001, true],
    [4499, true],
    [4500, false],
    [4501, false],
    [4999, false],
  ])("%i reconnects: %s", (code, expected) => {
    expect(reconnectsAfter(code)).toBe(expected);
  });
});

describe("Connection", () => {
  let server: FakeServer;
  let connection: Connection;
  let states: ConnectionState[];
  let online = true;
  const pass = (ms = 1) => vi.advanceTimersByTimeAsync(ms);

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    online = true;
    server = new FakeServer();
    states = [];
    connection = new Connection("ws://test/ws", {
      WebSocket: server.WebSocket,
      random: () => 0.5,
      isOnline: () => online,
    });
    connection.events.on("state", (state) => states.push(state));
  });
  afterEach(() => connection.stop());

  it("tries again with growing delays and says when", async () => {
    server.up = false;
    connection.start();
    await pass();
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 1, closed: { code: 1006 } });
    expect(connection.state.retryAt).toBeGreaterThan(Date.now());
    await pass(199);
    await pass(2);
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 2 });
    server.up = true;
    await pass(500);
    expect(connection.state.name).toBe("open");
    expect(server.sockets).toHaveLength(3);
  });

  it("starts the delays over only after a connection that lasted", async () => {
    connection.start();
    await pass();
    server.socket.drop(1013);
    await pass(210);
    expect(connection.state).toMatchObject({ name: "open", attempt: 2 });
    server.socket.drop(1013);
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 2 });
    await pass(5_500);
    expect(connection.state.attempt).toBe(0);
    server.socket.drop(1012);
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 1 });
  });

  it("does not come back after a terminal close, until it is told to", async () => {
    connection.start();
    await pass();
    server.socket.drop(4501, "kicked");
    await pass(60_000);
    expect(connection.state).toMatchObject({ name: "stopped", closed: { code: 4501, reason: "kicked" } });
    connection.start();
    await pass();
    expect(connection.state.name).toBe("open");
  });

  it("waits for the network while the browser is offline", async () => {
    connection.start();
    await pass();
    online = false;
    server.socket.drop(1006);
    await pass(60_000);
    expect(connection.state.name).toBe("offline");
    online = true;
    connection.cameOnline();
    await pass();
    expect(connection.state.name).toBe("open");
  });

  it("does not hear a replaced socket any more", async () => {
    connection.start();
    await pass();
    const old = server.socket;
    connection.restart();
    await pass();
    old.drop(4501);
    expect(connection.state.name).toBe("open");
    expect(states.some((s) => s.name === "waiting")).toBe(false);
  });

  it("queues nothing: send is refused without a connection", () => {
    expect(connection.send("x")).toBe(false);
  });
});
