import { describe, expect, it } from "vitest";
import { asLanguage } from ".";
import { en } from "./en";
import { zh } from "./zh";

function leaves(value: unknown, path = ""): Map<string, string> {
  if (typeof value === "string") return new Map([[path, value]]);
  return new Map(
    Object.entries(value as object).flatMap(([key, inner]) => [
      ...leaves(inner, path ? `${path}.${key}` : key),
    ]),
  );
}
const placeholders = (text: string) => (text.match(/{{\w+}}/g) ?? []).sort();

describe("texts", () => {
  it("have the same keys in both languages, none empty", () => {
    const [a, b] = [leaves(en), leaves(zh)];
    expect([...b.keys()].sort()).toEqual([...a.keys()].sort());
    expect([...a.values(), ...b.values()].filter((text) => text.trim() === "")).toEqual([]);
  });
  it("have the same placeholders in both languages", () => {
    const other = leaves(zh);
    for (const [key, text] of leaves(en)) {
      expect([key, placeholders(other.get(key) ?? "")]).toEqual([key, placeholders(text)]);
    }
  });
  it("reads language tags of either style", () => {
    expect(["zh-CN", "zh", "en_US", "EN", "fr", 3].map(asLanguage)).toEqual([
      "zh",
      "zh",
      "en",
      "en",
      null,
      null,
    ]);
  });
});
