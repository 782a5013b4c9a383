/** Many requests at once, to see the server push back (P8). */
import type { EcanClient } from "../client/client";
import { RpcError } from "../client/rpc";

export interface FloodReport {
  total: number;
  ms: number;
  /** How many went well (`ok`) and how many were refused, by error code. */
  counts: Record<string, number>;
}

const FLOOD_SIZE = 500;

export async function flood(client: EcanClient, total = FLOOD_SIZE): Promise<FloodReport> {
  const startedAt = performance.now();
  const counts: Record<string, number> = {};
  const count = (code: string) => {
    counts[code] = (counts[code] ?? 0) + 1;
  };
  await Promise.all(
    Array.from({ length: total }, () =>
      client.request("debug.incr", { key: "n" }).then(
        () => count("ok"),
        (error: unknown) => count(error instanceof RpcError ? error.code : "CLIENT_ERROR"),
      ),
    ),
  );
  return { total, ms: performance.now() - startedAt, counts };
}
