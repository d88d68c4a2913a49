// Tells the agent how each test stands while the run goes on: one JSON object a line, into a pipe.
//
// A run that is ended from outside leaves no report behind, so results must leave as they happen.
"use strict";

const fs = require("node:fs");
const { isDivisible } = require("./division.cjs");

const MAX_ERROR = 16 * 1024;
const pipe = fs.openSync(process.env.QGJOB_EVENTS, "a");

function tell(event) {
  fs.writeSync(pipe, JSON.stringify(event) + "\n");
}

// eslint-disable-next-line no-control-regex
const plain = (text) => String(text ?? "").replace(/\u001b\[[0-9;]*[A-Za-z]/g, "").slice(0, MAX_ERROR);

// The root suite, the project and the file say nothing about the test.
const title = (test) => test.titlePath().slice(3).join(" > ");

class QgjobReporter {
  onBegin(config, suite) {
    tell({ event: "begin", tests: suite.allTests().length, divisible: isDivisible(config, suite) });
  }

  onTestBegin(test) {
    tell({ event: "test_begin", id: test.id, title: title(test) });
  }

  onTestEnd(test, result) {
    tell({
      event: "test_end",
      id: test.id,
      title: title(test),
      status: result.status,
      expected: test.expectedStatus,
      duration_ms: result.duration,
      error: plain(result.errors.map((error) => error.message ?? error.value).join("\n")),
    });
  }

  onError(error) {
    tell({ event: "error", message: plain(error.message ?? error.value) });
  }

  onEnd(result) {
    tell({ event: "end", status: result.status });
  }

  printsToStdio() {
    return false;
  }
}

module.exports = QgjobReporter;
