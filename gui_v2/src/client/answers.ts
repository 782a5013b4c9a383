/** Reads the answers of login and resume. Pure. */
import { field, type Json, numberField, stringField } from "../protocol/frames";
import type { CursorAnswer } from "./cursor";
import type { Reply } from "./rpc";
import type { StoredSession, UserInfo } from "./storage";
import { refreshMoment } from "./token";

function epochOf(result: Json): string | number | null {
  return (field(result, "epoch") ?? null) as string | number | null;
}

/** The session that `login` (or a `signup` that logs in) opened. */
export function sessionOfLogin({ result, timestamp }: Reply, username: string): StoredSession {
  const text = (name: string) => stringField(result, name) ?? "";
  const info = field(result, "user_info") as object | undefined;
  return {
    session_id: text("session_id"),
    token: text("token"),
    sid: text("sid"),
    epoch: epochOf(result),
    user_info: { username, ...info } as UserInfo,
    refreshAt: refreshMoment(field(result, "expires_at"), timestamp),
  };
}

/** Where the pushes stand, as login and resume say; `sid` stands in for a missing one. */
export function cursorOf(result: Json, sid: string): CursorAnswer {
  const answer: CursorAnswer = {
    sid: stringField(result, "sid") ?? sid,
    epoch: epochOf(result),
    seq: numberField(result, "seq") ?? 0,
  };
  if (field(result, "status") !== "gap") return answer;
  const from = numberField(result, "from");
  const to = numberField(result, "to");
  return {
    ...answer,
    gap: { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) },
  };
}
