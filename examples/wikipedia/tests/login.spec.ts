import { test, expect } from "appwright";

test("skips the onboarding and sees the feed", async ({ device }) => {
  await expect(device.getByText("Wikipedia", { exact: true })).toBeVisible();
  await device.getByText("Skip").tap();
  await expect(device.getByText("Explore")).toBeVisible();
});
