import { LogoutOutlined } from "@ant-design/icons";
import { Button, Layout } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { useSession } from "../stores/session";
import { ConnectionBadge } from "./ConnectionBadge";

export function AppHeader() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const user = useSession(({ session }) => session?.user_info);
  const [leaving, setLeaving] = useState(false);
  const logout = async () => {
    setLeaving(true);
    await client.logout();
  };
  const details = [user?.name && user.name !== user.username ? user.username : "", user?.role, user?.email];
  return (
    <Layout.Header className="header">
      <h1 className="brand">
        <img src="/favicon.svg" alt="" />
        {t("app.title")}
      </h1>
      <ConnectionBadge />
      <div className="spacer" />
      <section className="who" data-testid="whoami" aria-label={t("session.whoami")}>
        <div>
          <strong>{user?.name || user?.username}</strong>
        </div>
        <div className="muted">{details.filter(Boolean).join(" · ")}</div>
      </section>
      <Button
        icon={<LogoutOutlined />}
        aria-label={t("session.logout")}
        data-testid="logout"
        loading={leaving}
        onClick={logout}
      >
        <span className="wide-only">{t("session.logout")}</span>
      </Button>
    </Layout.Header>
  );
}
