// Lives: sources and sessions that end and begin again, and hosts that are restarted. A session has
// all of the life that it subscribed to, and nothing of another.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  appended,
  created,
  eventually,
  expectError,
  freshStream,
  generationOf,
  head,
  readMessages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { each } from "./cold.mjs";
import { Host } from "./host.mjs";
import {
  bodyOf,
  createdSession,
  deleteSession,
  expectMerged,
  freshSession,
  hasMessages,
  inbox,
  pathOf,
  publish,
  published,
  publishedTo,
  sessionOn,
  showSession,
  source,
  streamOf,
  subscribe,
  subscribed,
  subscriptionsOf,
} from "./sessions.mjs";

const json = { type: JSON_TYPE };
/** Waits until a session is subscribed to nothing. */
const freed = (session, server) =>
  eventually(() => subscriptionsOf(session, server), (left) => left.length === 0, 10_000);

describe("a source that is deleted", () => {
  test("and created again has no subscribers until they subscribe again", async () => {
    const url = await source();
    const session = await sessionOn(url);
    const expected = [];
    for (let life = 0; life < 5; life += 1) {
      for (let n = 0; n < 3; n += 1) {
        await publishedTo(1, url, JSON.stringify({ life, n }));
        expected.push({ life, n });
      }
      expect((await remove(url)).status).toBe(204);
      expect((await head(url)).status).toBe(404);
      await expectError(await publish(url, "1"), 404, "STREAM_NOT_FOUND");
      await created(url, json);
      await publishedTo(0, url, JSON.stringify({ life, n: "nobody's" }));
      await hasMessages(session, expected);
      expect((await subscribed(session, url)).isNewSession).toBe(false);
    }
    await publishedTo(1, url, '"last"');
    await hasMessages(session, [...expected, "last"]);
    expect(await subscriptionsOf(session)).toEqual([pathOf(url)]);
  });

  test("right after appends that nobody waited for", async () => {
    const url = await source();
    const sessions = [await sessionOn(url), await sessionOn(url), await sessionOn(url)];
    const expected = Array.from({ length: 40 }, (_, n) => n);
    const appends = expected.map((n) => append(url, String(n)));
    await Promise.all(appends);
    const all = await readMessages(url);
    expect((await remove(url)).status).toBe(204);
    await created(url, json);
    await appended(url, '"new"');
    await each(sessions, (session) => hasMessages(session, all));
    for (const session of sessions) await freed(session);
    await each(sessions, (session) => hasMessages(session, all));
  });

  test("while a subscriber still gets its backlog", async () => {
    const url = await source();
    const pad = "x".repeat(20_000);
    const expected = Array.from({ length: 200 }, (_, n) => ({ n, pad }));
    for (let n = 0; n < 200; n += 20) {
      await appended(url, JSON.stringify(expected.slice(n, n + 20)));
    }
    const session = freshSession();
    await subscribed(session, url, { from: "-1" });
    expect((await remove(url)).status).toBe(204);
    await expectError(await subscribe(freshSession(), url), 404, "STREAM_NOT_FOUND");
    await hasMessages(session, expected);
    await freed(session);
    expect(await subscriptionsOf(session)).toEqual([]);
  });

  test("offsets of an earlier life are none to subscribe from", async () => {
    const url = await source();
    const offset = await appended(url, "1");
    await remove(url);
    const start = await created(url, json);
    expect(generationOf(start)).toBeGreaterThan(generationOf(offset));
    const stale = await subscribe(freshSession(), url, { from: offset });
    await expectError(stale, 400, "STALE_OFFSET");
    const session = freshSession();
    await subscribed(session, url, { from: start });
    await publishedTo(1, url, "2");
    await hasMessages(session, [2]);
  });

  test("and its forks keep their own subscribers", async () => {
    const url = await source();
    await appended(url, "0");
    const fork = freshStream("source");
    await created(fork, { "stream-forked-from": new URL(url).pathname });
    const [ofSource, ofFork] = [await sessionOn(url), await sessionOn(fork)];
    await publishedTo(1, url, "1");
    await publishedTo(1, fork, "2");
    expect((await remove(url)).status).toBe(204);
    await expectError(await publish(url, "3"), 410, "STREAM_GONE");
    await expectError(await subscribe(ofFork, url), 410, "STREAM_GONE");
    await publishedTo(1, fork, "4");
    await hasMessages(ofSource, [1]);
    await hasMessages(ofFork, [2, 4]);
    await freed(ofSource);
  });
});

test("a source that expires: everything of it arrives, and the subscription is over", async () => {
  const url = await source({ "stream-ttl": "1" });
  const session = await sessionOn(url);
  await publishedTo(1, url, "1");
  await appended(url, "2");
  await eventually(async () => (await head(url)).status, (status) => status === 404, 5000);
  await hasMessages(session, [1, 2]);
  await freed(session);
  await created(url, json);
  await publishedTo(0, url, "3");
  await hasMessages(session, [1, 2]);
});

describe("a session that is deleted", () => {
  test("and created again begins from nothing", async () => {
    const url = await source();
    const session = freshSession();
    const offsets = [];
    for (let life = 0; life < 6; life += 1) {
      const { isNewSession } = await subscribed(session, url);
      expect(isNewSession).toBe(true);
      await publishedTo(1, url, JSON.stringify(life));
      await hasMessages(session, [life]);
      offsets.push(await tail(streamOf(session)));
      expect((await deleteSession(session)).status).toBe(204);
      await publishedTo(0, url, '"nobody\'s"');
    }
    expect(offsets.map(generationOf)).toEqual(
      [...new Set(offsets.map(generationOf))].sort((a, b) => a - b),
    );
    const other = { contentType: "text/plain", ttlSeconds: 9 };
    const { subscriptions } = await createdSession(session, other);
    expect(subscriptions).toEqual([]);
    await publishedTo(0, url, '"nobody\'s"');
  });

  test("and created while others publish: each life has a run of the source", async () => {
    const url = await source();
    const session = freshSession();
    let running = true;
    const publishing = async (by) => {
      for (let n = 0; running; n += 1) await published(url, JSON.stringify({ by, n }));
    };
    const publishers = [publishing(0), publishing(1)];
    const lives = [];
    for (let life = 0; life < 8; life += 1) {
      await subscribed(session, url);
      await published(url, JSON.stringify({ life }));
      lives.push(await inbox(session));
      expect((await deleteSession(session)).status).toBe(204);
    }
    running = false;
    await Promise.all(publishers);
    const all = (await readMessages(url)).map((message) => JSON.stringify(message));
    for (const [life, messages] of lives.entries()) {
      const got = messages.map((message) => JSON.stringify(message));
      expect(got).toContain(JSON.stringify({ life }));
      const begin = all.indexOf(got[0]);
      expect(got).toEqual(all.slice(begin, begin + got.length));
    }
    await publishedTo(0, url, "0");
  });
});

test("subscriptions, deletions and publishes in any order", async () => {
  const random = seeded(11);
  const urls = { a: await source(), b: await source(), c: await source() };
  const names = Object.keys(urls);
  const sessions = Array.from({ length: 8 }, () => freshSession());
  const pick = (list) => list[Math.floor(random() * list.length)];
  let count = 0;
  const work = async () => {
    for (let step = 0; step < 40; step += 1) {
      const s = pick(names);
      const session = pick(sessions);
      const dice = random();
      if (dice < 0.5) await publish(urls[s], JSON.stringify({ s, n: (count += 1) }));
      else if (dice < 0.75) await subscribe(session, urls[s]);
      else if (dice < 0.85) await deleteSession(session);
      else await showSession(session);
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  // Whatever happened: from now on everybody who is subscribed gets everything.
  await each(sessions, (session) => deleteSession(session));
  await each(sessions, async (session) => {
    for (const name of names) await subscribed(session, urls[name]);
  });
  const starts = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, (await readMessages(urls[name])).length])),
  );
  for (const s of names) {
    for (let n = 0; n < 10; n += 1) {
      await publishedTo(sessions.length, urls[s], JSON.stringify({ s, last: n }));
    }
  }
  for (const session of sessions) {
    const got = await inbox(session);
    for (const name of names) {
      const expected = (await readMessages(urls[name])).slice(starts[name]);
      expect(got.filter(({ s }) => s === name)).toEqual(expected);
    }
    expect(got).toHaveLength(30);
  }
});

describe("a restart of the host", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start();
  });
  afterAll(() => host.stop());

  test("changes nothing for sessions and subscriptions", async () => {
    const server = host.url;
    const urls = { a: await source({ server }), b: await source({ server }) };
    const sessions = Array.from({ length: 5 }, () => freshSession());
    await each(sessions, async (session) => {
      await createdSession(session, { ttlSeconds: 3600 }, server);
      for (const url of Object.values(urls)) await subscribed(session, url);
    });
    for (let restart = 0; restart < 3; restart += 1) {
      for (const s of ["a", "b"]) await publishedTo(5, urls[s], JSON.stringify({ s, restart }));
      await host.restart();
    }
    for (const s of ["a", "b"]) await publishedTo(5, urls[s], JSON.stringify({ s, end: true }));
    await each(sessions, (session) => expectMerged(session, urls, { server }));
    const shown = await bodyOf(await showSession(sessions[0], server));
    expect(shown.ttlSeconds).toBe(3600);
    expect(shown.subscriptions).toHaveLength(2);
    expect((await deleteSession(sessions[0], server)).status).toBe(204);
    await host.restart();
    await publishedTo(4, urls.a, JSON.stringify({ s: "a", end: 2 }));
    expect((await showSession(sessions[0], server)).status).toBe(404);
  });

  test("in the middle of a burst loses and repeats nothing", { timeout: 120_000 }, async () => {
    const server = host.url;
    const url = await source({ server });
    const sessions = Array.from({ length: 10 }, () => freshSession());
    await each(sessions, (session) => subscribed(session, url));
    let sent = 0;
    let running = true;
    const publishing = async (by) => {
      for (let n = 0; running; n += 1) {
        const body = JSON.stringify({ s: "a", by, n });
        // Without an answer, it may be there or not; the source says which.
        const answer = await publish(url, body).catch(() => sleep(50));
        if (answer?.ok) sent += 1;
      }
    };
    const publishers = [publishing(0), publishing(1), publishing(2)];
    for (let kill = 0; kill < 3; kill += 1) {
      const before = sent;
      await eventually(async () => sent - before, (count) => count >= 15, 20_000);
      await host.restart();
    }
    await sleep(200);
    running = false;
    await Promise.all(publishers);
    await each(sessions, (session) =>
      expectMerged(session, { a: url }, { server, timeoutMs: 60_000 }),
    );
  });
});
