"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.createDeviceProvider = createDeviceProvider;
const { LocalDeviceProvider } = require("./local");
const { EmulatorProvider } = require("./emulator");

function createDeviceProvider(project) {
  const Provider = { emulator: EmulatorProvider, "local-device": LocalDeviceProvider }[project.use.device?.provider];
  if (!Provider) throw new Error(`unknown provider ${project.use.device?.provider}`);
  return new Provider(project, project.use.appBundleId);
}
