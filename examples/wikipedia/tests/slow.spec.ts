import { test } from "appwright";

test("takes a minute and a half", async ({ device }) => {
  for (let second = 0; second < 90; second += 1) {
    await device.getByText("Wikipedia", { exact: true }).isVisible();
    console.log(`second ${second}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
});
