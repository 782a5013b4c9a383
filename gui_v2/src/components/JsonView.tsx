import { useTranslation } from "react-i18next";
import { prettyJson } from "../app/format";
import type { Json } from "../protocol/frames";

/** More text than this makes the page slow; the rest is only counted. */
const MAX_CHARS = 20_000;

export function JsonView({
  value,
  className = "",
  testId,
}: {
  value: Json | undefined;
  className?: string;
  testId?: string;
}) {
  const { t } = useTranslation();
  const text = prettyJson(value);
  const cut = text.length - MAX_CHARS;
  return (
    <pre className={`code ${className}`} data-testid={testId}>
      {cut > 0 ? `${text.slice(0, MAX_CHARS)}\n${t("console.cut", { n: cut })}` : text}
    </pre>
  );
}
