/** The session as the screen shows it: phase, who, and what `session.info` and `ping` say. */
import { create } from "zustand";
import type { Phase } from "../client/events";
import type { StoredSession } from "../client/storage";
import { field, type Json, numberField, stringField } from "../protocol/frames";

export interface Tab {
  id: string;
  address: string;
  userAgent: string;
  connectedAt: Json | undefined;
  current: boolean;
}

export interface SessionInfo {
  state: string | null;
  incarnation: number | null;
  restarts: number | null;
  tabs: number | null;
  tabList: Tab[];
  queueDepth: number | null;
  createdAt: Json | undefined;
  expiresAt: Json | undefined;
}

interface SessionView {
  phase: Phase;
  session: StoredSession | null;
  info: SessionInfo;
  /** Round trips of the last pings, oldest first, in ms. */
  latencies: number[];
}

/** Pings the sparkline shows: ten minutes. */
const MAX_LATENCIES = 60;

const NO_INFO: SessionInfo = {
  state: null,
  incarnation: null,
  restarts: null,
  tabs: null,
  tabList: [],
  queueDepth: null,
  createdAt: undefined,
  expiresAt: undefined,
};

export const useSession = create<SessionView>(() => ({
  phase: { name: "anonymous", reason: null },
  session: null,
  info: NO_INFO,
  latencies: [],
}));

function readTab(tab: Json): Tab {
  return {
    id: String(field(tab, "id") ?? ""),
    address: stringField(tab, "address") ?? "",
    userAgent: stringField(tab, "user_agent") ?? "",
    connectedAt: field(tab, "connected_at"),
    current: field(tab, "current") === true,
  };
}

/** Takes over the answer of `session.info`. */
export function showInfo(result: Json): void {
  const tabs = field(result, "tabs");
  const tabList = Array.isArray(tabs) ? tabs.map(readTab) : [];
  useSession.setState({
    info: {
      state: stringField(result, "state") ?? null,
      incarnation: numberField(result, "incarnation") ?? null,
      restarts: numberField(result, "restarts") ?? null,
      tabs: Array.isArray(tabs) ? tabs.length : (numberField(result, "tabs") ?? null),
      tabList,
      queueDepth: numberField(field(result, "queue"), "depth") ?? null,
      createdAt: field(result, "created_at"),
      expiresAt: field(result, "expires_at"),
    },
  });
}

/** Takes over what any frame says about the session; absent values stay as they were. */
export function noteCounters(result: Json | undefined): void {
  const { info } = useSession.getState();
  const change: Partial<SessionInfo> = {};
  for (const name of ["incarnation", "restarts", "tabs"] as const) {
    const value = numberField(result, name);
    if (value !== undefined && value !== info[name]) change[name] = value;
  }
  if (Object.keys(change).length > 0) useSession.setState({ info: { ...info, ...change } });
}

export function noteLatency(ms: number): void {
  useSession.setState(({ latencies }) => ({ latencies: [...latencies, ms].slice(-MAX_LATENCIES) }));
}

export function forgetSession(): void {
  useSession.setState({ info: NO_INFO, latencies: [] });
}
