/**
 * What outlives a page: the session and drafts (localStorage, shared by tabs), the push cursor and the
 * request history (sessionStorage, this tab only). A full or forbidden storage costs persistence, nothing else.
 */
import type { CursorState } from "./cursor";

export interface UserInfo {
  username: string;
  email?: string;
  role?: string;
  name?: string;
  [key: string]: unknown;
}

export interface StoredSession {
  session_id: string;
  token: string;
  sid: string;
  epoch: string | number | null;
  user_info: UserInfo;
  /** When to refresh the token: 80 % of its life, on this machine's clock (ms); null when it never expires. */
  refreshAt: number | null;
}

export interface Draft {
  method: string;
  params: string;
  deadline: string;
}

const SESSION_KEY = "ecan.session";
const ENDED_KEY = "ecan.ended";
const CURSOR_KEY = "ecan.cursor";
const HISTORY_KEY = "ecan.history";
const PREFS_KEY = "ecan.prefs";
const DRAFT_PREFIX = "ecan.draft.";
const LAST_USER_KEY = "ecan.last_username";

/** Params that hold one of these are not written to disk. */
const SECRET = /"[^"]*(password|passwd|secret|token|session_id)[^"]*"\s*:/i;

export function holdsSecret(paramsText: string): boolean {
  return SECRET.test(paramsText);
}

function read<T>(storage: Storage, key: string): T | null {
  try {
    const text = storage.getItem(key);
    return text === null ? null : (JSON.parse(text) as T);
  } catch {
    return null;
  }
}

function write(storage: Storage, key: string, value: unknown): void {
  try {
    if (value === null) storage.removeItem(key);
    else storage.setItem(key, JSON.stringify(value));
  } catch {
    // Quota or a private window: the app works on, it only forgets more.
  }
}

export const sessionStore = {
  load(): StoredSession | null {
    const stored = read<StoredSession>(localStorage, SESSION_KEY);
    return stored && typeof stored.session_id === "string" && typeof stored.token === "string"
      ? stored
      : null;
  },
  save: (session: StoredSession): void => write(localStorage, SESSION_KEY, session),
  /** Removes the session, for all tabs; `reason` tells the others why. */
  clear(sessionId: string, reason: string): void {
    if (sessionStore.load()?.session_id !== sessionId) return; // another tab has logged in since
    write(localStorage, ENDED_KEY, reason);
    write(localStorage, SESSION_KEY, null);
  },
  /** Why the last session ended, as the tab that saw it wrote down. */
  endReason: (): string => read<string>(localStorage, ENDED_KEY) ?? "logout",
  /** Calls `listener` when another tab logs in, logs out or refreshes the token. Returns the unsubscriber. */
  watch(listener: (session: StoredSession | null) => void): () => void {
    const onStorage = (event: StorageEvent) => {
      // key is null when everything was cleared
      if (event.key === SESSION_KEY || event.key === null) listener(sessionStore.load());
    };
    window.addEventListener("storage", onStorage);
    return () => window.removeEventListener("storage", onStorage);
  },
};

export const cursorStore = {
  load: (): CursorState | null => read<CursorState>(sessionStorage, CURSOR_KEY),
  save: (cursor: CursorState | null): void => write(sessionStorage, CURSOR_KEY, cursor),
};

export const draftStore = {
  load: (username: string): Draft | null => read<Draft>(localStorage, DRAFT_PREFIX + username),
  save(username: string, draft: Draft): void {
    if (!holdsSecret(draft.params)) write(localStorage, DRAFT_PREFIX + username, draft);
  },
};

export const historyStore = {
  load: <Row>(username: string): Row[] => {
    const stored = read<{ username: string; rows: Row[] }>(sessionStorage, HISTORY_KEY);
    return stored?.username === username && Array.isArray(stored.rows) ? stored.rows : [];
  },
  save: (username: string, rows: unknown[]): void => write(sessionStorage, HISTORY_KEY, { username, rows }),
};

export const prefsStore = {
  load: (): { language?: string; theme?: string } => read(localStorage, PREFS_KEY) ?? {},
  save: (prefs: { language: string; theme: string }): void => write(localStorage, PREFS_KEY, prefs),
};

export const lastUsername = {
  load: (): string => read<string>(localStorage, LAST_USER_KEY) ?? "",
  save: (username: string): void => write(localStorage, LAST_USER_KEY, username),
};
