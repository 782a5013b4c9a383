import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app/App";
import { createRuntime } from "./app/runtime";
import { webSocketUrl } from "./app/url";
import "./app/app.css";

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");

// Made once, outside React: StrictMode mounts effects twice, a connection must not.
const runtime = createRuntime(webSocketUrl());
createRoot(root).render(
  <StrictMode>
    <App runtime={runtime} />
  </StrictMode>,
);
