/** The frames of the wire (CONTRACT.md §2): types, builders and one parser. No I/O. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Outcome = "ran" | "not_run" | "unknown";

export interface RequestMeta {
  session_id?: string;
  token?: string;
  deadline_ms?: number;
}

export interface ResponseMeta {
  sid?: string;
  incarnation?: number;
  replayed?: boolean;
  queue_ms?: number;
  run_ms?: number;
}

export interface PushMeta {
  seq?: number;
  epoch?: string | number;
  expects_answer?: boolean;
}

export interface WireError {
  code: string;
  message: string;
  details?: Json;
  retryable?: boolean;
  outcome?: Outcome;
  retry_after_ms?: number;
}

export interface RequestFrame {
  id: string;
  type: "request";
  method: string;
  params?: Json;
  meta?: RequestMeta;
  timestamp?: number;
}

export interface ResponseFrame {
  id: string;
  type: "response";
  method?: string;
  status: "success" | "pending" | "error";
  result?: Json;
  error?: WireError;
  meta?: ResponseMeta;
  timestamp?: number;
}

/** A request whose sender is the server. */
export interface PushFrame {
  id?: string;
  type: "request";
  method: string;
  params?: Json;
  meta?: PushMeta;
  timestamp?: number;
}

export type IncomingFrame = ResponseFrame | PushFrame;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads one text frame; null for anything this client does not understand (it is ignored, never thrown). */
export function parseFrame(text: unknown): IncomingFrame | null {
  if (typeof text !== "string") return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  if (value["type"] === "response" && typeof value["id"] === "string") {
    const status = value["status"];
    if (status !== "success" && status !== "pending" && status !== "error") return null;
    return value as unknown as ResponseFrame;
  }
  if (value["type"] === "request" && typeof value["method"] === "string") {
    return value as unknown as PushFrame;
  }
  return null;
}

/** A random id. `crypto.randomUUID` is missing on plain http sites, `getRandomValues` is not. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

export function requestFrame(id: string, method: string, params: Json, meta: RequestMeta): RequestFrame {
  const frame: RequestFrame = { id, type: "request", method, params, timestamp: Date.now() };
  if (Object.keys(meta).length > 0) frame.meta = meta;
  return frame;
}

/** The answer to a push the server waits for. */
export function answerFrame(push: { id: string; method: string }, result: Json): ResponseFrame {
  return {
    id: push.id,
    type: "response",
    method: push.method,
    status: "success",
    result,
    timestamp: Date.now(),
  };
}

/** A field of a JSON object, or undefined when `value` is none. */
export function field(value: Json | undefined, name: string): Json | undefined {
  return isObject(value) ? (value[name] as Json | undefined) : undefined;
}

export function numberField(value: Json | undefined, name: string): number | undefined {
  const found = field(value, name);
  return typeof found === "number" ? found : undefined;
}

export function stringField(value: Json | undefined, name: string): string | undefined {
  const found = field(value, name);
  return typeof found === "string" ? found : undefined;
}
