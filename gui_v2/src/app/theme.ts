/** The look: antd's algorithms with a few tokens of our own. */
import { type ThemeConfig, theme } from "antd";
import type { Theme } from "../stores/prefs";

export function antdTheme(name: Theme): ThemeConfig {
  const dark = name === "dark";
  return {
    algorithm: dark ? theme.darkAlgorithm : theme.defaultAlgorithm,
    token: {
      colorPrimary: dark ? "#7fabff" : "#2f6fed",
      colorInfo: dark ? "#7fabff" : "#2f6fed",
      colorError: dark ? "#ff8a8a" : "#c62f2f",
      borderRadius: 8,
      fontFamily:
        'Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif',
      ...(dark
        ? { colorBgLayout: "#0f141b", colorBgContainer: "#171d26", colorBgElevated: "#1d2531" }
        : { colorBgLayout: "#f4f6fa" }),
    },
    components: {
      Button: dark ? { primaryColor: "#0b1220" } : {},
      Card: { headerFontSize: 15 },
      Layout: { headerBg: dark ? "#171d26" : "#ffffff", headerHeight: 60, headerPadding: "0 24px" },
    },
  };
}
