import { App, Card, Segmented } from "antd";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { savePrefs, type Theme, usePrefs } from "../stores/prefs";
import { LanguageSwitch } from "./LanguageSwitch";

export function PrefsCard() {
  const { t, i18n } = useTranslation();
  const { client } = useRuntime();
  const { message } = App.useApp();
  const theme = usePrefs((prefs) => prefs.theme);
  const save = async (change: Parameters<typeof savePrefs>[1]) => {
    try {
      await savePrefs(client, change);
      void message.success(i18n.t("prefs.saved"));
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      void message.warning(i18n.t("prefs.notSaved", { message: text }));
    }
  };
  return (
    <Card title={t("prefs.title")}>
      <div className="facts">
        <div>
          <span className="label">{t("prefs.language")}</span>
          <LanguageSwitch testId="pref-language" onChange={(language) => void save({ language })} />
        </div>
        <div>
          <span className="label">{t("prefs.theme")}</span>
          <Segmented<Theme>
            aria-label={t("prefs.theme")}
            data-testid="pref-theme"
            data-value={theme}
            options={(["light", "dark"] as const).map((value) => ({
              value,
              label: <span data-testid={`pref-theme-${value}`}>{t(`prefs.${value}`)}</span>,
            }))}
            value={theme}
            onChange={(value) => void save({ theme: value })}
          />
        </div>
      </div>
    </Card>
  );
}
