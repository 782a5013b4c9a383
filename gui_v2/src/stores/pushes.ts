/** What the server sent on its own: pushes, gaps between them, and questions that wait for the user. */
import { create } from "zustand";
import { field, type Json, type PushFrame, stringField } from "../protocol/frames";

export type PushRow =
  | { kind: "push"; key: number; at: number; seq: number | null; method: string; params: Json }
  | { kind: "gap"; key: number; at: number; missed: number };

export interface Ask {
  push: PushFrame;
  question: string;
  kind: "confirm" | "text";
}

interface PushesView {
  /** Newest first. */
  rows: PushRow[];
  asks: Ask[];
}

const MAX_ROWS = 200;
let nextKey = 1;

export const usePushes = create<PushesView>(() => ({ rows: [], asks: [] }));

function add(row: PushRow): void {
  usePushes.setState(({ rows }) => ({ rows: [row, ...rows].slice(0, MAX_ROWS) }));
}

export function notePush(frame: PushFrame, at: number): void {
  const { method, params = null, meta } = frame;
  add({ kind: "push", key: nextKey++, at, seq: meta?.seq ?? null, method, params });
  if (method === "ui.ask" && meta?.expects_answer === true) {
    const kind = field(params, "kind") === "text" ? "text" : "confirm";
    const ask: Ask = { push: frame, question: stringField(params, "question") ?? "", kind };
    // Asked again after a reconnect: it is the same question.
    const known = usePushes.getState().asks.some(({ push }) => push.id === frame.id);
    if (!known) usePushes.setState(({ asks }) => ({ asks: [...asks, ask] }));
  }
}

export function noteGap(missed: number): void {
  add({ kind: "gap", key: nextKey++, at: Date.now(), missed });
}

/** Takes the oldest question off the queue. */
export function askAnswered(): void {
  usePushes.setState(({ asks }) => ({ asks: asks.slice(1) }));
}

export function clearPushes(): void {
  usePushes.setState({ rows: [] });
}

export function forgetPushes(): void {
  usePushes.setState({ rows: [], asks: [] });
}
