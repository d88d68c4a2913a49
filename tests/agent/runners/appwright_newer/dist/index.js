"use strict";
Object.defineProperty(exports, "__esModule", { value: true });
const fixture = require("./fixture");
const config = require("./config");
for (const name of ["test", "expect"]) Object.defineProperty(exports, name, { enumerable: true, get: () => fixture[name] });
Object.defineProperty(exports, "defineConfig", { enumerable: true, get: () => config.defineConfig });
exports.Platform = { ANDROID: "android", IOS: "ios" };
