// Writes down which tests a spec holds, each with its line for --test-list, or none if they must run together.
"use strict";

const fs = require("node:fs");
const { isDivisible, lineOf } = require("./division.cjs");

class QgjobLister {
  onBegin(config, suite) {
    const tests = isDivisible(config, suite) ? suite.allTests() : [];
    const lines = tests.map((test) => [test.id, lineOf(config, test)]);
    fs.writeFileSync(process.env.QGJOB_LISTING, JSON.stringify(Object.fromEntries(lines)));
  }

  // Else Playwright adds a reporter of its own, and the list would stand in the attempt's log.
  printsToStdio() {
    return true;
  }
}

module.exports = QgjobLister;
