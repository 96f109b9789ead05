// The edge's cache of pages: what it may keep, and what nobody may be given from it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  appended,
  close,
  create,
  created,
  expectError,
  freshStream,
  head,
  nextOffset,
  read,
  remove,
  sleep,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { get, Poller } from "./readers.mjs";

const TEXT = "text/plain";
// What has landed lingers in memory for 200 ms; after that only the cache can have it.
const LINGERED_MS = 300;
const ROUNDS = 200;
const VARS = { READ_CHUNK_BYTES: "10", LONG_POLL_TIMEOUT_MS: "1000" };

let on;
let off;
beforeAll(async () => {
  [on, off] = await Promise.all([
    Host.start({ ...VARS, EDGE_CACHE_SECONDS: "2" }),
    Host.start({ ...VARS, EDGE_CACHE_SECONDS: "0" }),
  ]);
});
afterAll(() => Promise.all([on.stop(), off.stop()]));

const source = (response) => response.headers.get("stream-cache");
const isUpToDate = (response) => response.headers.get("stream-up-to-date") === "true";

/** A stream of appends of ten bytes, each of which is a page; and their offsets. */
async function stream(host, appends = 4, options = {}) {
  const url = freshStream("caching", host.url);
  const offsets = [await created(url, { type: TEXT, ...options })];
  for (let n = 0; n < appends; n += 1) {
    offsets.push(await appended(url, `${n}`.repeat(10), { type: TEXT }));
  }
  return { url, offsets };
}

async function expectPage(url, offset, options, { from, text }) {
  const response = await read(url, offset, options);
  expect(response.status).toBe(200);
  expect(await response.text()).toBe(text);
  expect(source(response)).toBe(from);
  return response;
}

describe("a page that cannot change", () => {
  test("is a miss, and then a hit with the same headers", async () => {
    const { url, offsets } = await stream(on);
    const miss = await expectPage(url, offsets[1], {}, { from: "miss", text: "1111111111" });
    await sleep(LINGERED_MS);
    const hit = await expectPage(url, offsets[1], {}, { from: "hit", text: "1111111111" });
    const fields = (response) => {
      const { date, "stream-cache": _, ...rest } = Object.fromEntries(response.headers);
      return rest;
    };
    expect(fields(hit)).toEqual(fields(miss));
    expect(hit.headers.get("cache-control")).toMatch(/^public, max-age=60/);
    expect(nextOffset(hit)).toBe(offsets[2]);
  });

  test("is no more a hit after its lifetime", async () => {
    const { url, offsets } = await stream(on);
    await expectPage(url, offsets[1], {}, { from: "miss", text: "1111111111" });
    await sleep(3200);
    await expectPage(url, offsets[1], {}, { from: "miss", text: "1111111111" });
  });

  test("answers If-None-Match with 304, from the cache as well", async () => {
    const { url, offsets } = await stream(on);
    const tag = (await read(url, offsets[1])).headers.get("etag");
    await sleep(LINGERED_MS);
    const known = await read(url, offsets[1], { "if-none-match": tag });
    expect([known.status, source(known), await known.text()]).toEqual([304, "hit", ""]);
    expect(known.headers.get("etag")).toBe(tag);
    await sleep(LINGERED_MS);
    await expectPage(url, offsets[1], { "if-none-match": '"x"' }, { from: "hit", text: "1111111111" });
    // At the tail, where nothing is kept.
    const last = await read(url, offsets[3]);
    const again = await read(url, offsets[3], { "if-none-match": last.headers.get("etag") });
    expect([again.status, source(again)]).toEqual([304, "miss"]);
  });

  test("is not kept when the cache is off", async () => {
    const { url, offsets } = await stream(off);
    for (let n = 0; n < 2; n += 1) {
      await expectPage(url, offsets[1], {}, { from: "miss", text: "1111111111" });
      await sleep(LINGERED_MS);
    }
  });
});

describe("never kept is", () => {
  test("a read without a position, the tail, and a stream with a lifetime", async () => {
    const { url, offsets } = await stream(on);
    for (const offset of ["-1", "now", undefined, offsets[0].replace(/^\d+/, "0".repeat(16))]) {
      for (let n = 0; n < 2; n += 1) {
        const response = await read(url, offset);
        expect(response.status).toBe(200);
        expect(source(response)).toBe(null);
      }
    }
    for (const offset of [offsets[3], offsets[4]]) {
      await read(url, offset);
      await sleep(LINGERED_MS);
      expect(source(await read(url, offset))).toBe("miss");
    }
    const mortal = await stream(on, 4, { "stream-ttl": "3600" });
    for (const live of [undefined, "long-poll"]) {
      await read(mortal.url, mortal.offsets[1], { live });
      await sleep(LINGERED_MS);
      expect(source(await read(mortal.url, mortal.offsets[1], { live }))).toBe("miss");
    }
  });

  test("HEAD, a 204, an error", async () => {
    const { url, offsets } = await stream(on);
    const tail = offsets.at(-1);
    for (let n = 0; n < 2; n += 1) {
      expect(source(await head(url))).toBe(null);
      const nothing = await read(url, tail, { live: "long-poll" });
      expect([nothing.status, source(nothing)]).toEqual([204, "miss"]);
      await expectError(await read(url, `${tail.slice(0, -1)}9`), 400, "OFFSET_BEYOND_TAIL");
      await sleep(LINGERED_MS);
    }
    await close(url);
    for (let n = 0; n < 2; n += 1) {
      const end = await read(url, tail, { live: "long-poll" });
      expect([end.status, source(end), end.headers.get("stream-closed")]).toEqual([204, "miss", "true"]);
      await sleep(LINGERED_MS);
    }
  });
});

test("another host of the zone has pages of its own", async () => {
  const { url, offsets } = await stream(on);
  const page = `${url}?offset=${offsets[1]}`;
  const from = async (host) => {
    const { status, headers, body } = await get(page, undefined, { host });
    expect([status, String(body)]).toEqual([200, "1111111111"]);
    await sleep(LINGERED_MS);
    return headers["stream-cache"];
  };
  const found = [];
  for (const host of ["a.example", "a.example", "b.example"]) found.push(await from(host));
  expect(found).toEqual(["miss", "hit", "miss"]);
});

test("what cannot be told apart by a write stays shared", async () => {
  const { url, offsets } = await stream(on);
  const poll = () => read(url, offsets[1], { live: "long-poll" });
  const confirm = async (type) => (await create(url, { type })).status;
  expect(source(await poll())).toBe("miss");
  expect([await confirm(TEXT), await confirm("text/html")]).toEqual([200, 409]);
  expect(source(await poll())).toBe("coalesced");
});

test("a poll of the tail with its ETag is a 304, and what comes then is seen at once", async () => {
  const { url, offsets } = await stream(on, 2);
  const last = await read(url, offsets[1]);
  expect(await last.text()).toBe("1111111111");
  const known = { "if-none-match": last.headers.get("etag") };
  for (let n = 0; n < 3; n += 1) {
    const again = await read(url, offsets[1], known);
    expect([again.status, source(again), await again.text()]).toEqual([304, "miss", ""]);
    expect([again.headers.get("etag"), nextOffset(again)]).toEqual([known["if-none-match"], offsets[2]]);
    expect(isUpToDate(again)).toBe(true);
  }
  await appended(url, "2", { type: TEXT });
  await sleep(LINGERED_MS);
  await expectPage(url, offsets[1], known, { from: "miss", text: "1111111111" });
});

test("a long-poll with data is kept by offset and cursor", async () => {
  const { url, offsets } = await stream(on);
  const poll = (cursor) => read(url, offsets[1], { live: "long-poll", cursor });
  expect(source(await poll("7"))).toBe("miss");
  await sleep(LINGERED_MS);
  const hit = await poll("7");
  expect(source(hit)).toBe("hit");
  expect(hit.headers.get("cache-control")).toBe("no-store");
  expect(Number(hit.headers.get("stream-cursor"))).toBeGreaterThan(7);
  await sleep(LINGERED_MS);
  expect(source(await poll("8"))).toBe("miss");
  expect(await hit.text()).toBe("1111111111");
});

describe("an answer from before the reader asked does not say where the end is", () => {
  test("while the stream is open", async () => {
    const { url, offsets } = await stream(on);
    const poll = () => read(url, offsets[3], { live: "long-poll", cursor: "7" });
    const first = await poll();
    expect([source(first), isUpToDate(first)]).toEqual(["miss", true]);
    const lingering = await poll();
    expect([source(lingering), isUpToDate(lingering)]).toEqual(["coalesced", false]);
    await sleep(LINGERED_MS);
    const cached = await poll();
    expect([source(cached), isUpToDate(cached)]).toEqual(["hit", false]);
    for (const { headers } of [lingering, cached]) {
      expect([...headers.keys()].filter((name) => name.startsWith("x-was"))).toEqual([]);
      expect(headers.get("stream-next-offset")).toBe(offsets[4]);
    }
    // The cached one, lingering.
    const again = await poll();
    expect([source(again), isUpToDate(again)]).toEqual(["coalesced", false]);
  });

  test("but does when it is closed", async () => {
    const { url, offsets } = await stream(on);
    await close(url);
    for (const from of ["miss", "coalesced", "hit"]) {
      if (from === "hit") await sleep(LINGERED_MS);
      const response = await read(url, offsets[3], { live: "long-poll", cursor: "7" });
      expect([source(response), isUpToDate(response)]).toEqual([from, true]);
      expect(response.headers.get("stream-closed")).toBe("true");
    }
  });
});

test("whoever has appended reads it, at once and while others poll", async () => {
  const { url, offsets } = await stream(on, 1);
  let tail = offsets.at(-1);
  const pollers = Array.from({ length: 5 }, () => new Poller(url, tail));
  const running = pollers.map((poller) => poller.run());
  let expected = "";
  for (let n = 0; n < ROUNDS; n += 1) {
    const from = tail;
    // Two appends: an answer that has the first only was the tail's for a moment.
    const first = await appended(url, `${n % 10}`, { type: TEXT });
    if (n % 2 === 0) await read(url, from, { live: "long-poll" });
    tail = await appended(url, ".", { type: TEXT });
    for (const live of [undefined, "long-poll"]) {
      const response = await read(url, from, { live });
      expect(await response.text(), `round ${n}, ${live}`).toBe(`${n % 10}.`);
      expect(nextOffset(response)).toBe(tail);
      // What a poller's trip has brought says it to those only who waited for it.
      if (source(response) === "miss") expect(isUpToDate(response)).toBe(true);
      expect(await (await read(url, first, { live })).text()).toBe(".");
    }
    expected += `${n % 10}.`;
  }
  await close(url);
  expect((await read(url, tail, { live: "long-poll" })).headers.get("stream-closed")).toBe("true");
  await Promise.all(running);
  for (const poller of pollers) expect(poller.text).toBe(expected);
});

describe("a deleted stream", () => {
  test("is not read from the next one's offsets", async () => {
    for (const host of [on, off]) {
      const { url, offsets } = await stream(host);
      await read(url, offsets[1]);
      await read(url, offsets[1], { live: "long-poll" });
      await remove(url);
      if (host === off) await expectError(await read(url, offsets[1]), 404, "STREAM_NOT_FOUND");
      await created(url, { type: TEXT, body: "another's" });
      for (const live of [undefined, "long-poll"]) {
        const response = await read(url, offsets[1], { live });
        // At worst the old life's own bytes, as long as the cache has them.
        if (host === on && response.status === 200) {
          expect(await response.text()).toBe("1111111111");
        } else {
          await expectError(response, 400, "STALE_OFFSET");
        }
      }
      expect(await (await read(url, "-1")).text()).toBe("another's");
      await sleep(host === on ? 3200 : 0);
      await expectError(await read(url, offsets[1]), 400, "STALE_OFFSET");
      await expectError(await read(url, offsets[1], { live: "long-poll" }), 400, "STALE_OFFSET");
    }
  });
});

test("cached pages lead to the tail while it moves", async () => {
  const { url, offsets } = await stream(on, 20);
  for (let round = 0; round < 5; round += 1) {
    let [offset, text] = [offsets[1], ""];
    let isAtTail = false;
    for (let page = 0; !isAtTail; page += 1) {
      expect(page).toBeLessThan(100);
      const live = page % 2 === round % 2 ? "long-poll" : undefined;
      const response = await read(url, offset, { live });
      text += await response.text();
      isAtTail = isUpToDate(response);
      expect(nextOffset(response) > offset || isAtTail).toBe(true);
      offset = nextOffset(response);
      if (page % 5 === 0) await appended(url, "x".repeat(10), { type: TEXT });
    }
    expect(text.startsWith("1111111111222222222233333")).toBe(true);
    expect(text.length % 10).toBe(0);
  }
});
