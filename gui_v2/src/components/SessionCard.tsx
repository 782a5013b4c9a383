import { ReloadOutlined } from "@ant-design/icons";
import { Button, Card } from "antd";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { formatTime } from "../app/format";
import { useSession } from "../stores/session";
import { Sparkline } from "./Sparkline";

function Fact({
  name,
  testId,
  wide,
  children,
}: {
  name: string;
  testId?: string;
  wide?: boolean;
  children: ReactNode;
}) {
  return (
    <div className={wide ? "wide" : ""}>
      <dt>{name}</dt>
      <dd data-testid={testId}>{children}</dd>
    </div>
  );
}

export function SessionCard() {
  const { t, i18n } = useTranslation();
  const { refreshInfo } = useRuntime();
  const { phase, session, info, latencies } = useSession();
  const [loading, setLoading] = useState(false);
  const state = phase.name === "ready" ? (info.state ?? "ready") : phase.name;
  const stateKey = `session.states.${state}`;
  const latest = latencies.at(-1);
  const refresh = async () => {
    setLoading(true);
    await refreshInfo();
    setLoading(false);
  };
  return (
    <Card
      title={t("session.title")}
      extra={
        <Button
          size="small"
          icon={<ReloadOutlined />}
          loading={loading}
          disabled={phase.name !== "ready"}
          data-testid="session-refresh"
          onClick={refresh}
        >
          {t("session.refresh")}
        </Button>
      }
    >
      <dl className="facts">
        <Fact name={t("session.state")}>
          <span data-testid="session-state" data-state={state}>
            {i18n.exists(stateKey) ? t(stateKey as "session.states.active") : state}
          </span>
        </Fact>
        <Fact name={t("session.sid")}>
          <span className="mono" data-testid="session-sid">
            {session?.sid}
          </span>
        </Fact>
        <Fact name={t("session.incarnation")} testId="session-incarnation">
          {info.incarnation ?? "–"}
        </Fact>
        <Fact name={t("session.restarts")} testId="session-restarts">
          {info.restarts ?? "–"}
        </Fact>
        <Fact name={t("session.tabs")} testId="session-tabs">
          {info.tabs ?? "–"}
        </Fact>
        <Fact name={t("session.queue")}>
          {info.queueDepth === null ? "–" : t("session.queueValue", { depth: info.queueDepth })}
        </Fact>
        <Fact name={t("session.latency")} wide>
          <span className="latency">
            <span data-testid="session-latency" data-ms={latest?.toFixed(1)}>
              {latest === undefined ? t("session.noLatency") : `${latest.toFixed(latest < 10 ? 1 : 0)} ms`}
            </span>
            <Sparkline values={latencies} label={t("session.latency")} />
          </span>
        </Fact>
        <Fact name={t("session.created")}>{formatTime(info.createdAt, i18n.language)}</Fact>
        <Fact name={t("session.expires")}>{formatTime(info.expiresAt, i18n.language)}</Fact>
        {info.tabList.length > 1 && (
          <Fact name={t("session.tabList")} wide>
            <ul className="tabs-list">
              {info.tabList.map((tab) => (
                <li key={tab.id}>
                  <span className="mono">{tab.address}</span>{" "}
                  <span className="muted">
                    {shortAgent(tab.userAgent)} {formatTime(tab.connectedAt, i18n.language)}
                  </span>{" "}
                  {tab.current && <strong>({t("session.thisTab")})</strong>}
                </li>
              ))}
            </ul>
          </Fact>
        )}
      </dl>
    </Card>
  );
}

/** The browser's name out of a user agent, good enough to tell one's tabs apart. */
function shortAgent(agent: string): string {
  return /(Edg|OPR|Firefox|Chrome|Safari)\/[\d]+/.exec(agent)?.[0]?.replace("/", " ") ?? agent.slice(0, 24);
}
