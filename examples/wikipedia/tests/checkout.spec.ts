import { test, expect } from "appwright";

test("counts what is in the feed", async ({ device }) => {
  await device.getByText("Skip").tap();
  expect(await device.getById("count").getText()).toBe("Counter: 3");
});
