import { AutoComplete, Input } from "antd";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { useMethods } from "../stores/methods";

/** A method's name, with completion from the server's own list. */
export function MethodField({
  id,
  value,
  onChange,
}: {
  id: string;
  value: string;
  onChange: (method: string) => void;
}) {
  const { t } = useTranslation();
  const methods = useMethods(({ document }) => document.methods);
  const options = useMemo(() => {
    const typed = value.trim().toLowerCase();
    const exact = methods.some(({ name }) => name === value);
    return methods
      .filter(
        ({ name, summary }) =>
          exact || name.toLowerCase().includes(typed) || summary?.toLowerCase().includes(typed),
      )
      .sort((a, b) => Number(!a.name.startsWith(typed)) - Number(!b.name.startsWith(typed)))
      .map(({ name, summary }) => ({
        value: name,
        label: (
          <span className="method-option">
            <span className="mono">{name}</span>
            <span className="muted">{summary}</span>
          </span>
        ),
      }));
  }, [methods, value]);
  return (
    <AutoComplete
      id={id}
      style={{ width: "100%" }}
      options={options}
      value={value}
      onChange={(text) => onChange(String(text ?? ""))}
      defaultActiveFirstOption={false}
    >
      <Input
        className="mono"
        data-testid="console-method"
        placeholder={t("console.methodHint")}
        spellCheck={false}
        autoCapitalize="none"
        autoComplete="off"
      />
    </AutoComplete>
  );
}
