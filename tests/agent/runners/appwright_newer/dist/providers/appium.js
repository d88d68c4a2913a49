"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.installDriver = installDriver;
exports.startAppiumServer = startAppiumServer;
exports.stopAppiumServer = stopAppiumServer;
exports.isEmulatorInstalled = isEmulatorInstalled;
exports.getAppBundleId = getAppBundleId;
exports.getApkDetails = getApkDetails;
exports.getActiveAndroidDevices = getActiveAndroidDevices;
const { execFileSync } = require("node:child_process");

async function installDriver(name) {
  for (const verb of ["uninstall", "install"]) execFileSync("npx", ["appium", "driver", verb, name]);
}

async function startAppiumServer() {
  execFileSync("npx", ["appium"]);
  return { kill() {} };
}

async function stopAppiumServer() {
  return execFileSync("pkill", ["-f", "appium"]).toString();
}

async function isEmulatorInstalled() {
  execFileSync("emulator", ["-list-avds"]);
  return true;
}

async function getAppBundleId(path) {
  return execFileSync("osascript", ["-e", `id of app "${path}"`]).toString().trim();
}

async function getApkDetails(path) {
  execFileSync("aapt", ["dump", "badging", path]);
  return { packageName: "of.aapt", launchableActivity: ".OfAapt" };
}

async function getActiveAndroidDevices() {
  return execFileSync("adb", ["devices"]).toString().split("\tdevice").length - 1;
}
