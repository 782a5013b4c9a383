/** i18next with both languages in the bundle. */
import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { en } from "./en";
import { zh } from "./zh";

export type Language = "en" | "zh";
export const LANGUAGES: ReadonlyArray<{ value: Language; label: string }> = [
  { value: "en", label: "English" },
  { value: "zh", label: "中文" },
];

/** Reads any language tag (`zh-CN`, `en_US`) as one of ours; null for another language. */
export function asLanguage(tag: unknown): Language | null {
  if (typeof tag !== "string") return null;
  if (/^zh/i.test(tag)) return "zh";
  return /^en/i.test(tag) ? "en" : null;
}

void i18next.use(initReactI18next).init({
  resources: { en: { translation: en }, zh: { translation: zh } },
  lng: "en",
  fallbackLng: "en",
  initAsync: false,
  interpolation: { escapeValue: false }, // React escapes
});

export { i18next };
