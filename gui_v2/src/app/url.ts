/** Where the server's WebSocket is: `VITE_WS_URL` if it was set at build, else derived from the page's address. */
export function webSocketUrl(
  configured: string | undefined = import.meta.env["VITE_WS_URL"] as string | undefined,
  page: { protocol: string; host: string } = window.location,
): string {
  if (configured) return configured;
  return `${page.protocol === "https:" ? "wss" : "ws"}://${page.host}/ws`;
}
