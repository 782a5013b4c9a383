import { SendOutlined } from "@ant-design/icons";
import { Button, Card, Input } from "antd";
import { type KeyboardEvent, useId, useMemo } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import { parseJsonText } from "../protocol/jsontext";
import { paramLabel, paramsTemplate } from "../protocol/openrpc";
import { setDraft, submit, useConsole } from "../stores/console";
import { findMethod, useMethods } from "../stores/methods";
import { MethodField } from "./MethodField";

export function ConsoleCard() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const draft = useConsole((view) => view.draft);
  const { document, loaded } = useMethods();
  const parsed = useMemo(() => parseJsonText(draft.params), [draft.params]);
  const id = useId();
  const name = draft.method.trim();
  const method = findMethod(document, name);
  const deadlineOk = draft.deadline === "" || /^[1-9]\d*$/.test(draft.deadline);
  const sendable = name !== "" && parsed.ok && deadlineOk;

  const choose = (chosen: string) => {
    const before = findMethod(document, name);
    const untouched =
      ["", "{}"].includes(draft.params.trim()) ||
      (before !== undefined && draft.params === paramsTemplate(before, document));
    const found = findMethod(document, chosen);
    // What a person wrote is not replaced by a template; "Insert template" is there for that.
    setDraft({ method: chosen, ...(found && untouched ? { params: paramsTemplate(found, document) } : {}) });
  };
  const send = () => {
    if (sendable) submit(client, draft, parsed.value);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      send();
    }
  };

  return (
    <Card title={t("console.title")}>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: Ctrl+Enter from any field inside */}
      <div className="form-grid" onKeyDown={onKeyDown}>
        <div className="form-row">
          <div>
            <label className="label" htmlFor={`${id}-method`}>
              {t("console.method")}
            </label>
            <MethodField id={`${id}-method`} value={draft.method} onChange={choose} />
          </div>
          <div>
            <label className="label" htmlFor={`${id}-deadline`}>
              {t("console.deadline")}
            </label>
            <Input
              id={`${id}-deadline`}
              data-testid="console-deadline"
              inputMode="numeric"
              placeholder={t("console.optional")}
              status={deadlineOk ? "" : "error"}
              value={draft.deadline}
              onChange={(event) => setDraft({ deadline: event.target.value.trim() })}
            />
          </div>
        </div>
        {method ? (
          <div data-testid="console-summary">
            {method.summary ?? method.description}{" "}
            <span className="mono muted">
              ({method.params?.map(paramLabel).join(", ") || t("console.noParams")})
            </span>
          </div>
        ) : (
          loaded && name !== "" && <div className="tone-warn">{t("console.unknownMethod")}</div>
        )}
        <div>
          <div className="label-row">
            <label className="label" htmlFor={`${id}-params`}>
              {t("console.params")}
            </label>
            <Button
              size="small"
              type="link"
              disabled={!method}
              data-testid="console-template"
              onClick={() => method && setDraft({ params: paramsTemplate(method, document) })}
            >
              {t("console.template")}
            </Button>
          </div>
          <Input.TextArea
            id={`${id}-params`}
            data-testid="console-params"
            className="mono"
            autoSize={{ minRows: 4, maxRows: 18 }}
            spellCheck={false}
            status={parsed.ok ? "" : "error"}
            aria-invalid={!parsed.ok}
            aria-describedby={`${id}-json`}
            value={draft.params}
            onChange={(event) => setDraft({ params: event.target.value })}
          />
          <div
            id={`${id}-json`}
            data-testid="console-json"
            data-valid={parsed.ok}
            className={`json-state ${parsed.ok ? "muted" : "tone-bad"}`}
          >
            {parsed.ok ? t("console.valid") : t("console.invalid", { ...parsed })}
          </div>
        </div>
        <div className="actions">
          <Button
            type="primary"
            icon={<SendOutlined />}
            disabled={!sendable}
            data-testid="console-send"
            onClick={send}
          >
            {t("console.send")}
          </Button>
          <span className="muted">{t("console.sendHint")}</span>
        </div>
      </div>
    </Card>
  );
}
