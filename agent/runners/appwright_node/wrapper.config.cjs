// Wraps a project's own AppWright config, which stays as it is and knows nothing of qgjob.
//
// Playwright loads the config in its main process and in every worker, so what is patched here holds in both. Each
// patch answers something that AppWright does for a single developer with a single phone, and that would break a host
// with several.
"use strict";

const path = require("node:path");
const { createRequire } = require("node:module");
const { chooseProject, locate } = require("./project.cjs");
const { patchScreenshots } = require("./screenshot.cjs");
const { patchAppwright } = require("./shape.cjs");
const { patchBrowserStack, cloudDevice } = require("./browserstack.cjs");

const userConfigPath = process.env.QGJOB_USER_CONFIG;
const out = process.env.QGJOB_OUT;
const udid = process.env.QGJOB_UDID;
const isCloud = process.env.QGJOB_PROVIDER === "browserstack";
const port = Number(process.env.QGJOB_APPIUM_PORT);
const capabilities = JSON.parse(process.env.QGJOB_CAPABILITIES);

const fromProject = createRequire(userConfigPath);
const dist = path.dirname(fromProject.resolve("appwright"));
patchAppwright(dist);
if (isCloud) patchBrowserStack(dist);
patchScreenshots(dist, userConfigPath);

for (const [folder, name] of [["local", "LocalDeviceProvider"], ["emulator", "EmulatorProvider"]]) {
  const provider = require(path.join(dist, "providers", folder, "index.js"))[name].prototype;
  if (provider.qgjobCreateConfig) continue;
  provider.qgjobCreateConfig = provider.createConfig;
  provider.createConfig = async function createConfig() {
    const config = await this.qgjobCreateConfig();
    Object.assign(config, { hostname: "127.0.0.1", port, path: process.env.QGJOB_APPIUM_PATH, logLevel: "warn" });
    // webdriver repeats what was answered with an error, and so does the library below it: a count of 3 means 16 times,
    // also of a tap that was done and answered too late. Appium looks for a phone that is gone for 20 s each time.
    config.connectionRetryCount = 0;
    Object.assign(config.capabilities, capabilities, { "appium:udid": udid });
    for (const [key, value] of Object.entries(config.capabilities)) {
      if (value === null || value === undefined) delete config.capabilities[key];
    }
    return config;
  };
}

const { user, root, chosen } = chooseProject(userConfigPath, process.env.QGJOB_PROVIDER);

chosen.name = "qgjob";
// What a project says of itself beats the settings of the whole config below.
for (const setting of ["retries", "workers", "fullyParallel"]) delete chosen[setting];
// A test without a limit of its own has that of its job, and not none.
if (!(chosen.timeout > 0)) delete chosen.timeout;
chosen.testDir = path.resolve(root, chosen.testDir ?? user.testDir ?? "./tests");
chosen.outputDir = path.join(out, "test-results");
const device = isCloud ? cloudDevice(chosen.use.device) : { ...chosen.use.device, udid };
chosen.use = { ...chosen.use, device };
chosen.use.buildPath = locate(process.env.QGJOB_BUILD_PATH || chosen.use.buildPath, root);

module.exports = {
  ...user,
  projects: [chosen],
  testDir: chosen.testDir,
  outputDir: chosen.outputDir,
  // One device, one test at a time; the coordinator decides about retries, the agent about the time limit.
  workers: 1,
  fullyParallel: false,
  retries: 0,
  // A missing snapshot fails its test; it is not written into the project.
  updateSnapshots: "none",
  timeout: user.timeout > 0 ? user.timeout : Number(process.env.QGJOB_TEST_TIMEOUT_MS),
  // AppWright's own reporter for videos is left out: it empties a folder of the working directory at the start and
  // waits at the end, for videos that no local device makes.
  reporter: [
    [path.join(__dirname, "reporter.cjs")],
    [path.join(__dirname, "blob.cjs")],
    ["list"],
    ["json", { outputFile: path.join(out, "report.json") }],
    ["junit", { outputFile: path.join(out, "junit.xml") }],
    ["html", { outputFolder: path.join(out, "html-report"), open: "never" }],
  ],
};
