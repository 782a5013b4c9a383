/** Gives components the runtime (client and actions). */
import { createContext, useContext } from "react";
import type { Runtime } from "./runtime";

export const RuntimeContext = createContext<Runtime | null>(null);

export function useRuntime(): Runtime {
  const runtime = useContext(RuntimeContext);
  if (!runtime) throw new Error("no RuntimeContext around this component");
  return runtime;
}
