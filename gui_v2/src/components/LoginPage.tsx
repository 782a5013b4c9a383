import { Alert, Button, Card } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { applyPrefs } from "../stores/prefs";
import { useSession } from "../stores/session";
import { ConnectionBadge } from "./ConnectionBadge";
import { CredentialsForm } from "./CredentialsForm";
import { LanguageSwitch } from "./LanguageSwitch";

export function LoginPage() {
  const { t, i18n } = useTranslation();
  const phase = useSession((view) => view.phase);
  const [mode, setMode] = useState<"login" | "signup">("login");
  const [signedUp, setSignedUp] = useState(false);
  const reason = phase.name === "anonymous" ? phase.reason : null;
  const known = `ended.${reason}`;
  return (
    <main className="login">
      <div className="login-box">
        <header className="login-head">
          <img src="/favicon.svg" alt="" />
          <h1>{t("app.title")}</h1>
          <span className="muted">{t("app.tagline")}</span>
        </header>
        <Card title={t(mode === "login" ? "login.title" : "login.signupTitle")}>
          <div className="stack">
            {reason && (
              <Alert
                data-testid="login-reason"
                data-reason={reason}
                type={reason === "logout" ? "info" : "warning"}
                showIcon
                title={t("ended.title")}
                description={
                  <>
                    {i18n.exists(known) ? t(known as "ended.idle") : t("ended.other", { reason })}
                    {reason !== "logout" && <div>{t("ended.draftKept")}</div>}
                  </>
                }
              />
            )}
            {signedUp && <Alert type="success" showIcon title={t("login.signedUp")} />}
            <CredentialsForm
              mode={mode}
              onSignedUp={() => {
                setSignedUp(true);
                setMode("login");
              }}
            />
            <Button
              type="link"
              data-testid="login-signup"
              onClick={() => setMode(mode === "login" ? "signup" : "login")}
            >
              {t(mode === "login" ? "login.toSignup" : "login.toLogin")}
            </Button>
          </div>
        </Card>
        <footer className="login-foot">
          <ConnectionBadge />
          <LanguageSwitch testId="login-language" onChange={(language) => applyPrefs({ language })} />
        </footer>
      </div>
    </main>
  );
}
