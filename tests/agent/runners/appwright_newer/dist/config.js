"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.defineConfig = defineConfig;
const path = require("node:path");
const playwright = require("@playwright/test");

// Two workers, no timeout, retries in CI, an HTML report that opens itself, and the reporter for videos before all others.
function defineConfig(config) {
  delete config.globalSetup;
  return playwright.defineConfig({
    globalSetup: path.join(__dirname, "global-setup.js"),
    testDir: "./tests",
    fullyParallel: false,
    retries: process.env.CI ? 2 : 0,
    workers: 2,
    timeout: 0,
    ...config,
    reporter: [[path.join(__dirname, "reporter.js")], ...(config.reporter ?? [["list"], ["html", { open: "always" }]])],
    use: { actionTimeout: 20_000, expectTimeout: config.use?.expectTimeout ?? 20_000 },
  });
}
