// Says whether some tests of a spec may run without the others, and how Playwright's --test-list names each of them.
//
// In doubt they may not: the whole spec runs again then, which costs time and nothing else.
"use strict";

const path = require("node:path");

// What stands around all tests of a suite, or makes one go on where another has ended, must not be cut in two. These
// are Playwright's own fields; in a release that has other ones nothing is divisible.
function isTied(suite) {
  if (!Array.isArray(suite._hooks) || typeof suite._parallelMode !== "string") return true;
  if (suite._parallelMode === "serial") return true;
  return suite._hooks.some((hook) => hook.type === "beforeAll" || hook.type === "afterAll");
}

// From 0.1.45 on AppWright has a device whose one session serves all tests of a worker, each going on where the last one
// has ended. Whoever asks for a fixture has its name in the parameters, so a test does if some function around it does.
const SHARED = /\bpersistentDevice\b/;

function sharesSession(test) {
  const lists = test._testType?.fixtures;
  if (!Array.isArray(lists)) return true;
  const users = [test.fn];
  for (const { fixtures } of lists) {
    if (!("persistentDevice" in fixtures)) users.push(...Object.values(fixtures).flat());
  }
  for (let suite = test.parent; suite; suite = suite.parent) users.push(...suite._hooks.map((hook) => hook.fn));
  return users.some((user) => typeof user === "function" && SHARED.test(user.toString()));
}

function allSuites(suite) {
  return [suite, ...suite.suites.flatMap(allSuites)];
}

// The file, then the titles from the outermost describe to the test.
function nameOf(config, test) {
  const file = path.relative(config.rootDir, test.location.file).split(path.sep).join("/");
  return [file, ...test.titlePath().slice(3)];
}

// A line is cut at each "›", its parts are trimmed, and "[", "#" and ":12" mean something in front.
function isClear(name) {
  const [file] = name;
  return !/^[[#]|:\d+$/.test(file) && name.every((part) => part && part === part.trim() && !/[\u203a\r\n]/.test(part));
}

// A name stands for every test that it is the beginning of.
function isAmbiguous(names) {
  const lines = names.map((name) => name.join("\n") + "\n").sort();
  return lines.some((line, index) => index > 0 && line.startsWith(lines[index - 1]));
}

function isDivisible(config, suite) {
  if (allSuites(suite).some(isTied)) return false;
  const tests = suite.allTests();
  // One that failed may yet pass at its next try.
  if (tests.some((test) => test.retries > 0 || sharesSession(test))) return false;
  const names = tests.map((test) => nameOf(config, test));
  return names.every(isClear) && !isAmbiguous(names);
}

function lineOf(config, test) {
  return nameOf(config, test).join(" \u203a ");
}

module.exports = { isDivisible, lineOf };
