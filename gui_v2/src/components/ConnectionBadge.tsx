import { Button, Tooltip } from "antd";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { secondsUntil, useNow } from "../app/hooks";
import { useConnection } from "../stores/connection";
import { useSession } from "../stores/session";

const TONES = {
  idle: "bad",
  connecting: "busy",
  resuming: "busy",
  open: "ok",
  waiting: "warn",
  offline: "bad",
  stopped: "bad",
} as const;

/** The connection in words and colour. Says its state to screen readers, but not every second of a countdown. */
export function ConnectionBadge() {
  const { t, i18n } = useTranslation();
  const { client } = useRuntime();
  const { name, retryAt, attempt, closed } = useConnection((view) => view.connection);
  const resuming = useSession(({ phase }) => phase.name === "resuming");
  const now = useNow(name === "waiting");
  const shown = name === "open" && resuming ? "resuming" : name;
  const words = t(`connection.${shown}`, { seconds: secondsUntil(retryAt, now), attempt });
  const key = `close.${closed?.code}`;
  const reason = closed
    ? i18n.exists(key)
      ? t(key as "close.1000")
      : t("close.other", { code: closed.code, reason: closed.reason })
    : "";
  const said = shown === "waiting" ? "" : words;
  return (
    <Tooltip title={reason && shown !== "open" ? t("connection.because", { reason }) : ""}>
      <span
        className={`connection tone-${TONES[shown]}`}
        data-testid="connection-state"
        data-state={shown}
        title={t("connection.label")}
      >
        <span className="dot" aria-hidden="true" />
        <span className="words">
          {words}
          {shown === "stopped" && reason ? `: ${reason}` : ""}
        </span>
        <output className="visually-hidden">{said}</output>
        {(shown === "waiting" || shown === "stopped") && (
          <Button
            size="small"
            type="link"
            onClick={() => client.connection.start()}
            data-testid="connection-retry"
          >
            {t("connection.retryNow")}
          </Button>
        )}
      </span>
    </Tooltip>
  );
}
