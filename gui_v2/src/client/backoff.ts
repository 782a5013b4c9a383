/** How long to wait before connection attempt `attempt` (1, 2, 3 …): 0.2 s doubling to 10 s, ±20 %. */

export const FIRST_DELAY_MS = 200;
export const MAX_DELAY_MS = 10_000;
/** Spread, so that the tabs of a restarted server do not come back in the same instant. */
export const JITTER = 0.2;
/** A connection that lived this long was a good one: the next loss starts again at the first delay. */
export const GOOD_UPTIME_MS = 5_000;

export function backoffDelayMs(attempt: number, random: () => number = Math.random): number {
  const base = Math.min(FIRST_DELAY_MS * 2 ** Math.min(attempt - 1, 30), MAX_DELAY_MS);
  return Math.round(base * (1 - JITTER + 2 * JITTER * random()));
}
