// What takes time: streams at rest, the ends of waits and of lifetimes, and readers' limits. The
// tests wait side by side.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  SERVER,
  append,
  appended,
  close,
  created,
  eventually,
  expectCommonHeaders,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  nextOffset,
  randomBuffer,
  read,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { EventReader, decodeEvents, expectOrderly } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { open, requestHead } from "./raw_socket.mjs";

const TEXT = "text/plain";
const longPoll = (url, offset, options) => read(url, offset, { live: "long-poll", ...options });

async function stream(type, body, options = {}) {
  const { server = SERVER, ...headers } = options;
  const url = freshStream("timers", server);
  return { url, start: await created(url, { type, body, ...headers }) };
}

// Limits small enough to run into, and times short enough to wait for.
let small;
beforeAll(async () => {
  small = await Host.start({
    READERS_MAX: "6",
    WAITERS_MAX: "3",
    LONG_POLL_TIMEOUT_MS: "1500",
    SSE_LIFETIME_MS: "2500",
  });
});
afterAll(() => small.stop());

describe.concurrent("a stream at rest", () => {
  test("sends its SSE readers a comment now and then", { timeout: 20_000 }, async () => {
    const { url } = await stream(JSON_TYPE);
    const reader = await EventReader.open(url, "-1");
    await reader.until(({ comments }) => comments > 0, "comment", 8000);
    reader.close();
  });
});

// Objects are evicted from memory after about ten seconds without work.
describe.concurrent("a stream at rest for 13 s", () => {
  const REST_MS = 13_000;
  const options = { timeout: 60_000 };

  test.each([
    [JSON_TYPE, '"next"'],
    [TEXT, "next"],
    [BINARY_TYPE, "next"],
  ])("still reaches its SSE readers (%s)", options, async (type, body) => {
    const { url } = await stream(type, type === JSON_TYPE ? '"first"' : "first ");
    const readers = [];
    for (let n = 0; n < 3; n += 1) readers.push(await EventReader.open(url, "-1"));
    for (const reader of readers) await reader.untilUpToDate();
    await sleep(REST_MS);
    for (let n = 0; n < 3; n += 1) {
      const end = await appended(url, body, { type });
      for (const reader of readers) {
        await reader.until(({ offset }) => offset === end, "the append");
      }
    }
    await close(url);
    for (const reader of readers) {
      await reader.untilEnd();
      expectOrderly(reader);
      const expected = { [JSON_TYPE]: ["first", "next", "next", "next"] };
      if (type === JSON_TYPE) expect(reader.messages).toEqual(expected[type]);
      else expect(reader.text).toBe("first nextnextnext");
    }
  });

  test("still answers its long-polls", options, async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]");
    const waiting = Array.from({ length: 5 }, () => longPoll(url, start));
    await sleep(REST_MS);
    await appended(url, "2");
    for (const response of await Promise.all(waiting)) expect(await response.json()).toEqual([2]);
  });

  test("still feeds a reader that was slow before", options, async () => {
    const body = randomBuffer(8 * MIB, seeded(15));
    const { url } = await stream(BINARY_TYPE, body);
    const socket = await open(SERVER);
    socket.pause();
    const target = `${new URL(url).pathname}?offset=-1&live=sse`;
    socket.write(requestHead("GET", target, { connection: "close" }));
    await sleep(REST_MS);
    await appended(url, "end", { type: BINARY_TYPE });
    await close(url);
    const chunks = [];
    for await (const chunk of socket) chunks.push(chunk);
    expectSameBytes(decodeEvents(chunks), Buffer.concat([body, Buffer.from("end")]));
  });

  test("still ends its readers when it is deleted", options, async () => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const reader = await EventReader.open(url, "-1");
    const waiting = longPoll(url, "now");
    await reader.untilUpToDate();
    await sleep(REST_MS);
    await remove(url);
    await reader.untilEnd(3000);
    await expectError(await waiting, 404, "STREAM_NOT_FOUND");
  });
});

describe.concurrent("SSE readers", () => {
  test("are recycled and miss nothing", async () => {
    const { url } = await stream(JSON_TYPE, undefined, { server: small.url });
    let running = true;
    let written = 0;
    const writing = (async () => {
      for (; running; written += 1) {
        await appended(url, String(written));
        await sleep(5);
      }
      await close(url);
    })();
    const messages = [];
    let offset = "-1";
    let closed = false;
    for (let connection = 0; !closed; connection += 1) {
      const reader = await EventReader.open(url, offset);
      if (connection === 2) running = false;
      await reader.untilEnd();
      expectOrderly(reader);
      messages.push(...reader.messages);
      ({ offset, closed } = reader);
    }
    await writing;
    expect(messages).toEqual([...Array(written).keys()]);
    expect(written).toBeGreaterThan(50);
  });
});

describe.concurrent("a long-poll without news", () => {
  test("ends empty after its time, and its cursor moves on", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]", { server: small.url });
    const began = performance.now();
    const response = await longPoll(url, start);
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(1400);
    expect(took).toBeLessThan(4000);
    expect(response.status).toBe(204);
    expectCommonHeaders(response.headers);
    expect(nextOffset(response)).toBe(start);
    expect(response.headers.get("stream-up-to-date")).toBe("true");
    const cursor = response.headers.get("stream-cursor");
    const again = await longPoll(url, start, { cursor });
    expect(Number(again.headers.get("stream-cursor"))).toBeGreaterThan(Number(cursor));
    const far = await longPoll(url, "-1", { cursor: "99999999" });
    expect(Number(far.headers.get("stream-cursor"))).toBeGreaterThan(99999999);
  });
});

describe.concurrent("a lifetime", () => {
  test("slides while a reader is attached", { timeout: 30_000 }, async () => {
    const { url } = await stream(JSON_TYPE, "[1]", { "stream-ttl": "4" });
    const reader = await EventReader.open(url, "-1");
    await reader.untilUpToDate();
    await sleep(9000);
    expect((await head(url)).status).toBe(200);
    await appended(url, "2");
    await reader.until(({ messages }) => messages.length === 2, "the append");
    reader.close();
  });

  test("that has a fixed end ends the readers as well", { timeout: 30_000 }, async () => {
    const expires = new Date(Date.now() + 5000).toISOString();
    const { url } = await stream(JSON_TYPE, "[1]", { "stream-expires-at": expires });
    const reader = await EventReader.open(url, "-1");
    const waiting = longPoll(url, "now");
    await reader.untilEnd(9000);
    expect(reader.messages).toEqual([1]);
    await expectError(await waiting, 404, "STREAM_NOT_FOUND");
  });

  test("is moved by reads and appends, and not by HEAD", { timeout: 30_000 }, async () => {
    const ttl = { "stream-ttl": "4" };
    const requests = {
      read: (url) => read(url, "-1"),
      append: (url) => append(url, "1"),
      head: (url) => head(url),
    };
    const lives = async (request) => {
      const { url } = await stream(JSON_TYPE, "[1]", ttl);
      for (let second = 1; second <= 6; second += 1) {
        await sleep(1000);
        await request(url);
      }
      return url;
    };
    const [reading, appending, asking] = await Promise.all(Object.values(requests).map(lives));
    expect((await head(reading)).status).toBe(200);
    expect((await head(appending)).status).toBe(200);
    expect((await head(asking)).status).toBe(404);
    await sleep(4200);
    expect((await head(reading)).status).toBe(404);
    expect((await head(appending)).status).toBe(404);
  });
});

describe.concurrent("the limits", () => {
  test("of waiters: 429, others go on, and a place is free after a wake", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]", { server: small.url });
    // At `now` each waits for itself; at an offset they would share one place.
    const waiting = Array.from({ length: 3 }, () => longPoll(url, "now"));
    await sleep(300);
    const refused = await longPoll(url, start);
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    await expectError(refused, 429, "TOO_MANY_READERS");
    // What needs no waiting is served, and so is SSE.
    expect((await longPoll(url, "-1")).status).toBe(200);
    const reader = await EventReader.open(url, "-1");
    reader.close();
    const end = await appended(url, "2");
    for (const response of await Promise.all(waiting)) expect(await response.json()).toEqual([2]);
    const next = longPoll(url, end);
    await sleep(100);
    await appended(url, "3");
    expect((await next).status).toBe(200);
  });

  test("of readers: 429, also for a wait, until one has left", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]", { server: small.url });
    const readers = [];
    for (let n = 0; n < 6; n += 1) readers.push(await EventReader.open(url, "-1"));
    for (const reader of readers) await reader.untilUpToDate();
    for (const live of ["sse", "long-poll"]) {
      const refused = await read(url, start, { live });
      expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      await expectError(refused, 429, "TOO_MANY_READERS");
    }
    expect((await read(url, "-1")).status).toBe(200);
    readers[0].close();
    // At the latest at the next write the place is free.
    await appended(url, "2");
    const open = async () => {
      await append(url, "3");
      const response = await read(url, "now", { live: "long-poll" });
      return response.status;
    };
    await eventually(open, (status) => [200, 204].includes(status), 10_000);
    for (const reader of readers.slice(1)) {
      await reader.until(({ messages }) => messages.length >= 2, "the append");
      reader.close();
    }
  });

  test("of waiters hold after their time has passed", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]", { server: small.url });
    for (let round = 0; round < 3; round += 1) {
      const waiting = await Promise.all(Array.from({ length: 3 }, () => longPoll(url, "now")));
      expect(waiting.map((response) => response.status)).toEqual([204, 204, 204]);
    }
    expect(await tail(url)).toBe(start);
  });
});
