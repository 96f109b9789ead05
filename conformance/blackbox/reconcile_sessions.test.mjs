// Subscribers compared with their sessions: whatever comes and goes, nobody is left behind.
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  SERVER,
  append,
  ask,
  created,
  eventually,
  expectError,
  freshStream,
  remove,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { freshSession, subscribe } from "./session_errors.mjs";

const PAGE_MAX = 100;

const rootOf = (url) => url.split(/\/(stream|session)\//)[0];
const pathOf = (url) => url.split("/stream/")[1];
const idOf = (session) => session.split("/session/")[1];

function ofSource(url, query = {}) {
  const parameters = new URLSearchParams({ source: pathOf(url), ...query });
  return ask(`${rootOf(url)}/reconcile?${parameters}`);
}

/** All pages of a source's subscribers. */
async function walk(url) {
  const [subscribers, missing, sizes] = [[], [], []];
  let after = {};
  do {
    const response = await ofSource(url, after);
    const text = await response.text();
    expect(response.status, text).toBe(200);
    expect(response.headers.get("content-type")).toBe(JSON_TYPE);
    expect(response.headers.get("cache-control")).toBe("no-store");
    const page = JSON.parse(text);
    expect(Object.keys(page)).toEqual(["subscribers", "missing", "next"]);
    subscribers.push(...page.subscribers);
    missing.push(...page.missing);
    sizes.push(page.subscribers.length);
    after = page.next === null ? null : { after: page.next };
  } while (after !== null);
  return { subscribers, missing, sizes };
}

/** All pages, on which nobody may be orphaned or missing; state by session. */
async function sound(url) {
  const { subscribers, missing } = await walk(url);
  expect(missing).toEqual([]);
  expect(subscribers.filter(({ state }) => state === "orphaned")).toEqual([]);
  return new Map(subscribers.map(({ sessionId, state }) => [sessionId, state]));
}

/** Waits until exactly these sessions are left, all of them live. */
async function left(url, sessions) {
  const expected = new Map(sessions.map((session) => [idOf(session), "live"]));
  const sorted = (map) => JSON.stringify([...map].sort());
  const states = await eventually(
    () => sound(url),
    (states) => sorted(states) === sorted(expected),
    15_000,
  );
  expect(sorted(states)).toBe(sorted(expected));
}

async function subscribed(session, url) {
  const response = await subscribe(session, url);
  expect(response.status, await response.text()).toBe(200);
}

async function subscribers(url, count) {
  const sessions = Array.from({ length: count }, () => freshSession(new URL(url).origin));
  for (const session of sessions) await subscribed(session, url);
  return sessions;
}

async function unsubscribe(session, url) {
  const response = await ask(`${rootOf(url)}/unsubscribe`, {
    method: "DELETE",
    headers: { "content-type": JSON_TYPE },
    body: JSON.stringify({ sessionId: idOf(session), streamId: pathOf(url) }),
  });
  expect(response.status, await response.text()).toBe(200);
}

async function source(server = SERVER) {
  const url = freshStream("reconcile", server);
  await created(url, { type: JSON_TYPE });
  return url;
}

describe("of many shards", () => {
  let host;
  beforeAll(async () => (host = await Host.start({ SHARD_MEMBERS_MAX: "2" })));
  afterAll(() => host.stop());

  test("every subscriber is there once, in its shard", async () => {
    const url = await source(host.url);
    const sessions = await subscribers(url, 5);
    const { subscribers: found, missing, sizes } = await walk(url);
    expect(found.map(({ sessionId }) => sessionId).sort()).toEqual(sessions.map(idOf).sort());
    expect(found.map(({ shard, state }) => [shard, state])).toEqual(
      [0, 0, 1, 1, 2].map((shard) => [shard, "live"]),
    );
    for (const { epoch } of found) expect(epoch).toBeGreaterThan(Date.now() - 60_000);
    // Behind the shards comes the directory.
    expect({ missing, sizes }).toEqual({ missing: [], sizes: [2, 2, 1, 0] });
  });

  test("nobody is left behind by unsubscribes and deleted sessions", async () => {
    const url = await source(host.url);
    const [first, second, third, fourth, fifth, sixth] = await subscribers(url, 6);
    await unsubscribe(first, url);
    await unsubscribe(fourth, url);
    expect((await remove(fifth)).status).toBe(204);
    await sound(url);
    await left(url, [second, third, sixth]);
    await subscribed(fourth, url);
    expect((await append(url, "1")).status).toBe(204);
    await left(url, [second, third, fourth, sixth]);
  });

  test("nobody is left behind by a source that is deleted and made anew", async () => {
    const url = await source(host.url);
    const [first, second, third] = await subscribers(url, 3);
    expect((await append(url, "1")).status).toBe(204);
    expect((await remove(url)).status).toBe(204);
    await sound(url);
    await created(url, { type: JSON_TYPE });
    await subscribed(third, url);
    expect((await append(url, "2")).status).toBe(204);
    await left(url, [third]);
    await subscribed(first, url);
    await left(url, [first, third]);
    expect((await remove(second)).status).toBe(204);
    expect((await remove(url)).status).toBe(204);
    await left(url, []);
  });

  test("nobody looks orphaned while sessions come and go", async () => {
    const url = await source(host.url);
    const sessions = await subscribers(url, 6);
    const churn = sessions.map(async (session) => {
      for (let round = 0; round < 4; round += 1) {
        await unsubscribe(session, url);
        await subscribed(session, url);
      }
    });
    let isOver = false;
    const all = Promise.all(churn).finally(() => (isOver = true));
    while (!isOver) await sound(url);
    await all;
    await left(url, sessions);
  });

  test("sessions that forgot are told of, and objects that are broken", async () => {
    const url = await source(host.url);
    const sessions = await subscribers(url, 3);
    await host.restart();
    await left(url, sessions);
    for (const file of databases("SessionObject")) rmSync(file);
    await host.restart();
    const { subscribers: found, missing } = await walk(url);
    expect(found.map(({ state }) => state)).toEqual(["orphaned", "orphaned", "orphaned"]);
    expect(missing).toEqual([]);
    for (const file of databases("SubscriptionObject")) writeFileSync(file, "no database");
    await host.restart();
    await expectError(await ofSource(url), 503, "UNAVAILABLE");
  });

  /** The files of all objects of a class. */
  function databases(className) {
    const names = readdirSync(host.state, { recursive: true, withFileTypes: true });
    // The host's own file lies beside them.
    const isObject = (entry) => entry.isFile() && !entry.name.startsWith("metadata");
    const files = names.filter((entry) => isObject(entry) && entry.parentPath.endsWith(className));
    expect(files.length).toBeGreaterThan(0);
    return files.map(({ parentPath, name }) => join(parentPath, name));
  }
});

describe("of one", () => {
  test("a shard has pages", { timeout: 60_000 }, async () => {
    const url = await source();
    await subscribers(url, PAGE_MAX + 1);
    const { subscribers: found, sizes } = await walk(url);
    expect(sizes).toEqual([PAGE_MAX, 1]);
    expect(new Set(found.map(({ sessionId }) => sessionId)).size).toBe(PAGE_MAX + 1);
  });

  test("there may be nobody, or no stream", async () => {
    const none = { subscribers: [], missing: [], next: null };
    for (const url of [await source(), freshStream("reconcile")]) {
      expect(await (await ofSource(url)).json()).toEqual(none);
    }
  });
});

describe("a request", () => {
  const of = (query) => ask(`${SERVER}/v1/blackbox/reconcile?${query}`);

  test.each([
    ["an empty source", "source="],
    ["a source with an empty segment", "source=a//b"],
    ["the stream of a session", "source=session/x"],
    ["a reserved path", "source=__ds/x"],
    ["a source that is not UTF-8", "source=%ff"],
    ["two sources", "source=a&source=b"],
    ["an unreadable page", "source=a&after=x"],
    ["an empty page", "source=a&after="],
    ["a page in another spelling", "source=a&after=00"],
    ["a page of the object store", "source=a&after=blackbox/a//1/0.1"],
    ["two pages", "source=a&after=0&after=1"],
  ])("with %s is refused", async (_, query) => {
    await expectError(await of(query), 400, "INVALID_QUERY");
  });

  test("without a source is about the object store", async () => {
    const page = await (await of("limit=1")).json();
    expect(Object.keys(page)).toEqual(["objects", "missing", "next"]);
  });
});
