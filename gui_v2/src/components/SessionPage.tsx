import { Layout } from "antd";
import { useMethods } from "../stores/methods";
import { AppHeader } from "./AppHeader";
import { Banners } from "./Banners";
import { ConsoleCard } from "./ConsoleCard";
import { DebugCard } from "./DebugCard";
import { HistoryCard } from "./HistoryCard";
import { PrefsCard } from "./PrefsCard";
import { PushesCard } from "./PushesCard";
import { SessionCard } from "./SessionCard";

export function SessionPage() {
  const debug = useMethods(({ document }) => document.methods.some(({ name }) => name.startsWith("debug.")));
  return (
    <Layout>
      <AppHeader />
      <main className="content">
        <Banners />
        <div className="grid">
          <div className="column">
            <ConsoleCard />
            <HistoryCard />
          </div>
          <div className="column">
            <SessionCard />
            {debug && <DebugCard />}
            <PushesCard />
            <PrefsCard />
          </div>
        </div>
      </main>
    </Layout>
  );
}
