import path from "path";
import { defineConfig, Platform } from "appwright";

export default defineConfig({
  projects: [
    {
      name: "android",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "emulator" },
        buildPath: path.join("apps", "wikipedia.apk"),
      },
    },
  ],
});
