/**
 * The request console: the draft (kept per user in localStorage) and the history (kept per tab).
 *
 * Nothing a person typed is lost: a draft survives everything, an unfinished request survives a reload and
 * is sent again with its old id, which the server runs at most once.
 */
import { create } from "zustand";
import type { EcanClient } from "../client/client";
import { RpcError } from "../client/rpc";
import { type Draft, draftStore, historyStore, holdsSecret } from "../client/storage";
import { type Json, newId, type ResponseMeta, type WireError } from "../protocol/frames";

export type RowStatus = "waiting" | "running" | "pending" | "success" | "error";

export interface HistoryRow {
  id: string;
  sid: string;
  method: string;
  params: Json;
  /** As typed; empty in deadline means none. */
  draft: Draft;
  status: RowStatus;
  progress: Json[];
  result?: Json;
  error?: WireError;
  meta?: ResponseMeta;
  sends: number;
  createdAt: number;
  durationMs?: number;
}

interface ConsoleView {
  username: string | null;
  draft: Draft;
  /** Newest first. */
  rows: HistoryRow[];
}

const MAX_ROWS = 100;
const MAX_PERSISTED_ROWS = 30;
const MAX_PERSISTED_CHARS = 20_000;
const MAX_PROGRESS = 200;
const EMPTY_DRAFT: Draft = { method: "", params: "{}", deadline: "" };

export const useConsole = create<ConsoleView>(() => ({ username: null, draft: EMPTY_DRAFT, rows: [] }));

export const isFinal = (row: HistoryRow): boolean => row.status === "success" || row.status === "error";

export function setDraft(change: Partial<Draft>): void {
  useConsole.setState((view) => ({ draft: { ...view.draft, ...change } }));
  const { username, draft } = useConsole.getState();
  if (username) draftStore.save(username, draft);
}

/** Brings a user's draft and history back, and takes up what was unfinished. */
export function openConsole(client: EcanClient, username: string, sid: string): void {
  const same = useConsole.getState().username === username;
  const rows = same ? useConsole.getState().rows : historyStore.load<HistoryRow>(username);
  if (!same) useConsole.setState({ username, draft: draftStore.load(username) ?? EMPTY_DRAFT, rows });
  for (const row of rows) {
    if (isFinal(row)) continue;
    if (row.sid === sid) {
      if (!same) void issue(client, row);
    } else {
      const error: WireError = {
        code: "SESSION_CLOSED",
        message: "the session ended",
        outcome: row.sends > 0 ? "unknown" : "not_run",
      };
      update(row.id, { status: "error", error });
    }
  }
}

/** Sends what `draft` says; `params` is its parsed text. */
export function submit(client: EcanClient, draft: Draft, params: Json): HistoryRow {
  const row: HistoryRow = {
    id: newId(),
    sid: client.session?.sid ?? "",
    method: draft.method.trim(),
    params,
    draft: { ...draft },
    status: "waiting",
    progress: [],
    sends: 0,
    createdAt: Date.now(),
  };
  useConsole.setState(({ rows }) => ({ rows: [row, ...rows].slice(0, MAX_ROWS) }));
  void issue(client, row);
  return row;
}

export function clearFinished(): void {
  useConsole.setState(({ rows }) => ({ rows: rows.filter((row) => !isFinal(row)) }));
  persist();
}

/** Another user, or nobody: nothing of the last one stays on the screen. */
export function closeConsole(): void {
  useConsole.setState({ username: null, draft: EMPTY_DRAFT, rows: [] });
}

/** After a logout the results of the user are no longer anyone's business; the draft stays. */
export function forgetHistory(): void {
  useConsole.setState({ rows: [] });
  persist();
}

async function issue(client: EcanClient, row: HistoryRow): Promise<void> {
  const deadline = Number(row.draft.deadline);
  const ended = () => ({ durationMs: Date.now() - row.createdAt });
  try {
    const { result, meta } = await client.request(row.method, row.params, {
      id: row.id,
      ...(row.draft.deadline !== "" && deadline > 0 ? { deadlineMs: deadline } : {}),
      onSent: (sends) => update(row.id, { status: "running", sends }),
      onWaiting: () => update(row.id, { status: "waiting" }),
      onPending: (frame) => addProgress(row.id, frame.result ?? null),
    });
    update(row.id, { status: "success", result, meta, ...ended() });
  } catch (error) {
    const wire = error instanceof RpcError ? error.wire : { code: "CLIENT_ERROR", message: String(error) };
    const meta = error instanceof RpcError ? error.meta : undefined;
    update(row.id, { status: "error", error: wire, ...(meta ? { meta } : {}), ...ended() });
  }
}

function addProgress(id: string, frame: Json): void {
  const row = useConsole.getState().rows.find((r) => r.id === id);
  if (row) update(id, { status: "pending", progress: [...row.progress, frame].slice(-MAX_PROGRESS) });
}

function update(id: string, change: Partial<HistoryRow>): void {
  useConsole.setState(({ rows }) => ({
    rows: rows.map((row) => (row.id === id ? { ...row, ...change } : row)),
  }));
  persist();
}

function persist(): void {
  const { username, rows } = useConsole.getState();
  if (!username) return;
  const kept = rows.filter((row) => !holdsSecret(row.draft.params)).slice(0, MAX_PERSISTED_ROWS);
  historyStore.save(username, kept.map(shortened));
}

/** Without what is too large for the browser's storage. */
function shortened(row: HistoryRow): HistoryRow {
  const { result, ...rest } = row;
  if (JSON.stringify(row).length <= MAX_PERSISTED_CHARS) return row;
  return { ...rest, progress: [] };
}
