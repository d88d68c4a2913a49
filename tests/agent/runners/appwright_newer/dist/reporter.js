"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
const fs = require("node:fs");
const { basePath } = require("./utils");

class VideoDownloader {
  waiting = [];

  onBegin() {
    fs.rmSync(basePath(), { recursive: true, force: true });
    console.log("videos-store emptied");
  }

  onTestEnd() {
    this.waiting.push(new Promise((resolve) => setTimeout(resolve, 5_000)));
  }

  async onEnd() {
    await Promise.allSettled(this.waiting);
  }
}
exports.default = VideoDownloader;
