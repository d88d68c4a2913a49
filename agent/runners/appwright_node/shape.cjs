// Takes from AppWright what the agent does itself, in each of the shapes that its releases have.
//
// A patch that misses its function would change nothing and say nothing, and a host with several devices would break
// later and elsewhere. So every entry point is looked for, and what is not as it was is an error at once.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const shapes = require("./shapes.json");

const APPIUM = "providers/appium.js";

// AppWright would remove the Appium driver and install the newest one for every session, start an Appium of its own on
// a fixed port, and (from 0.1.45 on) end every process with "appium" in its command line after each test. The agent
// keeps server and driver, pinned, one server a device.
const REPLACEMENTS = {
  installDriver: async () => {},
  startAppiumServer: async () => ({ kill() {} }),
  stopAppiumServer: async () => "",
  isEmulatorInstalled: async () => true,
};

function unknown(version, what) {
  return new Error(`QGJOB_UNKNOWN_APPWRIGHT AppWright ${version} ${what}; install the project's packages with npm ci`);
}

function shapeOf(dist) {
  const { version } = require(path.join(dist, "..", "package.json"));
  const shape = Object.values(shapes).find((one) => one.versions.includes(version));
  if (!shape) throw unknown(version, "is not a release that qgjob knows");
  for (const [file, names] of Object.entries(shape.entry_points)) {
    const found = require(path.join(dist, file));
    const missing = names.find((name) => typeof found[name] !== "function");
    if (missing) throw unknown(version, `has no ${missing} in dist/${file}`);
  }
  return { version, functions: shape.entry_points[APPIUM] };
}

function replacements() {
  const { QGJOB_APP_PACKAGE: app, QGJOB_APP_ACTIVITY: activity, QGJOB_PLATFORM: platform } = process.env;
  // It asks macOS for the bundle id even of an Android app, which has none; the agent has read that of an iOS app.
  const own = { getAppBundleId: async () => (platform === "ios" ? app : "") };
  // It reads the APK through a shell, unquoted; the agent has read it already.
  if (app) own.getApkDetails = async () => ({ packageName: app, launchableActivity: activity });
  return { ...REPLACEMENTS, ...own };
}

function patchAppwright(dist) {
  const { version, functions } = shapeOf(dist);
  const appium = require(path.join(dist, APPIUM));
  for (const [name, replacement] of Object.entries(replacements())) {
    if (!functions.includes(name)) continue;
    appium[name] = replacement;
    if (appium[name] !== replacement) throw unknown(version, `does not let ${name} be replaced`);
  }
  // Where the workers of a persistent device are written down, and not every release makes its parents.
  if (functions.includes("stopAppiumServer")) {
    fs.mkdirSync(path.join(process.cwd(), "playwright-report", "data", "videos-store"), { recursive: true });
  }
}

module.exports = { patchAppwright };
