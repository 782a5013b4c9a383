import { App as AntdApp, ConfigProvider } from "antd";
import enUS from "antd/locale/en_US";
import zhCN from "antd/locale/zh_CN";
import "../i18n";
import { AskDialog } from "../components/AskDialog";
import { LoginPage } from "../components/LoginPage";
import { Notices } from "../components/Notices";
import { SessionPage } from "../components/SessionPage";
import { usePrefs } from "../stores/prefs";
import { useSession } from "../stores/session";
import { RuntimeContext } from "./context";
import type { Runtime } from "./runtime";
import { antdTheme } from "./theme";

export function App({ runtime }: { runtime: Runtime }) {
  const { language, theme } = usePrefs();
  const loggedIn = useSession(({ phase }) => phase.name !== "anonymous");
  return (
    <ConfigProvider
      locale={language === "zh" ? zhCN : enUS}
      theme={antdTheme(theme)}
      button={{ autoInsertSpace: false }}
    >
      <AntdApp className="app">
        <RuntimeContext.Provider value={runtime}>
          {loggedIn ? <SessionPage /> : <LoginPage />}
          <Notices />
          <AskDialog />
        </RuntimeContext.Provider>
      </AntdApp>
    </ConfigProvider>
  );
}
