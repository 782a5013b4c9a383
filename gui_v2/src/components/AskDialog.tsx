import { Button, Input, Modal } from "antd";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { useRuntime } from "../app/context";
import type { Json } from "../protocol/frames";
import { askAnswered, usePushes } from "../stores/pushes";

/** The question of a handler (`ui.ask`), one at a time, oldest first. */
export function AskDialog() {
  const { t } = useTranslation();
  const { client } = useRuntime();
  const ask = usePushes((view) => view.asks[0]);
  const [text, setText] = useState("");
  useEffect(() => setText(""), [ask]);
  if (!ask) return null;

  const answer = (value: Json) => {
    client.answer(ask.push, { answer: value });
    askAnswered();
  };
  const footer =
    ask.kind === "confirm" ? (
      <>
        <Button data-testid="ask-no" onClick={() => answer(false)}>
          {t("pushes.no")}
        </Button>
        <Button data-testid="ask-yes" type="primary" onClick={() => answer(true)}>
          {t("pushes.yes")}
        </Button>
      </>
    ) : (
      <>
        <Button data-testid="ask-skip" onClick={() => answer(null)}>
          {t("pushes.skip")}
        </Button>
        <Button data-testid="ask-answer" type="primary" onClick={() => answer(text)}>
          {t("pushes.answer")}
        </Button>
      </>
    );
  return (
    <Modal
      open
      title={t("pushes.askTitle")}
      footer={footer}
      onCancel={() => answer(ask.kind === "confirm" ? false : null)}
      mask={{ closable: false }}
      data-testid="ask-dialog"
    >
      <p>{ask.question}</p>
      {ask.kind === "text" && (
        <Input
          autoFocus
          data-testid="ask-text"
          aria-label={t("pushes.yourAnswer")}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onPressEnter={() => answer(text)}
        />
      )}
    </Modal>
  );
}
