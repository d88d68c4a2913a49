"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
exports.basePath = basePath;
exports.validateBuildPath = validateBuildPath;
const fs = require("node:fs");
const path = require("node:path");

function basePath() {
  return path.join(process.cwd(), "playwright-report", "data", "videos-store");
}

function validateBuildPath(buildPath, extension) {
  if (!buildPath?.endsWith(extension)) throw new Error(`the build must end with ${extension}`);
  if (!fs.existsSync(buildPath)) throw new Error(`no build at ${buildPath}`);
}
