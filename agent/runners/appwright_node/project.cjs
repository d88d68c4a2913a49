// Loads a project's own config and chooses what of it a device of this host can run.
"use strict";

const path = require("node:path");

function isUsable(project) {
  const provider = project.use?.device?.provider;
  return project.use?.platform === "android" && (provider === "local-device" || provider === "emulator");
}

// Returns the user's config, the folder that its paths are relative to, and the Playwright project for a provider.
function chooseProject(configPath, provider) {
  const loaded = require(configPath);
  const user = loaded.default?.default ?? loaded.default ?? loaded;
  const usable = (user.projects ?? []).filter(isUsable);
  const chosen = usable.find((project) => project.use.device.provider === provider) ?? usable[0];
  if (!chosen) {
    throw new Error("QGJOB_NO_PROJECT the config has no Android project with provider emulator or local-device");
  }
  return { user, root: path.dirname(configPath), chosen };
}

// Returns where a build lies: a path on this host, relative to a config, or a URL such as bs://... as it stands.
function locate(build, root) {
  return !build || /^[a-z][a-z0-9+.-]+:\/\//i.test(build) ? build : path.resolve(root, build);
}

module.exports = { chooseProject, locate };
