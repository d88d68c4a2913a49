// Writes down what happens in a run, as Playwright's own blob reporter would, but while it happens.
//
// Playwright's reporter writes its archive when the run has ended, and a run that is ended from outside leaves none. The
// agent packs the archive from what is here, and `playwright merge-reports` makes reports of it.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const KNOWN_VERSION = 2;
const MAX_BYTES = 64 * 1024 * 1024;
const folder = path.join(process.env.QGJOB_OUT, "blob");

function loadBlob() {
  const fromProject = createRequire(process.env.QGJOB_USER_CONFIG);
  const fromTest = createRequire(fromProject.resolve("@playwright/test/package.json"));
  const playwright = path.dirname(fromTest.resolve("playwright/package.json"));
  return require(path.join(playwright, "lib", "reporters", "blob.js"));
}

class Lines {
  #file;
  #size = 0;

  constructor(name) {
    this.#file = fs.openSync(path.join(folder, name), "w");
  }

  push(value) {
    const line = JSON.stringify(value) + "\n";
    this.#size += line.length;
    // Without its end it is recognised as incomplete, and no report is made of it.
    if (this.#size < MAX_BYTES) fs.writeSync(this.#file, line);
  }
}

function makeReporter() {
  const { BlobReporter, currentBlobReportVersion } = loadBlob();
  if (currentBlobReportVersion !== KNOWN_VERSION) throw new Error(`blob reports of version ${currentBlobReportVersion}`);
  fs.mkdirSync(folder, { recursive: true });

  return class QgjobBlob extends BlobReporter {
    constructor() {
      super({});
      this._messages = new Lines("report.jsonl");
      this._attachments = new Lines("attachments.jsonl");
    }

    // What the reporter does at the end beside packing.
    async onEnd(result) {
      await Object.getPrototypeOf(BlobReporter.prototype).onEnd.call(this, result);
    }
  };
}

// Of a Playwright that is built otherwise there are no merged reports, and the run is what it would have been.
try {
  module.exports = makeReporter();
} catch (error) {
  console.log(`qgjob: reports of several attempts will not be merged: ${error.message}`);
  module.exports = class {
    printsToStdio() {
      return false;
    }
  };
}
