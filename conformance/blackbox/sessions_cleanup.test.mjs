// Who is slow, ends or cannot take anything: nothing is left behind, nobody else is held up, and
// what is lost for ever is told.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  appended,
  created,
  eventually,
  head,
  readMessages,
  remove,
  tail,
} from "./client.mjs";
import { TEXT_TYPE, each } from "./cold.mjs";
import { Host } from "./host.mjs";
import {
  bytesOf,
  createdSession,
  deleteSession,
  putSession,
  expectMerged,
  freshSession,
  hasMessages,
  inbox,
  pathOf,
  published,
  source,
  streamOf,
  subscribed,
  subscriptionsOf,
  unsubscribed,
  wrapped,
} from "./sessions.mjs";

const PATIENCE_MS = 45_000;
/** What a stream may hold of messages that are small, but not when they are wrapped. */
const SMALL = { STREAM_BYTES_MAX: "4000" };
const ROOMY = { STREAM_BYTES_MAX: "8589934592" };
const COUNT = 60;

async function wrappingSession(url, server) {
  const session = freshSession();
  await createdSession(session, { envelope: true }, server);
  await subscribed(session, url);
  return session;
}

/** Publishes messages until one session is full; the offset after each. */
async function fill(url) {
  const offsets = [];
  const told = [];
  for (let n = 0; n < COUNT; n += 1) {
    const { next, ...fanout } = await published(url, String(n));
    offsets.push(next);
    told.push(fanout);
  }
  return { offsets, told };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);

describe("a session that cannot take a delivery", { timeout: 120_000 }, () => {
  let host;
  afterEach(() => host?.stop());

  test("holds nobody up, and gets the rest when it can", async () => {
    host = await Host.start(SMALL);
    const server = host.url;
    const url = await source({ server });
    const full = await wrappingSession(url, server);
    const others = [freshSession(), freshSession()];
    for (const session of others) await subscribed(session, url);
    const { offsets, told } = await fill(url);
    for (const session of others) await hasMessages(session, numbers(COUNT), { server });
    expect(told.every(({ count }) => count === 3)).toBe(true);
    expect(told.some(({ failures }) => failures === 1)).toBe(true);
    expect(told.every(({ successes }) => successes >= 2)).toBe(true);
    const got = await inbox(full, server);
    expect(got.length).toBeGreaterThan(0);
    expect(got.length).toBeLessThan(COUNT);
    await host.restart(ROOMY);
    const expected = offsets.map((offset, n) => JSON.parse(wrapped(url, offset, n)));
    await hasMessages(full, expected, { server, timeoutMs: PATIENCE_MS });
  });

  test("gets the rest of a source that was deleted meanwhile", async () => {
    host = await Host.start(SMALL);
    const server = host.url;
    const url = await source({ server });
    const full = await wrappingSession(url, server);
    const { offsets } = await fill(url);
    const expected = offsets.map((offset, n) => JSON.parse(wrapped(url, offset, n)));
    expect((await inbox(full, server)).length).toBeLessThan(COUNT);
    expect((await remove(url)).status).toBe(204);
    expect((await head(url)).status).toBe(404);
    // The path is free at once, and what is there now is another stream.
    await created(url, { type: JSON_TYPE });
    expect((await published(url, '"new"')).count).toBe(0);
    await host.restart(ROOMY);
    await hasMessages(full, expected, { server, timeoutMs: PATIENCE_MS });
    await eventually(() => subscriptionsOf(full, server), (left) => left.length === 0, PATIENCE_MS);
    expect(await readMessages(url)).toEqual(["new"]);
  });

  test("is told of what was lost when the source was not kept any longer", async () => {
    host = await Host.start({ ...SMALL, FANOUT_HOLD_MAX_MS: "500" });
    const server = host.url;
    const url = await source({ server });
    const [full, fine] = [await wrappingSession(url, server), freshSession()];
    await subscribed(fine, url);
    const { offsets } = await fill(url);
    const got = (await inbox(full, server)).length;
    expect(got).toBeLessThan(COUNT);
    expect((await remove(url)).status).toBe(204);
    // Its bytes are erased while nobody can deliver them.
    await new Promise((done) => setTimeout(done, 2500));
    await host.restart(ROOMY);
    const at = offsets.map((offset, n) => JSON.parse(wrapped(url, offset, n))).slice(0, got);
    const [from, to] = [offsets[got - 1], offsets.at(-1)];
    const gap = { stream: pathOf(url), offset: to, gap: { from, to } };
    await hasMessages(full, [...at, gap], { server, timeoutMs: PATIENCE_MS });
    await hasMessages(fine, numbers(COUNT), { server });
    await eventually(() => subscriptionsOf(full, server), (left) => left.length === 0, PATIENCE_MS);
    await created(url, { type: JSON_TYPE });
    await subscribed(full, url);
    const { next } = await published(url, '"new"');
    const last = JSON.parse(wrapped(url, next, '"new"'));
    await hasMessages(full, [...at, gap, last], { server });
  });
});

describe("when most sessions cannot take a delivery", { timeout: 120_000 }, () => {
  let host;
  beforeAll(async () => {
    host = await Host.start(SMALL);
  });
  afterAll(() => host.stop());

  test("publishes go on, and everything arrives later", async () => {
    const server = host.url;
    const url = await source({ server });
    const sessions = [];
    for (let n = 0; n < 8; n += 1) sessions.push(await wrappingSession(url, server));
    const started = performance.now();
    const { offsets, told } = await fill(url);
    expect(performance.now() - started).toBeLessThan(20_000);
    expect(told.at(-1).mode).toBe("deferred");
    await host.restart(ROOMY);
    const expected = offsets.map((offset, n) => JSON.parse(wrapped(url, offset, n)));
    const options = { server, timeoutMs: PATIENCE_MS };
    await each(sessions, (session) => hasMessages(session, expected, options));
  });
});

describe("sessions that end", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start({ SESSION_TTL_SECONDS: "2" });
  });
  afterAll(() => host.stop());

  test("by their age: the deployment says when, and sources forget them", async () => {
    const server = host.url;
    const urls = { a: await source({ server }), b: await source({ server }) };
    const [left, kept] = [freshSession(), freshSession()];
    for (const session of [left, kept]) {
      for (const url of Object.values(urls)) await subscribed(session, url);
    }
    const reading = setInterval(() => head(streamOf(kept, server)), 300);
    const polling = setInterval(() => inbox(kept, server).catch(() => {}), 300);
    try {
      const count = async () => (await published(urls.a, JSON.stringify({ s: "a" }))).count;
      await eventually(count, (count) => count === 1, 10_000);
      expect((await head(streamOf(left, server))).status).toBe(404);
      await published(urls.b, JSON.stringify({ s: "b" }));
      await expectMerged(kept, urls, { server });
    } finally {
      clearInterval(reading);
      clearInterval(polling);
    }
    const counts = async () => (await published(urls.b, JSON.stringify({ s: "b" }))).count;
    await eventually(counts, (count) => count === 0, 15_000);
  });

  test("while they get a backlog: the source is rid of them", async () => {
    const server = host.url;
    const url = await source({ server });
    const batch = JSON.stringify(numbers(200).map((n) => ({ n, pad: "x".repeat(1000) })));
    for (let n = 0; n < 20; n += 1) await appended(url, batch);
    const sessions = numbers(6).map(() => freshSession());
    await each(sessions, async (session) => {
      // The deployment's two seconds are less than a backlog may take.
      expect((await putSession(session, { ttlSeconds: 600 }, server)).status).toBe(201);
      await subscribed(session, url, { from: "-1" });
    });
    await each(sessions, async (session) => {
      // On a slow machine, some have ended by themselves.
      expect([204, 404]).toContain((await deleteSession(session, server)).status);
    });
    const count = async () => (await published(url, "0")).count;
    await eventually(count, (left) => left === 0, 15_000);
    for (const session of sessions) {
      expect((await head(streamOf(session, server))).status).toBe(404);
    }
    expect((await remove(url)).status).toBe(204);
    await created(url, { type: JSON_TYPE });
    expect(await readMessages(url)).toEqual([]);
  });
});

test("text sessions have no way to be told of a gap", { timeout: 120_000 }, async () => {
  const host = await Host.start({ STREAM_BYTES_MAX: "3000", FANOUT_HOLD_MAX_MS: "500" });
  try {
    const server = host.url;
    const urls = [];
    for (let n = 0; n < 2; n += 1) urls.push(await source({ server, type: TEXT_TYPE }));
    const session = freshSession();
    for (const url of urls) await subscribed(session, url);
    const type = TEXT_TYPE;
    const sent = [];
    for (let n = 0; n < 16; n += 1) {
      sent.push(`${n % 2}:${n};`.padEnd(280, "."));
      await published(urls[n % 2], sent.at(-1), { type });
    }
    const got = (await bytesOf(session, server)).toString();
    expect(got.length).toBeLessThan(sent.join("").length);
    for (const url of urls) expect((await remove(url)).status).toBe(204);
    await new Promise((done) => setTimeout(done, 2500));
    await host.restart(ROOMY);
    const left = () => subscriptionsOf(session, server);
    await eventually(left, (sources) => sources.length === 0, PATIENCE_MS);
    expect((await bytesOf(session, server)).toString()).toBe(got);
    const url = await source({ server, type });
    await subscribed(session, url);
    await published(url, "on", { type });
    const after = async () => (await bytesOf(session, server)).toString();
    await eventually(after, (text) => text === `${got}on`, 10_000);
    await unsubscribed(session, url);
    expect(await tail(url)).toBeTruthy();
  } finally {
    await host.stop();
  }
});
