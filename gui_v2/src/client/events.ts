/** What the client tells the app. */
import type { PushFrame, WireError } from "../protocol/frames";
import type { StoredSession } from "./storage";

/** Where the session stands, apart from the connection. */
export type Phase =
  | { name: "anonymous"; reason: string | null; message?: string }
  | { name: "resuming" }
  | { name: "ready" }
  | { name: "failed"; error: WireError };

export interface ClientEvents {
  phase: Phase;
  session: StoredSession | null;
  /** The session is usable (again): after login and after every resume. */
  ready: { how: "login" | "resume"; incarnation: number | undefined };
  push: { frame: PushFrame; at: number };
  gap: { missed: number };
  /** Until when the server asked us to stay away; null when it is over. */
  draining: number | null;
}
