/** Makes the client and ties it to the stores. The only place that knows both. */
import { EcanClient } from "../client/client";
import type { ConnectionOptions } from "../client/connection";
import type { ClientEvents } from "../client/events";
import { Heartbeat } from "../client/heartbeat";
import { TokenRefresher } from "../client/refresher";
import { useConnection } from "../stores/connection";
import { closeConsole, forgetHistory, openConsole, useConsole } from "../stores/console";
import { showMethods } from "../stores/methods";
import { adoptPrefs, applyPrefs } from "../stores/prefs";
import { forgetPushes, noteGap, notePush } from "../stores/pushes";
import { forgetSession, noteCounters, noteLatency, showInfo, useSession } from "../stores/session";

export interface Runtime {
  client: EcanClient;
  /** Asks `session.info`. Counts as activity, so it is never on a timer. */
  refreshInfo: () => Promise<void>;
  dispose: () => void;
}

/** Focus events come in bursts; one `session.info` per this time is enough. */
const FOCUS_QUIET_MS = 2_000;

export function createRuntime(url: string, options: ConnectionOptions = {}): Runtime {
  const client = new EcanClient(url, { isOnline: () => navigator.onLine !== false, ...options });
  const heartbeat = new Heartbeat(client, (ms, result) => {
    noteLatency(ms);
    noteCounters(result);
  });
  const refresher = new TokenRefresher(client);

  const ask = async (method: string, show: (result: never) => void) => {
    try {
      show((await client.request(method, {}, { whenClosed: "fail", onLost: "fail" })).result as never);
    } catch {
      // The next resume asks again; what is on the screen stays.
    }
  };
  const refreshInfo = () => ask("session.info", showInfo);

  const sessionChanged = (session: ClientEvents["session"]) => {
    const before = useSession.getState().session;
    useSession.setState({ session });
    if (session?.session_id === before?.session_id) return;
    forgetSession();
    forgetPushes();
    if (session && useConsole.getState().username !== session.user_info.username) closeConsole();
    if (session) openConsole(client, session.user_info.username, session.sid);
  };
  const becameReady = ({ incarnation }: ClientEvents["ready"]) => {
    if (incarnation !== undefined) noteCounters({ incarnation });
    void refreshInfo();
    void ask("get_settings", adoptPrefs);
    void ask("rpc.discover", showMethods);
    heartbeat.start();
  };
  const pushed = ({ frame, at }: ClientEvents["push"]) => {
    notePush(frame, at);
    if (frame.method !== "session.restarted") return;
    noteCounters(frame.params ?? null);
    void refreshInfo();
  };

  const stops = [
    client.connection.events.on("state", (connection) => useConnection.setState({ connection })),
    client.events.on("phase", (phase) => {
      useSession.setState({ phase });
      if (phase.name === "anonymous" && phase.reason === "logout") forgetHistory();
    }),
    client.events.on("session", sessionChanged),
    client.events.on("ready", becameReady),
    client.events.on("push", pushed),
    client.events.on("gap", ({ missed }) => noteGap(missed)),
    client.events.on("draining", (drainingUntil) => useConnection.setState({ drainingUntil })),
  ];

  let askedAt = 0;
  const focused = () => {
    if (client.phase.name !== "ready" || Date.now() - askedAt < FOCUS_QUIET_MS) return;
    askedAt = Date.now();
    void refreshInfo();
  };
  const windowEvents: Array<[string, () => void]> = [
    ["focus", focused],
    ["online", () => client.connection.cameOnline()],
    ["offline", () => client.connection.wentOffline()],
    ["pagehide", () => client.flush()],
  ];
  for (const [name, listener] of windowEvents) window.addEventListener(name, listener);

  applyPrefs({});
  useSession.setState({ phase: client.phase, session: null });
  sessionChanged(client.session);
  client.start();
  return {
    client,
    refreshInfo,
    dispose: () => {
      for (const stop of stops) stop();
      for (const [name, listener] of windowEvents) window.removeEventListener(name, listener);
      heartbeat.stop();
      refresher.stop();
      client.dispose();
    },
  };
}
