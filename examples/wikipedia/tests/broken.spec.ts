import { test, expect } from "appwright";

test("looks for what is not there", async ({ device }) => {
  await expect(device.getByText("No such text")).toBeVisible({ timeout: 2000 });
});
