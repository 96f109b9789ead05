// docs/examples/live.html: what a browser sees of SSE and WebSocket, across origins.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  close,
  created,
  freshStream,
  readMessages,
  remove,
  tail,
} from "../blackbox/client.mjs";
import { Host } from "../blackbox/host.mjs";
import { Browser } from "./page.mjs";

const TEXT = "text/plain";

let browser;
let pages = [];
beforeAll(async () => {
  browser = await Browser.start();
});
afterEach(async () => {
  for (const page of pages) {
    expect(page.errors, "errors on the console").toEqual([]);
    await page.close();
  }
  pages = [];
});
afterAll(() => browser.stop());

async function open(url, options) {
  const page = await browser.open(url, options);
  pages.push(page);
  return page;
}

/** A page that follows a stream with both, and has caught up. */
async function following(url, options) {
  const page = await open(url, options);
  await page.untilBoth("up-to-date");
  return page;
}

async function stream(type = JSON_TYPE, body = undefined, server = undefined) {
  const url = freshStream("browser", server);
  await created(url, { type, body });
  return url;
}

/** Appends one message after the other, each when the one before is shown. */
async function appendInSteps(url, page, messages, shown) {
  const expected = [];
  for (const message of messages) {
    const text = JSON.stringify(message);
    expected.push({ text, offset: await appended(url, JSON.stringify([message])) });
    await page.untilBothShow(shown + expected.length);
  }
  return expected;
}

describe("both columns", () => {
  test("show what is appended by HTTP, in order, with its offsets", async () => {
    const url = await stream(JSON_TYPE, '[{"n":0},{"n":1}]');
    const start = await tail(url);
    const page = await following(url);
    const first = ['{"n":0}', '{"n":1}'].map((text) => ({ text, offset: start }));
    const messages = [{ n: 2 }, "<b>not bold</b>", [1, [2]], null];
    const expected = [...first, ...(await appendInSteps(url, page, messages, first.length))];
    for (const column of page.columns) {
      expect(await column.messages()).toEqual(expected);
      expect(await column.next()).toBe(expected.at(-1).offset);
    }
    expect(page.networkErrors).toEqual([]);
  });

  test("show a burst in order", async () => {
    const url = await stream();
    const page = await following(url);
    const numbers = Array.from({ length: 200 }, (_, n) => n);
    for (const n of numbers) await appended(url, String(n));
    await page.untilBothShow(numbers.length);
    for (const column of page.columns) expect(await column.texts()).toEqual(numbers.map(String));
    expect(page.networkErrors).toEqual([]);
  });

  test("show text and bytes alike", async () => {
    for (const [type, body, shown] of [
      [TEXT, "grüße <i>\n😀", "grüße <i>\n😀"],
      [BINARY_TYPE, Buffer.from([0, 255, 16]), "3 bytes: 00 ff 10"],
    ]) {
      const url = await stream(type);
      const page = await following(url);
      const offset = await appended(url, body, { type });
      await page.untilBothShow(1);
      for (const column of page.columns) {
        expect(await column.messages()).toEqual([{ text: shown, offset }]);
      }
    }
  });

  test("resume where they were stopped", async () => {
    const url = await stream(JSON_TYPE, "[0]");
    const page = await following(url);
    for (const column of page.columns) {
      await column.toggle();
      await column.until("stopped");
    }
    await appended(url, "[1,2]");
    for (const column of page.columns) {
      await column.toggle();
      await column.until("up-to-date");
      expect(await column.texts()).toEqual(["0", "1", "2"]);
    }
    expect(page.networkErrors).toEqual([]);
  });

  test("resume after a kill of the service without gap or repeat", { timeout: 240_000 }, async () => {
    const host = await Host.start();
    try {
      const url = await stream(JSON_TYPE, "[0]", host.url);
      const page = await following(url);
      const expected = ["0"];
      for (let round = 1; round <= 2; round += 1) {
        const [before, after] = [`"${round} before"`, `"${round} after"`];
        await appended(url, before);
        await page.untilBothShow(expected.push(before));
        await host.restart();
        await appended(url, after);
        await page.untilBothShow(expected.push(after));
        await page.untilBoth("up-to-date");
      }
      for (const column of page.columns) {
        expect(await column.texts()).toEqual(expected);
        expect(await column.next()).toBe(await tail(url));
      }
    } finally {
      await host.stop();
    }
  });

  test("resume after a response of SSE has ended by itself", async () => {
    const host = await Host.start({ SSE_LIFETIME_MS: "1000" });
    try {
      const url = await stream(JSON_TYPE, "[0]", host.url);
      const page = await following(url);
      await page.sse.until("waiting");
      await appended(url, "1");
      await page.untilBothShow(2);
      for (const column of page.columns) expect(await column.texts()).toEqual(["0", "1"]);
    } finally {
      await host.stop();
    }
  });

  test("show that a stream was closed", async () => {
    const url = await stream(JSON_TYPE, "[0]");
    const page = await following(url);
    await close(url);
    await page.untilBoth("closed");
    const late = await open(url);
    await late.untilBoth("closed");
    for (const column of [...page.columns, ...late.columns]) {
      expect(await column.texts()).toEqual(["0"]);
    }
    expect(page.networkErrors).toEqual([]);
  });

  test("show that the stream was deleted", async () => {
    const url = await stream(JSON_TYPE, "[0]");
    const page = await following(url);
    await remove(url);
    await page.untilBoth("failed");
    for (const column of page.columns) {
      expect(await column.cause()).toContain("STREAM_NOT_FOUND");
      expect(await column.texts()).toEqual(["0"]);
    }
  });

  test("show why a read is refused", async () => {
    const url = await stream();
    const page = await open(url, { offset: "what" });
    await page.untilBoth("failed");
    for (const column of page.columns) expect(await column.cause()).toContain("INVALID_OFFSET");
  });
});

test("the page creates a missing stream, by keyboard alone, on a phone", async () => {
  const url = freshStream("browser");
  const { origin, pathname } = new URL(url);
  const page = await open(undefined, { viewport: { width: 360, height: 740 } });
  const { tab } = page;
  await tab.keyboard.press("Tab");
  await tab.keyboard.type(origin);
  await tab.keyboard.press("Tab");
  await tab.keyboard.type(pathname);
  await tab.keyboard.press("Enter");
  await page.untilBoth("failed");
  for (const column of page.columns) expect(await column.cause()).toContain("STREAM_NOT_FOUND");
  const create = tab.getByRole("button", { name: "Create the stream" });
  while (!(await create.evaluate((button) => button === document.activeElement))) {
    await tab.keyboard.press("Tab");
  }
  await tab.keyboard.press("Enter");
  await page.untilBoth("up-to-date");
  await appended(url, '{"n":1}');
  await page.untilBothShow(1);
  const root = tab.locator("html");
  const overflow = await root.evaluate((html) => html.scrollWidth - html.clientWidth);
  expect(overflow, "pixels beyond the width of the phone").toBe(0);
});

describe("an append by WebSocket", () => {
  test("shows up in both and is acknowledged", async () => {
    const url = await stream();
    const page = await following(url);
    const values = [{ n: 1 }, "plain", 3];
    for (const [at, value] of values.entries()) {
      await page.append(JSON.stringify(value));
      const { kind, text } = await page.untilAnswered();
      expect({ kind, text }).toEqual({ kind: "ack", text: `stored, up to ${await tail(url)}` });
      await page.untilBothShow(at + 1);
    }
    for (const column of page.columns) {
      expect(await column.texts()).toEqual(values.map((value) => JSON.stringify(value)));
    }
    expect(await readMessages(url, "-1")).toEqual(values);
    expect(page.networkErrors).toEqual([]);
  });

  test("of text and of bytes arrives as it was typed", async () => {
    for (const [type, shown] of [[TEXT, "größe"], [BINARY_TYPE, "7 bytes: 67 72 c3 b6 c3 9f 65"]]) {
      const url = await stream(type);
      const page = await following(url);
      await page.append("größe");
      expect(await page.untilAnswered()).toMatchObject({ kind: "ack" });
      await page.untilBothShow(1);
      for (const column of page.columns) expect(await column.texts()).toEqual([shown]);
    }
  });

  test("that is refused says why, and the next one is taken", async () => {
    const url = await stream();
    const page = await following(url);
    await page.append("[]");
    const { kind, text } = await page.untilAnswered();
    expect(kind).toBe("nack");
    expect(text).toContain("EMPTY_ARRAY");
    await page.append("1");
    expect(await page.untilAnswered()).toMatchObject({ kind: "ack" });
    await page.untilBothShow(1);
    expect(page.networkErrors).toEqual([]);
  });

  test("may close the stream", async () => {
    const url = await stream();
    const page = await following(url);
    await page.append('"last"', { close: true });
    expect(await page.untilAnswered()).toMatchObject({ kind: "ack" });
    await page.untilBoth("closed");
    for (const column of page.columns) expect(await column.texts()).toEqual(['"last"']);
    expect(page.networkErrors).toEqual([]);
  });

  test("that waits for the connection is stored once", { timeout: 240_000 }, async () => {
    const host = await Host.start();
    try {
      const url = await stream(JSON_TYPE, undefined, host.url);
      const page = await following(url);
      for (let n = 0; n < 2; n += 1) {
        const restarted = host.restart();
        await page.append(String(n));
        await restarted;
        expect(await page.untilAnswered()).toMatchObject({ kind: "ack" });
      }
      await page.untilBothShow(2);
      expect(await readMessages(url, "-1")).toEqual([0, 1]);
      for (const column of page.columns) expect(await column.texts()).toEqual(["0", "1"]);
    } finally {
      await host.stop();
    }
  });
});

describe("credit", () => {
  test("of 0 lets nothing pass until more is granted", async () => {
    const url = await stream(JSON_TYPE, "[0]");
    const page = await following(url);
    await page.tab.getByRole("button", { name: "Open with credit 0" }).click();
    await page.ws.until("up-to-date");
    await appended(url, "1");
    const end = await appended(url, "2");
    await page.sse.untilShown(3);
    // An answer comes after all that the server would have sent before.
    await page.append("3");
    expect(await page.untilAnswered()).toMatchObject({ kind: "ack" });
    expect(await page.ws.texts()).toEqual(["0"]);
    expect(await page.credit()).toBe("0");

    await page.grant(10);
    await page.untilBothShow(4);
    await page.ws.until("up-to-date");
    expect(await page.ws.texts()).toEqual(["0", "1", "2", "3"]);
    expect(await page.ws.next()).toBe(await page.sse.next());
    expect((await page.sse.messages())[2].offset).toBe(end);
    expect(Number(await page.credit())).toBeLessThan(10);
    expect(page.networkErrors).toEqual([]);
  });

  test("granted frame by frame brings large batches one at a time", async () => {
    const url = await stream();
    const page = await following(url);
    await page.tab.getByRole("button", { name: "Open with credit 0" }).click();
    await page.ws.until("up-to-date");
    const large = "m".repeat(700_000);
    for (let n = 0; n < 3; n += 1) await appended(url, JSON.stringify([`${n}${large}`]));
    for (let n = 1; n <= 3; n += 1) {
      await page.grant(1);
      await page.ws.untilShown(n);
      expect(await page.credit()).toBe("0");
    }
    await page.ws.until("up-to-date");
    const numbers = (await page.ws.texts()).map((text) => text.slice(1, 2));
    expect(numbers).toEqual(["0", "1", "2"]);
  });
});
