"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
const { createDeviceProvider } = require("./providers");

exports.default = async function globalSetup(config) {
  const names = process.argv.flatMap((word, index, words) => (word === "--project" ? [words[index + 1]] : []));
  if (!names.length) throw new Error("all projects at once are not supported; name one with --project");
  for (const project of config.projects.filter((one) => names.includes(one.name))) {
    await createDeviceProvider(project).globalSetup?.();
  }
};
