// The statistics of a stream: `GET …?stats`.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  appended,
  close,
  create,
  created,
  eventually,
  expectCommonHeaders,
  expectError,
  freshPath,
  freshStream,
  head,
  nextOffset,
  producer,
  read,
  remove,
  sleep,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { SocketReader } from "./ws_client.mjs";

const origin = { headers: { origin: "https://example.com" } };

async function statsOf(url) {
  const response = await fetch(`${url}?stats`, origin);
  expect(response.status).toBe(200);
  expectCommonHeaders(response.headers);
  expect(response.headers.get("content-type")).toBe(JSON_TYPE);
  expect(response.headers.get("cache-control")).toBe("no-store");
  return response.json();
}

test("a fresh stream has nothing", async () => {
  const url = freshStream("stats");
  const next = await created(url, { type: "text/plain; charset=utf-8" });
  const { requests, ...stats } = await statsOf(url);
  expect(stats).toEqual({
    stream: new URL(url).pathname.replace("/v1/", "").replace("/stream/", "/"),
    contentType: "text/plain; charset=utf-8",
    nextOffset: next,
    closed: false,
    public: false,
    lifetime: null,
    hot: { rows: 0, bytes: 0, bytesMax: 8 * 1024 ** 3, share: 0 },
    segments: { count: 0, bytes: 0 },
    readers: { longPoll: 0, sse: 0, webSocket: 0 },
    producers: 0,
    forks: 0,
    lastRotation: null,
  });
  expect(requests).toBe(2);
  expect((await statsOf(url)).requests).toBe(3);
});

test("rows, bytes, producers and forks are counted", async () => {
  const url = freshStream("stats");
  await created(url, { type: JSON_TYPE });
  await appended(url, "[1,22]", producer("a", 0, 0));
  await appended(url, "3", producer("a", 0, 1));
  const next = await appended(url, "4", producer("b", 0, 0));
  const fork = freshPath("stats");
  await created(new URL(fork, url).href, { "stream-forked-from": new URL(url).pathname });
  const stats = await statsOf(url);
  const bytes = "1,\n22,\n3,\n4,\n".length;
  expect(stats).toMatchObject({ nextOffset: next, producers: 2, forks: 1, closed: false });
  expect(stats.hot).toMatchObject({ rows: 3, bytes });
  expect(stats.hot.share).toBeCloseTo(bytes / stats.hot.bytesMax, 12);
  expect(await statsOf(new URL(fork, url).href)).toMatchObject({ producers: 0, forks: 0 });
});

test("lifetimes are told as configured", async () => {
  const sliding = freshStream("stats");
  await created(sliding, { "stream-ttl": "60" });
  expect((await statsOf(sliding)).lifetime).toEqual({ ttlSeconds: 60 });
  const fixed = freshStream("stats");
  await created(fixed, { "stream-expires-at": "2100-01-01T00:00:00+01:00" });
  expect((await statsOf(fixed)).lifetime).toEqual({ expiresAt: "2099-12-31T23:00:00.000Z" });
});

test("looking does not keep a stream alive", async () => {
  const url = freshStream("stats");
  await created(url, { "stream-ttl": "2" });
  const deadline = performance.now() + 2_000;
  while (performance.now() < deadline - 500) {
    await statsOf(url);
    await sleep(200);
  }
  await sleep(800);
  await expectError(await read(url, undefined, {}), 404, "STREAM_NOT_FOUND");
});

test("live readers are counted by mode", async () => {
  const url = freshStream("stats");
  await created(url, { type: JSON_TYPE });
  const ended = new AbortController();
  const sse = await read(url, "-1", { live: "sse", signal: ended.signal });
  const longPoll = read(url, "now", { live: "long-poll", signal: ended.signal }).catch(() => {});
  const socket = await SocketReader.open(url, "-1");
  const readers = async () => (await statsOf(url)).readers;
  const all = { longPoll: 1, sse: 1, webSocket: 1 };
  await eventually(readers, (found) => JSON.stringify(found) === JSON.stringify(all));
  await socket.close();
  await eventually(readers, (found) => found.webSocket === 0);
  await appended(url, "1");
  await eventually(readers, (found) => found.longPoll === 0 && found.sse === 1);
  ended.abort();
  await longPoll;
  await sse.body.cancel().catch(() => {});
});

test("a missing stream is refused as on GET", async () => {
  const url = freshStream("stats");
  await expectError(await fetch(`${url}?stats`, origin), 404, "STREAM_NOT_FOUND");
  await created(url);
  const fork = freshStream("stats");
  await created(fork, { "stream-forked-from": new URL(url).pathname });
  await remove(url);
  await expectError(await fetch(`${url}?stats`, origin), 410, "STREAM_GONE");
});

test("other methods and parameters are what they were", async () => {
  const url = freshStream("stats");
  expect((await create(`${url}?stats`, { type: JSON_TYPE })).status).toBe(201);
  expect([200, 204]).toContain((await append(`${url}?stats`, "7")).status);
  const response = await head(`${url}?stats`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe(JSON_TYPE);
  const page = await fetch(`${url}?statistics&offset=-1`, origin);
  expect(await page.json()).toEqual([7]);
  for (const query of ["stats=1", "offset=-1&stats", "st%61ts", "stats&live=sse&offset=now"]) {
    const stats = await (await fetch(`${url}?${query}`, origin)).json();
    expect(stats.nextOffset, query).toBe(nextOffset(response));
  }
});

describe("with small segments", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start({ SEGMENT_BYTES: "4096" });
  });
  afterAll(() => host?.stop());

  test("segments and the last rotation are told", async () => {
    const url = freshStream("stats", host.url);
    await created(url, { type: "application/octet-stream" });
    const began = Date.now();
    await appended(url, Buffer.alloc(5_000), { type: "application/octet-stream" });
    const stats = await eventually(
      () => statsOf(url),
      (found) => found.segments.count === 1,
    );
    expect(stats.segments).toEqual({ count: 1, bytes: 5_000 });
    expect(stats.hot).toMatchObject({ rows: 0, bytes: 0, share: 0 });
    expect(stats.lastRotation.bytes).toBe(5_000);
    expect(Date.parse(stats.lastRotation.at)).toBeGreaterThanOrEqual(began);
    expect(Date.parse(stats.lastRotation.at)).toBeLessThanOrEqual(Date.now());

    await host.restart();
    const woken = await statsOf(url);
    expect(woken.lastRotation).toEqual({ at: null, bytes: 5_000 });
    expect(woken.requests).toBe(1);

    const closed = await close(url);
    expect(closed.status).toBe(204);
    const after = await statsOf(url);
    expect(after).toMatchObject({ closed: true, nextOffset: nextOffset(closed) });
  });
});
