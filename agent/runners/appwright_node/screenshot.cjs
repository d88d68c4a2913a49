// Takes a picture of the screen when a test has failed, before its session is closed.
//
// AppWright's own tests have no page that Playwright could photograph. Whatever goes wrong here costs the picture and
// nothing else: a test is never judged by it.
"use strict";

const path = require("node:path");
const fs = require("node:fs/promises");
const { createRequire } = require("node:module");

const PATIENCE_MS = 10_000;
const PROVIDERS = [["local", "LocalDeviceProvider"], ["emulator", "EmulatorProvider"]];

function hasFailed(info) {
  return info.status !== info.expectedStatus || info.errors.length > 0;
}

async function inTime(promise) {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error("it takes too long")), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function photograph(device, test) {
  let info;
  try {
    info = test.info();
  } catch {
    return; // a device that outlives its tests is closed outside of them
  }
  const client = device.webdriverClient ?? device.webDriverClient;
  if (!hasFailed(info) || typeof client?.takeScreenshot !== "function") return;
  try {
    const data = await inTime(client.takeScreenshot());
    const file = info.outputPath("screenshot.png");
    await fs.writeFile(file, Buffer.from(data, "base64"));
    await info.attach("screenshot", { path: file, contentType: "image/png" });
  } catch (error) {
    console.log(`qgjob: no picture of the screen: ${String(error?.message ?? error).split("\n")[0]}`);
  }
}

// Devices of these providers take a picture when they are closed after a test that failed.
function patchScreenshots(dist, userConfigPath) {
  const { test } = createRequire(userConfigPath)("@playwright/test");
  for (const [folder, name] of PROVIDERS) {
    const provider = require(path.join(dist, "providers", folder, "index.js"))[name].prototype;
    if (provider.qgjobGetDevice) continue;
    provider.qgjobGetDevice = provider.getDevice;
    provider.getDevice = async function getDevice() {
      const device = await this.qgjobGetDevice();
      const close = device.close.bind(device);
      device.close = async () => {
        await photograph(device, test);
        await close();
      };
      return device;
    };
  }
}

module.exports = { patchScreenshots };
