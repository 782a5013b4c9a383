/** Language and theme: applied at once, kept in this browser, saved at the server when logged in. */
import { create } from "zustand";
import type { EcanClient } from "../client/client";
import { prefsStore } from "../client/storage";
import { asLanguage, i18next, type Language } from "../i18n";
import { field, type Json } from "../protocol/frames";

export type Theme = "light" | "dark";

interface Prefs {
  language: Language;
  theme: Theme;
}

function asTheme(value: unknown): Theme | null {
  return value === "dark" || value === "light" ? value : null;
}

function systemTheme(): Theme {
  return window.matchMedia?.("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

export const usePrefs = create<Prefs>(() => {
  const stored = prefsStore.load();
  return {
    language: asLanguage(stored.language) ?? asLanguage(navigator.language) ?? "en",
    theme: asTheme(stored.theme) ?? systemTheme(),
  };
});

/** Applies preferences here, without telling the server. */
export function applyPrefs(change: Partial<Prefs>): void {
  usePrefs.setState(change);
  const { language, theme } = usePrefs.getState();
  prefsStore.save({ language, theme });
  document.documentElement.lang = language;
  document.documentElement.dataset["theme"] = theme;
  if (i18next.language !== language) void i18next.changeLanguage(language);
}

/** Applies and saves; rejects with the server's error, the change stays applied in this browser. */
export async function savePrefs(client: EcanClient, change: Partial<Prefs>): Promise<void> {
  applyPrefs(change);
  await client.request("update_user_preferences", change);
}

/** Takes over what `get_settings` answered. */
export function adoptPrefs(result: Json): void {
  const preferences = field(result, "preferences");
  const language = asLanguage(field(preferences, "language"));
  const theme = asTheme(field(preferences, "theme"));
  applyPrefs({ ...(language ? { language } : {}), ...(theme ? { theme } : {}) });
}
