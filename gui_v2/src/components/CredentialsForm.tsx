import { Alert, Button, Input } from "antd";
import { type FormEvent, useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { secondsUntil, useNow } from "../app/hooks";
import { RpcError } from "../client/rpc";
import { lastUsername } from "../client/storage";
import { ErrorCode } from "../protocol/codes";
import type { WireError } from "../protocol/frames";
import { useConnection } from "../stores/connection";
import { usePrefs } from "../stores/prefs";

interface Refused {
  error: WireError;
  /** When the server lets us try again (ms since the epoch). */
  retryAt: number | null;
}

const WORDED = [
  ErrorCode.INVALID_CREDENTIALS,
  ErrorCode.FORBIDDEN,
  ErrorCode.CONNECTION_LOST,
  ErrorCode.NO_ANSWER,
] as const;

/** Login and signup. What was typed stays in place whatever the server says. */
export function CredentialsForm({ mode, onSignedUp }: { mode: "login" | "signup"; onSignedUp: () => void }) {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const [username, setUsername] = useState(lastUsername.load);
  const [password, setPassword] = useState("");
  const [email, setEmail] = useState("");
  const [busy, setBusy] = useState(false);
  const [empty, setEmpty] = useState(false);
  const [refused, setRefused] = useState<Refused | null>(null);
  const language = usePrefs((prefs) => prefs.language);
  const connected = useConnection(({ connection }) => connection.name === "open");
  const now = useNow(refused?.retryAt != null);
  const wait = secondsUntil(refused?.retryAt ?? null, now);
  const id = useId();

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    if (busy) return;
    const incomplete = username.trim() === "" || password === "";
    setEmpty(incomplete);
    setRefused(null);
    if (incomplete) return;
    setBusy(true);
    lastUsername.save(username.trim());
    try {
      if (mode === "login") await client.login(username.trim(), password, language);
      else {
        const params = { username: username.trim(), password, ...(email ? { email } : {}) };
        if (!(await client.signup(params))) onSignedUp();
      }
    } catch (error) {
      const wire = error instanceof RpcError ? error.wire : { code: "CLIENT_ERROR", message: String(error) };
      const retryAfterMs = wire.retry_after_ms;
      setRefused({ error: wire, retryAt: retryAfterMs === undefined ? null : Date.now() + retryAfterMs });
    } finally {
      setBusy(false);
    }
  };

  const errorText = ({ error, retryAt }: Refused): string => {
    const { code, message } = error;
    if (code === ErrorCode.RATE_LIMITED && retryAt !== null) {
      return wait > 0 ? t("login.error.RATE_LIMITED", { seconds: wait }) : t("login.error.rateLimitOver");
    }
    const worded = WORDED.find((known) => known === code);
    return worded ? t(`login.error.${worded}`, { message }) : t("login.error.other", { message, code });
  };
  const problem = empty ? t("login.required") : refused ? errorText(refused) : null;

  return (
    <form className="stack" onSubmit={submit} noValidate>
      {problem && (
        <Alert
          data-testid="login-error"
          data-code={refused?.error.code}
          role="alert"
          type="error"
          showIcon
          title={problem}
        />
      )}
      <div>
        <label className="label" htmlFor={`${id}-username`}>
          {t("login.username")}
        </label>
        <Input
          id={`${id}-username`}
          data-testid="login-username"
          name="username"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          size="large"
          value={username}
          onChange={(event) => setUsername(event.target.value)}
        />
      </div>
      <div>
        <label className="label" htmlFor={`${id}-password`}>
          {t("login.password")}
        </label>
        <Input.Password
          id={`${id}-password`}
          data-testid="login-password"
          name="password"
          autoComplete={mode === "login" ? "current-password" : "new-password"}
          size="large"
          value={password}
          onChange={(event) => setPassword(event.target.value)}
        />
      </div>
      {mode === "signup" && (
        <div>
          <label className="label" htmlFor={`${id}-email`}>
            {t("login.email")}
          </label>
          <Input
            id={`${id}-email`}
            data-testid="signup-email"
            type="email"
            autoComplete="email"
            size="large"
            value={email}
            onChange={(event) => setEmail(event.target.value)}
          />
        </div>
      )}
      <Button
        block
        data-testid="login-submit"
        type="primary"
        size="large"
        htmlType="submit"
        loading={busy}
        disabled={wait > 0}
      >
        {busy && !connected
          ? t("login.waiting")
          : t(mode === "login" ? "login.submit" : "login.signupSubmit")}
      </Button>
    </form>
  );
}
