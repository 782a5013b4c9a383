import { describe, expect, it } from "vitest";
import { webSocketUrl } from "../app/url";
import { PushCursor } from "./cursor";
import { draftStore, holdsSecret, sessionStore } from "./storage";
import { expiryMs, refreshMoment } from "./token";

describe("PushCursor", () => {
  it("takes the server's number on a brand-new tab and lets a replay of older ones through once", () => {
    const cursor = new PushCursor();
    expect(cursor.resumeParams("s")).toEqual({});
    cursor.attach({ sid: "s", epoch: "e", seq: 5 });
    expect([4, 5, 5, 6, 4].map((seq) => cursor.see(seq, "e").kind)).toEqual([
      "new",
      "new",
      "duplicate",
      "new",
      "duplicate",
    ]);
    expect(cursor.resumeParams("s")).toEqual({ last_seq: 6, epoch: "e" });
  });
  it("does not use the cursor of another session", () => {
    const cursor = new PushCursor({ sid: "old", epoch: "e", last: 9 });
    expect(cursor.resumeParams("new")).toEqual({});
  });
  it("throws the cursor away when the epoch changed at resume", () => {
    const cursor = new PushCursor({ sid: "s", epoch: "e1", last: 90 });
    cursor.attach({ sid: "s", epoch: "e2", seq: 2 });
    expect(cursor.see(3, "e2")).toEqual({ kind: "new", missed: 0 });
  });
  it("counts what is missing in front of the first push of a new epoch", () => {
    const cursor = new PushCursor({ sid: "s", epoch: "e1", last: 90 });
    expect(cursor.see(3, "e2")).toEqual({ kind: "new", missed: 2 });
  });
  it("treats pushes without a number as new", () => {
    const cursor = new PushCursor({ sid: "s", epoch: "e1", last: 1 });
    expect(cursor.see(undefined, undefined)).toEqual({ kind: "new", missed: 0 });
  });
});

describe("tokens", () => {
  it("reads every form of expiry", () => {
    expect(expiryMs("2026-01-01T00:00:00Z")).toBe(1_767_225_600_000);
    expect(expiryMs(1_767_225_600)).toBe(1_767_225_600_000);
    expect(expiryMs(1_767_225_600_000)).toBe(1_767_225_600_000);
    expect([expiryMs("soon"), expiryMs(undefined), expiryMs(null)]).toEqual([null, null, null]);
  });
  it("refreshes at 80 % of the life by the server's clock, whatever ours says", () => {
    const serverNow = 1_767_225_600_000;
    expect(refreshMoment(serverNow + 1_000, serverNow, 500_000)).toBe(500_800);
  });
});

describe("storage", () => {
  it("keeps secrets typed into the console off the disk", () => {
    draftStore.save("ann", { method: "change_password", params: '{"old_password":"x"}', deadline: "" });
    expect(draftStore.load("ann")).toBeNull();
    expect(holdsSecret('{"title":"password"}')).toBe(false);
  });
  it("keeps drafts of different users apart", () => {
    draftStore.save("ann", { method: "a", params: "{", deadline: "" });
    draftStore.save("bob", { method: "b", params: "{}", deadline: "1" });
    expect(draftStore.load("ann")).toEqual({ method: "a", params: "{", deadline: "" });
  });
  it("reads broken or foreign content as nothing", () => {
    localStorage.setItem("ecan.session", "{broken");
    expect(sessionStore.load()).toBeNull();
    localStorage.setItem("ecan.session", '{"session_id": 3}');
    expect(sessionStore.load()).toBeNull();
  });
});

describe("webSocketUrl", () => {
  it("derives the address from the page unless one was built in", () => {
    expect(webSocketUrl(undefined, { protocol: "http:", host: "h:1" })).toBe("ws://h:1/ws");
    expect(webSocketUrl("", { protocol: "https:", host: "h" })).toBe("wss://h/ws");
    expect(webSocketUrl("wss://api/ws", { protocol: "http:", host: "h" })).toBe("wss://api/ws");
  });
});
