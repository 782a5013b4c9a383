import { Button, Card } from "antd";
import { useTranslation } from "react-i18next";
import { clearFinished, isFinal, useConsole } from "../stores/console";
import { RequestRow } from "./RequestRow";

export function HistoryCard() {
  const { t } = useTranslation();
  const rows = useConsole((view) => view.rows);
  return (
    <Card
      title={t("console.history")}
      extra={
        <Button
          size="small"
          disabled={!rows.some(isFinal)}
          data-testid="console-clear"
          onClick={clearFinished}
        >
          {t("console.clear")}
        </Button>
      }
    >
      {rows.length === 0 && <div className="empty">{t("console.empty")}</div>}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it */}
      <section className="scroll" aria-label={t("console.history")} tabIndex={0}>
        <ul className="history" data-testid="console-history">
          {rows.map((row) => (
            <RequestRow key={row.id} row={row} />
          ))}
        </ul>
      </section>
    </Card>
  );
}
