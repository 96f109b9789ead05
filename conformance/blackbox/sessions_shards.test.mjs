// Sources with more subscribers than one object serves, or than a publisher waits for; the queue,
// and none; bytes that lie in the object store.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  created,
  eventually,
  expectError,
  expectSameBytes,
  freshStream,
  readMessages,
  remove,
  seeded,
} from "./client.mjs";
import { COLD, KINDS, cooled, each, randomStream, wireOf } from "./cold.mjs";
import { Host } from "./host.mjs";
import {
  bodyOf,
  bytesOf,
  createdSession,
  deleteSession,
  expectMerged,
  freshSession,
  hasMessages,
  inbox,
  published,
  showSession,
  source,
  subscribe,
  subscribeBatch,
  subscribed,
  subscriptionsOf,
  unsubscribed,
} from "./sessions.mjs";

let host;
function hostWith(vars, options) {
  beforeAll(async () => {
    host = await Host.start(vars, options);
  });
  afterAll(() => host.stop());
}

async function sessionsOn(url, count) {
  const sessions = Array.from({ length: count }, () => freshSession());
  await each(sessions, (session) => subscribed(session, url), 6);
  return sessions;
}

/** Publishes a few messages; each tells of so many subscribers. */
async function publishSome(url, count, least, mode) {
  for (let n = 0; n < 5; n += 1) {
    const told = await published(url, JSON.stringify({ s: "a", n }));
    expect(told.count).toBe(count);
    expect(told.mode).toBe(mode);
    expect(told.failures).toBe(0);
    expect(told.successes).toBeGreaterThanOrEqual(least);
  }
}

const all = (sessions, url) =>
  each(sessions, (session) => expectMerged(session, { a: url }, { server: host.url }));

describe("shards of three subscribers", () => {
  hostWith({ SHARD_MEMBERS_MAX: "3", FANOUT_INLINE_MAX: "3" });

  test("serve any number of sessions, which come and go", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 3);
    await publishSome(url, 3, 3, "inline");
    sessions.push(...(await sessionsOn(url, 11)));
    await publishSome(url, 14, 0, "queued");
    // Who came late has the messages from then on.
    const early = sessions.slice(0, 3);
    await all(early, url);
    const late = (await readMessages(url)).slice(5);
    await each(sessions.slice(3), (session) => hasMessages(session, late, { server: host.url }));
    // Some leave, in every shard, and others take their places.
    await each(sessions.filter((_, n) => n % 2 === 1), (session) => unsubscribed(session, url));
    await publishSome(url, 7, 0, "queued");
    const again = sessions.filter((_, n) => n % 2 === 1);
    await each(again, (session) => subscribed(session, url, { from: "-1" }));
    await publishSome(url, 14, 0, "queued");
    await all(sessions.filter((_, n) => n === 0 || n === 2), url);
    const whole = await readMessages(url);
    await each(again, async (session) => {
      const ends = async () => (await inbox(session, host.url)).slice(-whole.length);
      await eventually(ends, (end) => JSON.stringify(end) === JSON.stringify(whole), 20_000);
    });
  });

  test("all get the rest of a source that is deleted", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 10);
    for (let n = 0; n < 10; n += 1) await appended(url, JSON.stringify({ s: "a", n }));
    const messages = await readMessages(url);
    expect((await remove(url)).status).toBe(204);
    await created(url, { type: JSON_TYPE });
    await each(sessions, (session) => hasMessages(session, messages, { server: host.url }));
    for (const session of sessions) {
      const left = () => subscriptionsOf(session, host.url);
      await eventually(left, (sources) => sources.length === 0, 20_000);
    }
    expect((await published(url, "1")).count).toBe(0);
  });

  test("forget sessions that are deleted", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 8);
    await each(sessions, (session) => deleteSession(session, host.url));
    const count = async () => (await published(url, "1")).count;
    await eventually(count, (left) => left === 0, 20_000);
    const after = await sessionsOn(url, 4);
    const told = await published(url, "2");
    expect(told.count).toBe(4);
    await each(after, (session) => hasMessages(session, [2], { server: host.url }));
  });
});

describe("two shards of two subscribers and no more", () => {
  hostWith({ SHARD_MEMBERS_MAX: "2", SHARDS_MAX: "2", SESSION_SUBSCRIPTIONS_MAX: "3" });

  test("refuse the fifth, until one leaves", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 4);
    const fifth = freshSession();
    await expectError(await subscribe(fifth, url), 409, "TOO_MANY_SUBSCRIBERS");
    await expectError(await showSession(fifth, host.url), 404, "SESSION_NOT_FOUND");
    await subscribed(sessions[3], url);
    await unsubscribed(sessions[1], url);
    await subscribed(fifth, url);
    await expectError(await subscribe(sessions[1], url), 409, "TOO_MANY_SUBSCRIBERS");
    expect((await published(url, "1")).count).toBe(4);
    for (const session of [sessions[0], sessions[2], sessions[3], fifth]) {
      await hasMessages(session, [1], { server: host.url });
    }
    expect(await inbox(sessions[1], host.url)).toEqual([]);
  });

  test("a session has three subscriptions and no more", async () => {
    const urls = [];
    for (let n = 0; n < 5; n += 1) urls.push(await source({ server: host.url }));
    const session = freshSession();
    const batch = await bodyOf(await subscribeBatch(session, urls, {}, host.url));
    const taken = batch.results.map(({ subscribed }) => subscribed);
    expect(taken).toEqual([true, true, true, false, false]);
    expect(batch.results[4].error).toMatchObject({
      code: "TOO_MANY_SUBSCRIPTIONS",
      details: { max: 3 },
    });
    const full = await subscribe(session, urls[3]);
    const error = await expectError(full, 409, "TOO_MANY_SUBSCRIPTIONS");
    expect(error.details).toEqual({ max: 3 });
    await subscribed(session, urls[0]);
    await unsubscribed(session, urls[1]);
    await subscribed(session, urls[4]);
    for (const url of urls) await published(url, JSON.stringify(urls.indexOf(url)));
    await hasMessages(session, [0, 2, 4], { server: host.url });
  });
});

describe("more subscribers than a publisher waits for", () => {
  hostWith({ FANOUT_INLINE_MAX: "2" });

  test("get it through the queue", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 2);
    await publishSome(url, 2, 2, "inline");
    sessions.push(...(await sessionsOn(url, 6)));
    await publishSome(url, 8, 0, "queued");
    await all(sessions.slice(0, 2), url);
    const late = (await readMessages(url)).slice(5);
    await each(sessions.slice(2), (session) => hasMessages(session, late, { server: host.url }));
  });

  test("get bursts of several publishers in order", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 12);
    const publishing = async (by) => {
      for (let n = 0; n < 40; n += 1) await published(url, JSON.stringify({ s: "a", by, n }));
    };
    await Promise.all([0, 1, 2, 3, 4].map(publishing));
    await all(sessions, url);
  });
});

describe("without a queue", () => {
  hostWith({ FANOUT_INLINE_MAX: "2" }, { without: ["FANOUT"] });

  test("publishes succeed, and the alarm delivers", async () => {
    const url = await source({ server: host.url });
    const sessions = await sessionsOn(url, 6);
    await publishSome(url, 6, 0, "deferred");
    for (let n = 0; n < 5; n += 1) await appended(url, JSON.stringify({ s: "a", plain: n }));
    await all(sessions, url);
  });
});

describe("sources whose bytes lie in the object store", () => {
  hostWith({ ...COLD, READ_CHUNK_BYTES: "1000" });

  for (const [name, kind] of Object.entries(KINDS)) {
    test(`${name}: the backlog arrives whole, and what comes after it`, async () => {
      const random = seeded(5);
      const { url, whole, offsets } = await randomStream(host, kind, random, 60);
      await cooled(host, url, offsets.at(-1));
      const froms = ["-1", offsets[7], offsets[40], offsets.at(-1)];
      const sessions = froms.map((from) => ({ from, id: freshSession() }));
      for (const { id, from } of sessions) await subscribed(id, url, { from });
      const more = Array.from({ length: 5 }, () => kind.body(random));
      for (const body of more) await published(url, body, { type: kind.type });
      const end = Buffer.concat([whole, ...more.map((body) => kind.wire(body))]);
      const [first] = offsets;
      for (const { id, from } of sessions) {
        const start = from === "-1" ? 0 : Number(from.split("_")[1]) - Number(first.split("_")[1]);
        const expected = end.subarray(start);
        const got = async () =>
          kind.type === JSON_TYPE ? wireOf(await inbox(id, host.url)) : bytesOf(id, host.url);
        const bytes = await eventually(got, ({ length }) => length >= expected.length, 20_000);
        expectSameBytes(bytes, Buffer.from(expected));
      }
    });
  }

  test("a source that is deleted while its bytes are cold", async () => {
    const url = freshStream("source", host.url);
    await created(url, { type: BINARY_TYPE });
    const session = freshSession();
    await createdSession(session, { contentType: BINARY_TYPE }, host.url);
    const parts = Array.from({ length: 30 }, (_, n) => Buffer.from(`<${n}>`.padEnd(100, ".")));
    let offset;
    for (const part of parts) offset = await appended(url, part, { type: BINARY_TYPE });
    await cooled(host, url, offset);
    await subscribed(session, url, { from: "-1" });
    expect((await remove(url)).status).toBe(204);
    const expected = Buffer.concat(parts);
    const got = () => bytesOf(session, host.url);
    const bytes = await eventually(got, ({ length }) => length >= expected.length, 20_000);
    expectSameBytes(bytes, expected);
  });
});
