import { expiryMs } from "../client/token";
import type { Json } from "../protocol/frames";

/** A server time (ISO text, seconds or milliseconds) in the reader's language; a dash when there is none. */
export function formatTime(value: Json | undefined, language: string): string {
  const ms = expiryMs(value);
  if (ms === null) return "–";
  const time = new Date(ms);
  const today = time.toDateString() === new Date().toDateString();
  return time.toLocaleString(
    language,
    today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" },
  );
}

export function formatClock(ms: number, language: string): string {
  return new Date(ms).toLocaleTimeString(language, { hour12: false });
}

/** JSON for people: short values on one line, larger ones indented. */
export function prettyJson(value: Json | undefined): string {
  const line = JSON.stringify(value ?? null);
  return line.length <= 80 ? line : JSON.stringify(value, null, 2);
}

export function formatMs(ms: number): string {
  return ms < 10 ? ms.toFixed(1).replace(/\.0$/, "") : Math.round(ms).toString();
}
