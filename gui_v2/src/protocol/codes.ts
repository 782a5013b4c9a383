/** Error and close codes of the wire, and what the app does about each (CONTRACT.md §2). */

/** Error codes the app itself reacts to; handlers may add any other. */
export const ErrorCode = {
  INVALID_CREDENTIALS: "INVALID_CREDENTIALS",
  RATE_LIMITED: "RATE_LIMITED",
  BUSY: "BUSY",
  FORBIDDEN: "FORBIDDEN",
  DRAINING: "DRAINING",
  TOKEN_REQUIRED: "TOKEN_REQUIRED",
  INVALID_TOKEN: "INVALID_TOKEN",
  SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
  SESSION_EXPIRED: "SESSION_EXPIRED",
  SESSION_CLOSED: "SESSION_CLOSED",
  SESSION_FAILED: "SESSION_FAILED",
  CANCELLED: "CANCELLED",
  /** Made in the browser: the connection broke under a request that must not be sent twice. */
  CONNECTION_LOST: "CONNECTION_LOST",
  /** Made in the browser: no answer within the time this app waits. */
  NO_ANSWER: "NO_ANSWER",
} as const;

/** Errors after which this session cannot be used again: back to the login page. */
const SESSION_ENDING: ReadonlySet<string> = new Set([
  ErrorCode.SESSION_NOT_FOUND,
  ErrorCode.SESSION_EXPIRED,
  ErrorCode.SESSION_CLOSED,
  ErrorCode.INVALID_TOKEN,
  ErrorCode.TOKEN_REQUIRED,
]);

export function endsSession(code: string): boolean {
  return SESSION_ENDING.has(code);
}

/** Close codes that say the session itself is over, with the reason as `session.closed` would name it. */
export const SESSION_OVER: Readonly<Record<number, string>> = { 4500: "closed", 4501: "killed" };

/** First and last close code that say "do not come back" (the range, not the single code, decides). */
export const TERMINAL_CLOSE = { first: 4500, last: 4999 } as const;

/** Whether to connect again after a close: every RFC code and 4000–4499 yes, 4500–4999 no. */
export function reconnectsAfter(closeCode: number): boolean {
  return closeCode < TERMINAL_CLOSE.first || closeCode > TERMINAL_CLOSE.last;
}
