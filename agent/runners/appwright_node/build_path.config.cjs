// Writes down where a project's own config says that its app lies, and offers Playwright no test to run.
"use strict";

const fs = require("node:fs");
const { chooseProject, locate } = require("./project.cjs");

const { user, root, chosen } = chooseProject(process.env.QGJOB_USER_CONFIG, process.env.QGJOB_PROVIDER);
const buildPath = locate(chosen.use.buildPath ?? user.use?.buildPath, root);
fs.writeFileSync(process.env.QGJOB_OUT, JSON.stringify(buildPath ?? null));

module.exports = { testDir: __dirname, testMatch: "no-test-at-all", reporter: "line" };
