// In place of a WebDriver session: it is asked for where and as the provider's config says, and that is all.
"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.newSession = newSession;

async function newSession({ hostname = "localhost", port, path = "/", capabilities }) {
  const base = `http://${hostname}:${port}${path}`;
  const body = JSON.stringify({ capabilities: { alwaysMatch: capabilities, firstMatch: [{}] } });
  const answer = await fetch(`${base}/session`, { method: "POST", body });
  const { value } = await answer.json();
  return {
    sessionId: value.sessionId,
    close: () => fetch(`${base}/session/${value.sessionId}`, { method: "DELETE" }),
  };
}
