/** JSON as a person types it: parse, and say the line and column of a mistake. */
import type { Json } from "./frames";

export type ParsedJson =
  | { ok: true; value: Json }
  | { ok: false; message: string; line: number; column: number };

const SPACE = /[ \t\n\r]*/y;
const SCALAR =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON strings must not hold raw control characters
  /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

/** Parses params; an empty text means `{}`. */
export function parseJsonText(text: string): ParsedJson {
  if (text.trim() === "") return { ok: true, value: {} };
  try {
    return { ok: true, value: JSON.parse(text) as Json };
  } catch (error) {
    const full = error instanceof Error ? error.message : String(error);
    // The engine's own place counts differently, if it is there at all.
    const message = full.replace(/ (in JSON )?at position .*$/, "");
    return { ok: false, message, ...lineAndColumn(text, errorOffset(text) ?? text.length) };
  }
}

/** Position in `text` as 1-based line and column. */
export function lineAndColumn(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split("\n");
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

/** Offset of the first mistake, null if there is none. By hand: the engines' messages often omit the place. */
export function errorOffset(text: string): number | null {
  const closers: string[] = [];
  let at = 0;
  const skipSpace = () => {
    SPACE.lastIndex = at;
    SPACE.test(text);
    at = SPACE.lastIndex;
  };
  const scalar = (stringOnly: boolean): boolean => {
    SCALAR.lastIndex = at;
    if ((stringOnly && text[at] !== '"') || !SCALAR.test(text)) return false;
    at = SCALAR.lastIndex;
    return true;
  };
  let expect: "value" | "value-or-end" | "key" | "key-or-end" | "next" = "value";
  for (;;) {
    skipSpace();
    const char = text[at];
    const closer = closers.at(-1);
    if (expect === "next") {
      if (closer === undefined) return at < text.length ? at : null;
      if (char === closer) closers.pop();
      else if (char === ",") expect = closer === "}" ? "key" : "value";
      else return at;
      at += 1;
    } else if ((expect === "key-or-end" || expect === "value-or-end") && char === closer) {
      closers.pop();
      at += 1;
      expect = "next";
    } else if (expect === "key" || expect === "key-or-end") {
      if (!scalar(true)) return at;
      skipSpace();
      if (text[at] !== ":") return at;
      at += 1;
      expect = "value";
    } else if (char === "{" || char === "[") {
      closers.push(char === "{" ? "}" : "]");
      at += 1;
      expect = char === "{" ? "key-or-end" : "value-or-end";
    } else if (scalar(false)) {
      expect = "next";
    } else {
      return at;
    }
  }
}
