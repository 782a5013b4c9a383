import { Button, Tooltip } from "antd";
import { memo } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { formatClock, formatMs } from "../app/format";
import type { WireError } from "../protocol/frames";
import { type HistoryRow, isFinal, setDraft, submit } from "../stores/console";
import { JsonView } from "./JsonView";

const TONES = {
  waiting: "warn",
  running: "busy",
  pending: "busy",
  success: "ok",
  error: "bad",
} as const;

/** One request of the history: what was sent, how it goes, what came back. */
export const RequestRow = memo(function RequestRow({ row }: { row: HistoryRow }) {
  const { t, i18n } = useTranslation();
  const { client } = useRuntime();
  const { status, meta } = row;
  const facts = [
    formatClock(row.createdAt, i18n.language),
    row.durationMs !== undefined && t("console.duration", { ms: formatMs(row.durationMs) }),
    meta?.queue_ms !== undefined && t("console.queueMs", { ms: formatMs(meta.queue_ms) }),
    meta?.run_ms !== undefined && t("console.runMs", { ms: formatMs(meta.run_ms) }),
    meta?.incarnation !== undefined && t("console.incarnation", { n: meta.incarnation }),
    row.sends > 1 && t("console.resent", { n: row.sends }),
  ].filter((fact) => typeof fact === "string");
  return (
    <li className="row" data-status={status} data-request-id={row.id} data-method={row.method}>
      <div className="row-head">
        <span className={`chip tone-${TONES[status]}`}>{t(`console.status.${status}`)}</span>
        <span className="mono method">{row.method}</span>
        {meta?.replayed && (
          <Tooltip title={t("console.replayedHint")}>
            <span className="chip tone-replayed" data-testid="row-replayed">
              {t("console.replayed")}
            </span>
          </Tooltip>
        )}
        <span className="spacer" />
        {isFinal(row) ? (
          <>
            <Button
              size="small"
              type="text"
              data-testid="row-resend"
              onClick={() => submit(client, row.draft, row.params)}
            >
              {t("console.resend")}
            </Button>
            <Button size="small" type="text" data-testid="row-edit" onClick={() => setDraft(row.draft)}>
              {t("console.edit")}
            </Button>
          </>
        ) : (
          <Button
            size="small"
            danger
            data-testid="row-cancel"
            onClick={() => void client.cancel(row.id).catch(() => {})}
          >
            {t("console.cancel")}
          </Button>
        )}
      </div>
      <div className="row-meta">
        {facts.map((fact) => (
          <span key={fact}>{fact}</span>
        ))}
      </div>
      {JSON.stringify(row.params) !== "{}" && <JsonView value={row.params} className="params muted" />}
      {row.progress.length > 0 && (
        <details open={!isFinal(row)}>
          <summary className="muted">{t("console.progress", { n: row.progress.length })}</summary>
          <pre className="code" data-testid="row-progress">
            {row.progress.map((frame) => JSON.stringify(frame)).join("\n")}
          </pre>
        </details>
      )}
      {status === "success" && <JsonView value={row.result} testId="row-result" />}
      {row.error && <ErrorView error={row.error} />}
    </li>
  );
});

function ErrorView({ error }: { error: WireError }) {
  const { t } = useTranslation();
  const facts = [
    error.outcome && `${t("console.outcome")}: ${t(`console.outcomes.${error.outcome}`)}`,
    error.retryable !== undefined && t(error.retryable ? "console.retryable" : "console.notRetryable"),
    error.retry_after_ms !== undefined && t("console.retryAfter", { ms: error.retry_after_ms }),
  ].filter((fact) => typeof fact === "string");
  return (
    <div className="error-text" data-testid="row-error" data-code={error.code} data-outcome={error.outcome}>
      <strong className="tone-bad mono">{error.code}</strong> {error.message}
      <div className="row-meta">
        {facts.map((fact) => (
          <span key={fact}>{fact}</span>
        ))}
      </div>
      {error.details !== undefined && error.details !== null && <JsonView value={error.details} />}
    </div>
  );
}
