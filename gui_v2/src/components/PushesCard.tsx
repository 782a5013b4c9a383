import { Button, Card } from "antd";
import { useTranslation } from "react-i18next";
import { formatClock } from "../app/format";
import { clearPushes, usePushes } from "../stores/pushes";
import { JsonView } from "./JsonView";

export function PushesCard() {
  const { t, i18n } = useTranslation();
  const rows = usePushes((view) => view.rows);
  return (
    <Card
      title={t("pushes.title")}
      extra={
        <Button size="small" disabled={rows.length === 0} data-testid="pushes-clear" onClick={clearPushes}>
          {t("pushes.clear")}
        </Button>
      }
    >
      {rows.length === 0 && <div className="empty">{t("pushes.empty")}</div>}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it */}
      <section className="scroll" aria-label={t("pushes.title")} tabIndex={0}>
        <ul className="pushes" data-testid="pushes-list">
          {rows.map((row) =>
            row.kind === "gap" ? (
              <li key={row.key} className="push gap" data-kind="gap" data-missed={row.missed}>
                {row.missed > 0 ? t("pushes.missed", { count: row.missed }) : t("pushes.missedUnknown")}
              </li>
            ) : (
              <li key={row.key} className="push" data-kind="push" data-seq={row.seq} data-method={row.method}>
                <span className="mono muted">{row.seq === null ? "–" : `#${row.seq}`}</span>
                <span className="mono method">{row.method}</span>
                <time className="muted" dateTime={new Date(row.at).toISOString()}>
                  {formatClock(row.at, i18n.language)}
                </time>
                {row.params !== null && JSON.stringify(row.params) !== "{}" && (
                  <JsonView value={row.params} />
                )}
              </li>
            ),
          )}
        </ul>
      </section>
    </Card>
  );
}
