import { App, Button } from "antd";
import { useEffect } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { numberField, type PushFrame, stringField } from "../protocol/frames";

const EXPIRING_KEY = "session-expiring";

/** Turns the pushes that concern the person into notifications. Renders nothing itself. */
export function Notices() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const { notification } = App.useApp();

  useEffect(() => {
    const keep = () => {
      void client.request("session.keep").catch(() => {});
      notification.destroy(EXPIRING_KEY);
    };
    const restarted = ({ params }: PushFrame) =>
      notification.warning({
        title: t("pushes.restarted"),
        description: t("pushes.restartedText", {
          incarnation: numberField(params, "incarnation") ?? "?",
          reason: stringField(params, "reason") ?? "?",
        }),
        placement: "bottomRight",
      });
    const expiring = ({ params }: PushFrame) =>
      notification.warning({
        key: EXPIRING_KEY,
        title: t("pushes.expiring"),
        description: t("pushes.expiringText", { seconds: numberField(params, "in_s") ?? 60 }),
        duration: 0,
        placement: "top",
        actions: (
          <Button type="primary" data-testid="session-keep" onClick={keep}>
            {t("pushes.keep")}
          </Button>
        ),
      });
    const stopPush = client.events.on("push", ({ frame }) => {
      if (frame.method === "session.restarted") restarted(frame);
      if (frame.method === "session.expiring") expiring(frame);
    });
    const stopPhase = client.events.on("phase", ({ name }) => {
      if (name === "anonymous") notification.destroy(EXPIRING_KEY);
    });
    return () => {
      stopPush();
      stopPhase();
    };
  }, [client, notification, t]);

  return null;
}
