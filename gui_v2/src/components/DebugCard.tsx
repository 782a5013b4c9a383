import { Button, Card } from "antd";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { type FloodReport, flood } from "../app/flood";
import type { Json } from "../protocol/frames";
import { submit } from "../stores/console";

const BUTTONS: ReadonlyArray<{
  id: string;
  text: DebugText;
  method: string;
  params: Json;
  danger?: boolean;
}> = [
  { id: "incr", text: "incr", method: "debug.incr", params: { key: "n" } },
  { id: "crash", text: "crash", method: "debug.crash", params: {}, danger: true },
  {
    id: "incr-crash",
    text: "incrCrash",
    method: "debug.incr_then_crash",
    params: { key: "n" },
    danger: true,
  },
  { id: "block", text: "block", method: "debug.block", params: { seconds: 5 } },
  { id: "spin", text: "spin", method: "debug.spin", params: { seconds: 5 } },
  { id: "sleep", text: "sleep", method: "debug.sleep", params: { seconds: 5 } },
  { id: "stream", text: "stream", method: "debug.stream", params: { n: 10, delay: 0.3 } },
  { id: "push", text: "push", method: "debug.push", params: { method: "demo.note", params: {}, count: 5 } },
];
type DebugText = "incr" | "crash" | "incrCrash" | "block" | "spin" | "sleep" | "stream" | "push";

/** Ways to hurt one's own session, and see that it survives. */
export function DebugCard() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const [flooding, setFlooding] = useState(false);
  const [report, setReport] = useState<FloodReport | null>(null);
  const startFlood = async () => {
    setFlooding(true);
    setReport(await flood(client));
    setFlooding(false);
  };
  return (
    <Card title={t("debug.title")}>
      <div className="stack">
        <div className="muted">{t("debug.hint")}</div>
        <div className="buttons">
          {BUTTONS.map(({ id, text, method, params, danger = false }) => (
            <Button
              key={id}
              danger={danger}
              data-testid={`debug-${id}`}
              onClick={() => submit(client, { method, params: JSON.stringify(params), deadline: "" }, params)}
            >
              {t(`debug.${text}`)}
            </Button>
          ))}
          <Button data-testid="debug-flood" loading={flooding} onClick={startFlood}>
            {t(flooding ? "debug.flooding" : "debug.flood")}
          </Button>
        </div>
        {report && (
          <output
            className="actions"
            data-testid="debug-flood-report"
            data-counts={JSON.stringify(report.counts)}
          >
            {t("debug.floodResult", { total: report.total, ms: Math.round(report.ms) })}{" "}
            {Object.entries(report.counts).map(([code, count]) => (
              <span key={code} className={`chip tone-${code === "ok" ? "ok" : "warn"}`}>
                {code}: {count}
              </span>
            ))}
          </output>
        )}
      </div>
    </Card>
  );
}
