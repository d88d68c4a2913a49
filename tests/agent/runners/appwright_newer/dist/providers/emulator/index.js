"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.EmulatorProvider = void 0;
const appium = require("../appium");
const { validateBuildPath } = require("../../utils");
const { newSession } = require("../../session");

class EmulatorProvider {
  sessionId;

  constructor(project) {
    this.project = project;
  }

  async globalSetup() {
    validateBuildPath(this.project.use.buildPath, ".apk");
    await (0, appium.isEmulatorInstalled)(this.project.use.platform);
  }

  async getDevice() {
    await (0, appium.installDriver)("uiautomator2");
    await (0, appium.startAppiumServer)(this.project.use.device?.provider);
    const device = await newSession(await this.createConfig());
    this.sessionId = device.sessionId;
    return device;
  }

  async createConfig() {
    const { packageName, launchableActivity } = await (0, appium.getApkDetails)(this.project.use.buildPath);
    return {
      port: 4723,
      capabilities: {
        platformName: this.project.use.platform,
        "appium:udid": this.project.use.device?.udid,
        "appium:automationName": "uiautomator2",
        "appium:app": this.project.use.buildPath,
        "appium:appActivity": launchableActivity,
        "appium:appPackage": packageName,
        "appium:fullReset": true,
        "appium:deviceOrientation": this.project.use.device?.orientation,
        "appium:settings[snapshotMaxDepth]": 62,
      },
    };
  }
}
exports.EmulatorProvider = EmulatorProvider;
