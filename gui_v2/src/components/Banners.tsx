import { Alert, Button, Space } from "antd";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { secondsUntil, useNow } from "../app/hooks";
import { useConnection } from "../stores/connection";
import { useSession } from "../stores/session";

/** What concerns the whole page: the server is going away, the session cannot go on. */
export function Banners() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const drainingUntil = useConnection((view) => view.drainingUntil);
  const phase = useSession((view) => view.phase);
  const now = useNow(drainingUntil !== null);
  return (
    <div className="banners">
      {drainingUntil !== null && (
        <Alert
          data-testid="banner-draining"
          type="warning"
          showIcon
          title={t("pushes.draining")}
          description={t("pushes.drainingText", { seconds: secondsUntil(drainingUntil, now) })}
        />
      )}
      {phase.name === "failed" && (
        <Alert
          data-testid="banner-failed"
          type="error"
          showIcon
          title={t("session.failedTitle")}
          description={t("session.failedText", {
            message: phase.error.message || t("session.failedPush"),
            code: phase.error.code,
          })}
          action={
            <Space orientation="vertical">
              <Button type="primary" data-testid="failed-retry" onClick={() => client.retryResume()}>
                {t("session.retry")}
              </Button>
              <Button data-testid="failed-logout" onClick={() => void client.logout()}>
                {t("session.logout")}
              </Button>
            </Space>
          }
        />
      )}
    </div>
  );
}
