/** The connection as the screen shows it. */
import { create } from "zustand";
import type { ConnectionState } from "../client/connection";

interface ConnectionView {
  connection: ConnectionState;
  /** Until when a draining server asked us to stay away (ms since the epoch). */
  drainingUntil: number | null;
}

export const useConnection = create<ConnectionView>(() => ({
  connection: { name: "idle", attempt: 0, retryAt: null, closed: null },
  drainingUntil: null,
}));
