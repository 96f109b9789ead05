// What is kept at the edge is never another life's, and never another place's, bytes. The host is
// restarted in between: as to a second isolate, nothing is known to it but what the cache holds.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { appended, create, created, freshStream, nextOffset, read, remove, sleep } from "./client.mjs";
import { Host } from "./host.mjs";

const TEXT = "text/plain";
const LINGERED_MS = 300;

let host;
beforeAll(async () => {
  host = await Host.start({ EDGE_CACHE_SECONDS: "60", READ_CHUNK_BYTES: "10" });
});
afterAll(() => host.stop());

const source = (response) => response.headers.get("stream-cache");
const poll = (url, offset) => read(url, offset, { live: "long-poll" });

async function fork(url, of) {
  const forked = await create(url, { "stream-forked-from": new URL(of).pathname });
  expect(forked.status, await forked.text()).toBe(201);
}

/** Polls at an offset; the bytes are appended once it waits. */
async function pollWhile(url, offset, bytes) {
  const answer = poll(url, offset);
  await sleep(300);
  await appended(url, bytes, { type: TEXT });
  return answer;
}

async function texts(url, offset) {
  const found = [];
  for (const live of ["long-poll", undefined]) {
    const response = await read(url, offset, { live });
    expect(response.status).toBe(200);
    found.push(await response.text());
  }
  return found;
}

test("the cache outlives the host", async () => {
  const url = freshStream("caching", host.url);
  const start = await created(url, { type: TEXT });
  await appended(url, "0123456789rest", { type: TEXT });
  expect(source(await poll(url, start))).toBe("miss");
  await sleep(LINGERED_MS);
  await host.restart();
  expect(source(await poll(url, start))).toBe("hit");
});

describe("behind an offset that a fork has inherited", () => {
  test.each([
    ["after a wait", (url, tail) => pollWhile(url, tail, "first")],
    [
      "that were there already",
      async (url, tail) => {
        await appended(url, "first", { type: TEXT });
        return poll(url, tail);
      },
    ],
  ])("are the bytes of the present fork: those %s", async (_, ask) => {
    const of = freshStream("caching", host.url);
    await created(of, { type: TEXT });
    const tail = await appended(of, "inherited", { type: TEXT });
    const url = freshStream("caching", host.url);
    await fork(url, of);
    const first = await ask(url, tail);
    expect([await first.text(), source(first)]).toEqual(["first", "miss"]);
    await remove(url);
    await fork(url, of);
    await appended(url, "other", { type: TEXT });
    expect(await texts(url, tail)).toEqual(["other", "other"]);
    await sleep(LINGERED_MS);
    await host.restart();
    expect(await texts(url, tail)).toEqual(["other", "other"]);
  });
});

test("behind an offset one past the end are the bytes that come to be there", async () => {
  const url = freshStream("caching", host.url);
  await created(url, { type: TEXT });
  const tail = await appended(url, "begin", { type: TEXT });
  const onePast = tail.replace(/.$/, (digit) => String(Number(digit) + 1));
  const early = await pollWhile(url, onePast, "1");
  expect([await early.text(), nextOffset(early)]).toEqual(["1", onePast]);
  await appended(url, "23", { type: TEXT });
  // At once, while it could linger; and from the cache.
  expect(await texts(url, onePast)).toEqual(["23", "23"]);
  await sleep(LINGERED_MS);
  await host.restart();
  expect(await texts(url, onePast)).toEqual(["23", "23"]);
});

test("live answers of a stream with a lifetime do not linger", async () => {
  const url = freshStream("caching", host.url);
  const start = await created(url, { type: TEXT, "stream-ttl": "3600" });
  await appended(url, "0123456789rest", { type: TEXT });
  for (let n = 0; n < 2; n += 1) expect(source(await poll(url, start))).toBe("miss");
});
