import { test, expect } from "appwright";

test("offers more languages at the first start", async ({ device }) => {
  await expect(device.getByText("ADD OR EDIT LANGUAGES")).toBeVisible();
});
