// Plays Appium as far as it is needed where no Mac is: its drivers are installed at once, and a session does nothing.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const words = process.argv.slice(2);
const after = (word) => words[words.indexOf(word) + 1];

if (words[0] === "driver") {
  const [name, version] = words.at(-1).split("@");
  const folder = path.join(process.env.APPIUM_HOME, "node_modules", name);
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ version }));
} else {
  const base = after("--base-path");
  let sessions = 0;
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      let value = null;
      if (request.url === `${base}/status`) value = { ready: true };
      if (request.url === `${base}/session` && request.method === "POST") {
        value = { sessionId: `session-${++sessions}`, capabilities: {} };
        fs.appendFileSync(path.join(process.env.APPIUM_HOME, "asked"), body + "\n");
      }
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ value }));
    });
  });
  server.listen(Number(after("--port")), "127.0.0.1");
}
