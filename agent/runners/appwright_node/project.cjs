// Loads a project's own config and chooses what of it a device of this host, or of a cloud, can run.
"use strict";

const path = require("node:path");

const LOCAL = ["emulator", "local-device"];
const platform = process.env.QGJOB_PLATFORM || "android";
const PLATFORM_NAMES = { android: "Android", ios: "iOS" };

// A test knows nothing of where it runs: on a cloud the project of a local device will do, but not the reverse.
function isUsable(project, providers) {
  return project.use?.platform === platform && providers.includes(project.use.device?.provider);
}

// Returns the user's config, the folder that its paths are relative to, and the Playwright project for a provider.
function chooseProject(configPath, provider) {
  const loaded = require(configPath);
  const user = loaded.default?.default ?? loaded.default ?? loaded;
  const providers = provider === "browserstack" ? ["browserstack", ...LOCAL] : LOCAL;
  const usable = (user.projects ?? []).filter((project) => isUsable(project, providers));
  const chosen = usable.find((project) => project.use.device.provider === provider) ?? usable[0];
  if (!chosen) {
    const wanted = providers.join(" or ");
    throw new Error(`QGJOB_NO_PROJECT the config has no ${PLATFORM_NAMES[platform]} project with provider ${wanted}`);
  }
  return { user, root: path.dirname(configPath), chosen };
}

// Returns where a build lies: a path on this host, relative to a config, or a URL such as bs://... as it stands.
function locate(build, root) {
  return !build || /^[a-z][a-z0-9+.-]+:\/\//i.test(build) ? build : path.resolve(root, build);
}

module.exports = { chooseProject, locate };
