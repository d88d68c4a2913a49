// What `playwright merge-reports` makes of the attempts of a job.
"use strict";

const path = require("node:path");

const out = process.env.QGJOB_MERGED;

module.exports = {
  testDir: process.env.QGJOB_TEST_DIR,
  reporter: [
    ["json", { outputFile: path.join(out, "report.json") }],
    // Each failure is told, as Maven Surefire tells those of tests that run again.
    ["junit", { outputFile: path.join(out, "junit.xml"), includeRetries: true }],
    ["html", { outputFolder: path.join(out, "html-report"), open: "never" }],
  ],
};
