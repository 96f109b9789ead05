// The plug is pulled at random moments: what was acknowledged is there, at the offset that was
// named; what was refused is not; what was not answered is there once or not at all.
import { afterAll, beforeAll, expect, test } from "vitest";

import {
  BINARY_TYPE,
  append,
  close,
  create,
  created,
  eventually,
  expectError,
  freshStream,
  head,
  nextOffset,
  positionOf,
  read,
  readBytes,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";

const TEXT = "text/plain";
const CRASHES = 3;

let host;
beforeAll(async () => {
  host = await Host.start();
});
afterAll(() => host.stop());

/** The answer, or `undefined` when the connection broke. */
async function attempt(request) {
  try {
    return await request();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    await sleep(20);
    return undefined;
  }
}

async function crashRepeatedly(random) {
  for (let crash = 0; crash < CRASHES; crash += 1) {
    await sleep(200 + random() * 500);
    await host.restart();
  }
  await sleep(200);
}

test("appends", { timeout: 120_000 }, async () => {
  const random = seeded(41);
  const streams = [];
  for (let n = 0; n < 4; n += 1) {
    const url = freshStream("crashes", host.url);
    await created(url, { type: TEXT });
    streams.push({ url, acked: new Map(), unknown: new Set(), refused: new Set() });
  }
  let running = true;
  const write = async (writer) => {
    for (let n = 0; running; n += 1) {
      const { url, acked, unknown, refused } = streams[(writer + n) % streams.length];
      const isLarge = random() < 0.03;
      const body = `<${writer}.${n}${isLarge ? ".".repeat(1_500_000) : ""}>`;
      const isBad = random() < 0.1;
      const type = isBad ? BINARY_TYPE : TEXT;
      const response = await attempt(() => append(url, body, { type }));
      if (response === undefined) unknown.add(body);
      else if (response.status === 204) acked.set(body, nextOffset(response));
      else refused.add(body);
    }
  };
  const writers = Array.from({ length: 12 }, (_, writer) => write(writer));
  await crashRepeatedly(random);
  running = false;
  await Promise.all(writers);

  for (const { url, acked, unknown, refused } of streams) {
    expect(acked.size).toBeGreaterThan(20);
    const text = (await readBytes(url)).toString();
    for (const [body, offset] of acked) {
      const end = positionOf(offset);
      const stored = text.slice(end - body.length, end);
      expect(stored === body, `${body.slice(0, 20)} at ${end}`).toBe(true);
    }
    const tokens = text.split(/(?<=>)/);
    expect(new Set(tokens).size, "nothing is there twice").toBe(tokens.length);
    for (const token of tokens) {
      expect(acked.has(token) || unknown.has(token), token.slice(0, 20)).toBe(true);
      expect(refused.has(token)).toBe(false);
    }
  }
});

test("creations, closes and deletions", { timeout: 120_000 }, async () => {
  const random = seeded(42);
  let running = true;
  // What is known of each path after the last answer: a state, or several that are possible.
  const paths = Array.from({ length: 12 }, () => ({
    url: freshStream("crashes", host.url),
    possible: new Set(["absent"]),
  }));
  const STEPS = {
    create: [(url) => create(url, { type: TEXT, body: "body" }), { absent: "open" }],
    close: [(url) => close(url), { open: "closed" }],
    delete: [(url) => remove(url), { open: "absent", closed: "absent" }],
  };
  const stateOf = async (url) => {
    const response = await attempt(() => head(url));
    if (response === undefined) return undefined;
    if (response.status === 404) return "absent";
    return response.headers.get("stream-closed") === "true" ? "closed" : "open";
  };
  let steps = 0;
  const work = async (path) => {
    while (running) {
      const names = Object.keys(STEPS);
      const [request, effects] = STEPS[names[Math.floor(random() * names.length)]];
      const before = [...path.possible];
      const after = new Set(before.map((state) => effects[state] ?? state));
      const response = await attempt(() => request(path.url));
      // Without an answer, both are possible.
      path.possible = response === undefined ? new Set([...before, ...after]) : after;
      const state = await stateOf(path.url);
      if (state === undefined) continue;
      expect([...path.possible]).toContain(state);
      path.possible = new Set([state]);
      steps += 1;
    }
  };
  const workers = paths.map(work);
  await crashRepeatedly(random);
  running = false;
  await Promise.all(workers);
  expect(steps, "something was tried between the crashes").toBeGreaterThan(20);
  for (const { url, possible } of paths) {
    const state = await stateOf(url);
    expect([...possible]).toContain(state);
    if (state === "absent") continue;
    expect((await readBytes(url)).toString()).toBe("body");
    if (state === "closed") {
      await expectError(await append(url, "x", { type: TEXT }), 409, "STREAM_CLOSED");
    }
  }
});

test("deletion of a large stream", { timeout: 60_000 }, async () => {
  const url = freshStream("crashes", host.url);
  await created(url, { type: TEXT });
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let n = 0; n < 40; n += 1) await append(url, "x".repeat(70_000), { type: TEXT });
    }),
  );
  const earlier = await tail(url);
  expect(positionOf(earlier)).toBe(16 * 40 * 70_000);
  expect((await remove(url)).status).toBe(204);
  // The rows are erased in steps; the host dies in between.
  await host.restart();
  expect((await head(url)).status).toBe(404);
  await created(url, { type: TEXT, body: "new" });
  await host.restart();
  expect((await readBytes(url)).toString()).toBe("new");
  await sleep(1000);
  expect((await readBytes(url)).toString()).toBe("new");
  await expectError(await read(url, earlier), 400, "STALE_OFFSET");
});

test("lifetimes", { timeout: 60_000 }, async () => {
  const sliding = freshStream("crashes", host.url);
  const fixed = freshStream("crashes", host.url);
  const long = freshStream("crashes", host.url);
  await created(sliding, { type: TEXT, body: "x", "stream-ttl": "9" });
  const end = new Date(Date.now() + 11_000).toISOString();
  await created(fixed, { type: TEXT, body: "x", "stream-expires-at": end });
  await created(long, { type: TEXT, body: "x", "stream-ttl": "3600" });
  const at = (await head(fixed)).headers.get("stream-expires-at");
  await sleep(1500);
  expect((await readBytes(sliding)).toString()).toBe("x");
  await host.restart();
  expect((await head(sliding)).headers.get("stream-ttl")).toBe("9");
  expect((await head(fixed)).headers.get("stream-expires-at")).toBe(at);
  expect((await head(long)).headers.get("stream-ttl")).toBe("3600");
  for (const url of [sliding, fixed]) {
    await eventually(async () => (await head(url)).status, (status) => status === 404, 15_000);
  }
  expect((await head(long)).status).toBe(200);
});

test("readers come back with their offset", { timeout: 60_000 }, async () => {
  const url = freshStream("crashes", host.url);
  await created(url, { type: TEXT });
  const acked = [];
  let text = "";
  let offset = "-1";
  for (let crash = 0; crash < 3; crash += 1) {
    const reader = await EventReader.open(url, offset);
    for (let n = 0; n < 20; n += 1) {
      const body = `${crash}.${n};`;
      if ((await append(url, body, { type: TEXT })).status === 204) acked.push(body);
    }
    const end = await tail(url);
    await reader.until(({ offset: at }) => at === end, "the appends");
    text += reader.text;
    offset = reader.offset;
    reader.close();
    await host.restart();
  }
  expect(text).toBe(acked.join(""));
});
