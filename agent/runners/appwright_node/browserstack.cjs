// Points AppWright at the agent's gateway to BrowserStack, which holds the credentials and keeps the account's rules.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const API = "https://api-cloud.browserstack.com/";
const PROJECT = "qgjob";
const ENTRY_POINTS = ["globalSetup", "createConfig", "syncTestDetails", "downloadVideo"];

function gatewayUrl(rest) {
  return `${process.env.QGJOB_GATEWAY}/${rest}`;
}

// AppWright names BrowserStack's API as a constant, and asks it with the fetch of Node.
function redirectFetch() {
  const original = globalThis.fetch;
  if (original.qgjob) return;
  globalThis.fetch = (resource, options) => {
    const url = typeof resource === "string" || resource instanceof URL ? String(resource) : undefined;
    return original(url?.startsWith(API) ? gatewayUrl(url.slice(API.length)) : resource, options);
  };
  globalThis.fetch.qgjob = true;
}

// It uploads pictures for the camera with a fetch of its own, and another constant.
async function uploadImage(imagePath) {
  const form = new FormData();
  form.append("file", new Blob([await fs.promises.readFile(imagePath)]), path.basename(imagePath));
  form.append("custom_id", "SampleMedia");
  const whole = new Response(form);
  const headers = { "Content-Type": whole.headers.get("Content-Type") };
  // In one piece: the gateway takes no body whose length it is not told.
  const body = Buffer.from(await whole.arrayBuffer());
  const response = await fetch(gatewayUrl("app-automate/upload-media"), { method: "POST", headers, body });
  return (await response.json()).media_url.trim();
}

// A patch that misses its function would let AppWright ask BrowserStack itself, without the key and without the rules.
function entryPoints(dist) {
  const folder = path.join(dist, "providers", "browserstack");
  const provider = require(path.join(folder, "index.js")).BrowserStackDeviceProvider.prototype;
  const utils = require(path.join(folder, "utils.js"));
  const missing = ENTRY_POINTS.find((name) => typeof provider[name] !== "function");
  if (missing || typeof utils.uploadImageToBS !== "function") {
    const what = missing ?? "uploadImageToBS";
    throw new Error(`QGJOB_UNKNOWN_APPWRIGHT this AppWright has no ${what} for BrowserStack; run its project on devices`);
  }
  return { provider, utils };
}

function patchBrowserStack(dist) {
  const { provider, utils } = entryPoints(dist);
  if (provider.qgjobCreateConfig) return;
  redirectFetch();
  utils.uploadImageToBS = uploadImage;
  // AppWright refuses to begin without credentials. The real ones are the agent's.
  process.env.BROWSERSTACK_USERNAME = process.env.BROWSERSTACK_ACCESS_KEY = PROJECT;
  process.env[`BROWSERSTACK_APP_URL_${PROJECT.toUpperCase()}`] = process.env.QGJOB_BUILD_PATH;
  // The build is there already; AppWright would upload it for every run.
  provider.globalSetup = async () => {};
  // It waits ten seconds for every video, and then some. Where the videos are is kept by the agent.
  provider.downloadVideo = async () => null;
  provider.qgjobSyncTestDetails = provider.syncTestDetails;
  provider.syncTestDetails = async function syncTestDetails(details) {
    // Of a test that never had a device there is nothing to mark.
    return this.sessionId ? this.qgjobSyncTestDetails(details) : undefined;
  };
  provider.qgjobCreateConfig = provider.createConfig;
  provider.createConfig = function createConfig() {
    const config = this.qgjobCreateConfig();
    const gateway = new URL(gatewayUrl("wd/hub"));
    Object.assign(config, {
      protocol: "http",
      hostname: gateway.hostname,
      port: Number(gateway.port),
      path: gateway.pathname,
      logLevel: "warn",
      // The gateway waits for room and tries again itself; a second request beside the first would ask for two.
      connectionRetryCount: 0,
      connectionRetryTimeout: Number(process.env.QGJOB_TEST_TIMEOUT_MS),
    });
    const options = config.capabilities["bstack:options"];
    Object.assign(options, JSON.parse(process.env.QGJOB_CAPABILITIES));
    delete options.buildIdentifier;
    return config;
  };
}

// Returns the device of a run: the one that the job asks for; else the project's own; else the one that the agent chose.
function cloudDevice(own) {
  const { isChosen, ...offered } = JSON.parse(process.env.QGJOB_DEVICE);
  const isOwn = !isChosen && own?.provider === "browserstack" && own.name && own.osVersion;
  return { provider: "browserstack", ...(isOwn ? own : offered) };
}

module.exports = { patchBrowserStack, cloudDevice };
