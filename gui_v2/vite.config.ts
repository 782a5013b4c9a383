import react from "@vitejs/plugin-react";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

export default defineConfig(({ mode }) => {
  const env = loadEnv(mode, import.meta.dirname, ["VITE_", "ECAN_WS_PORT"]);
  const target = `http://127.0.0.1:${env["ECAN_WS_PORT"] || 8765}`;
  // With an address of its own the app talks past the dev server, so nothing is proxied.
  const proxy = env["VITE_WS_URL"]
    ? {}
    : {
        "/ws": { target, ws: true },
        "/openrpc.json": { target },
        "/health": { target },
      };
  return {
    plugins: [react()],
    server: { proxy },
    preview: { proxy },
    build: {
      target: "es2022",
      outDir: "dist",
      license: { fileName: "licences.md" }, // of what is bundled: they go where it goes
      assetsDir: "assets",
      assetsInlineLimit: 0, // a strict CSP allows no data: scripts, and hashed files cache better
      modulePreload: { polyfill: false }, // the polyfill would be an inline script
      chunkSizeWarningLimit: 900,
      rolldownOptions: {
        output: {
          codeSplitting: {
            groups: [
              { name: "react", test: /node_modules[\\/](react|react-dom|scheduler)[\\/]/, priority: 2 },
              { name: "antd", test: /node_modules[\\/](antd|@ant-design|@rc-component|rc-)/, priority: 1 },
            ],
          },
        },
      },
    },
    test: {
      environment: "happy-dom",
      setupFiles: ["src/test/setup.ts"],
      include: ["src/**/*.test.{ts,tsx}"],
      restoreMocks: true,
      testTimeout: 15_000,
      coverage: { include: ["src/**"], exclude: ["src/test/**", "src/main.tsx", "src/**/*.test.*"] },
    },
  };
});
