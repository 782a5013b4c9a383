/** When to refresh a token. */

/** Part of its life after which a token is refreshed. */
export const REFRESH_AT_LIFE = 0.8;

/** Reads an expiry: ISO text, seconds or milliseconds since the epoch. Null when absent or unreadable. */
export function expiryMs(expiresAt: unknown): number | null {
  if (typeof expiresAt === "number" && Number.isFinite(expiresAt)) {
    return expiresAt < 1e11 ? expiresAt * 1000 : expiresAt;
  }
  if (typeof expiresAt === "string") {
    const parsed = Date.parse(expiresAt);
    return Number.isNaN(parsed) ? null : parsed;
  }
  return null;
}

/**
 * The moment, on this machine's clock, at which 80 % of the token's life are over.
 *
 * Args:
 *   serverNow: the server's clock when it made the token (the frame's timestamp), so that a wrong
 *     clock here does not matter; undefined means "trust ours".
 */
export function refreshMoment(
  expiresAt: unknown,
  serverNow: number | undefined,
  now = Date.now(),
): number | null {
  const expiry = expiryMs(expiresAt);
  if (expiry === null) return null;
  const life = Math.max(expiry - (serverNow ?? now), 0);
  return now + life * REFRESH_AT_LIFE;
}
