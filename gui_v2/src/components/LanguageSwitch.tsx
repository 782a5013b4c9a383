import { Segmented } from "antd";
import { useTranslation } from "react-i18next";
import { LANGUAGES, type Language } from "../i18n";
import { usePrefs } from "../stores/prefs";

export function LanguageSwitch({
  testId,
  onChange,
}: {
  testId: string;
  onChange: (language: Language) => void;
}) {
  const { t } = useTranslation();
  const language = usePrefs((prefs) => prefs.language);
  return (
    <Segmented<Language>
      aria-label={t("prefs.language")}
      data-testid={testId}
      data-value={language}
      options={LANGUAGES.map(({ value, label }) => ({
        value,
        label: (
          <span lang={value} data-testid={`${testId}-${value}`}>
            {label}
          </span>
        ),
      }))}
      value={language}
      onChange={onChange}
    />
  );
}
