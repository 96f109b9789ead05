// What is appended to a source reaches every session: each message once, in order, however it was
// appended and however it is read.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  append,
  appended,
  close,
  created,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  nextOffset,
  positionOf,
  producer,
  randomBuffer,
  read,
  readBytes,
  readMessages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { TEXT_TYPE, each } from "./cold.mjs";
import { EventReader } from "./event_reader.mjs";
import { Poller } from "./readers.mjs";
import {
  bodyOf,
  bytesOf,
  createdSession,
  expectMerged,
  fanoutOf,
  freshSession,
  hasMessages,
  inbox,
  pathOf,
  publish,
  publishUrl,
  published,
  publishedTo,
  sendJson,
  sessionOn,
  source,
  streamOf,
  subscribe,
  subscribed,
  subscriptionsOf,
  unsubscribed,
  wrapped,
} from "./sessions.mjs";
import { SocketReader, base64 } from "./ws_client.mjs";

describe("a publish", () => {
  test("is an append, and tells of its fan-out", async () => {
    const url = await source();
    const { next, ...none } = await published(url, "[1]");
    expect(none).toEqual({ count: 0, successes: 0, failures: 0, mode: "inline" });
    expect(next).toBe(await tail(url));
    const sessions = [await sessionOn(url), await sessionOn(url)];
    const response = await publish(url, '[2, {"a": [3]}]');
    expect(response.status).toBe(204);
    expect(nextOffset(response)).toBe(await tail(url));
    expect(fanoutOf(response)).toEqual({ count: 2, successes: 2, failures: 0, mode: "inline" });
    const exposed = response.headers.get("access-control-expose-headers");
    for (const name of ["count", "successes", "failures", "mode"]) {
      expect(exposed).toContain(`stream-fanout-${name}`);
    }
    for (const session of sessions) expect(await inbox(session)).toEqual([2, { a: [3] }]);
    expect(await readMessages(url)).toEqual([1, 2, { a: [3] }]);
  });

  test("may close the stream, and a closed stream keeps its subscribers", async () => {
    const url = await source();
    const session = await sessionOn(url);
    const response = await publish(url, "1", { "stream-closed": "true" });
    expect(response.status).toBe(204);
    expect(response.headers.get("stream-closed")).toBe("true");
    expect(fanoutOf(response).count).toBe(1);
    await hasMessages(session, [1]);
    const late = await publish(url, "2");
    await expectError(late, 409, "STREAM_CLOSED");
    expect(fanoutOf(late)).toBeUndefined();
    // Whoever comes late gets what there is.
    const other = freshSession();
    await subscribed(other, url, { from: "-1" });
    await hasMessages(other, [1]);
    expect((await head(streamOf(session))).headers.get("stream-closed")).toBeNull();
    expect(await subscriptionsOf(session)).toEqual([pathOf(url)]);
  });

  test("that only closes tells of a fan-out without a message", async () => {
    const url = await source();
    const session = await sessionOn(url);
    const response = await publish(url, undefined, { type: null, "stream-closed": "true" });
    expect(response.status).toBe(204);
    expect(fanoutOf(response)).toBeDefined();
    await hasMessages(session, []);
  });

  test("of a producer is stored and delivered once", async () => {
    const url = await source();
    const session = await sessionOn(url);
    const first = await publish(url, '["a"]', producer("p", 1, 0));
    expect(first.status).toBe(200);
    const duplicate = await publish(url, '["a"]', producer("p", 1, 0));
    expect(duplicate.status).toBe(204);
    expect(duplicate.headers.get("producer-seq")).toBe("0");
    expect((await publish(url, '["b"]', producer("p", 1, 1))).status).toBe(200);
    const offset = await tail(url);
    const stale = await publish(url, '["x"]', producer("p", 0, 2));
    await expectError(stale, 403, "STALE_EPOCH");
    expect(stale.headers.get("producer-epoch")).toBe("1");
    const gap = await publish(url, '["x"]', producer("p", 1, 4));
    await expectError(gap, 409, "PRODUCER_GAP");
    expect(gap.headers.get("producer-expected-seq")).toBe("2");
    expect(gap.headers.get("producer-received-seq")).toBe("4");
    for (const refused of [stale, gap]) expect(fanoutOf(refused)).toBeUndefined();
    expect(await tail(url)).toBe(offset);
    expect((await publish(url, '["c"]', producer("p", 1, 2))).status).toBe(200);
    await hasMessages(session, ["a", "b", "c"]);
  });

  test("and a POST and a socket are one and the same to subscribers", async () => {
    const url = await source();
    const session = await sessionOn(url);
    const socket = await SocketReader.open(url, "now");
    const expected = [];
    for (let n = 0; n < 30; n += 1) {
      expected.push(n);
      if (n % 3 === 0) await publishedTo(1, url, String(n));
      else if (n % 3 === 1) await appended(url, String(n));
      else await socket.acked({ payload: n });
    }
    await hasMessages(session, expected);
    await socket.close();
  });
});

describe("content types", () => {
  test("text and bytes arrive as they were appended", async () => {
    const random = seeded(7);
    for (const type of [TEXT_TYPE, BINARY_TYPE]) {
      const url = await source({ type });
      const session = await sessionOn(url);
      const parts = [];
      for (let n = 0; n < 10; n += 1) {
        parts.push(type === TEXT_TYPE ? Buffer.from(`é${n}\r\n`) : randomBuffer(100 + n, random));
        await publishedTo(1, url, parts.at(-1), { type });
      }
      expectSameBytes(await bytesOf(session), Buffer.concat(parts));
      expect((await head(streamOf(session))).headers.get("content-type")).toBe(type);
    }
  });

  test("have to be the session's, parameters aside", async () => {
    const session = freshSession();
    await createdSession(session);
    const text = await source({ type: TEXT_TYPE });
    const error = await expectError(await subscribe(session, text), 409, "CONTENT_TYPE_MISMATCH");
    expect(error.details).toEqual({ session: JSON_TYPE, source: TEXT_TYPE });
    const json = await source({ type: "application/json; charset=utf-8" });
    await subscribed(session, json);
    await publishedTo(1, json, "1", { type: "application/json" });
    await hasMessages(session, [1]);
    // One that is yet to be made must fit, too.
    const unmade = freshSession();
    const misfit = await subscribe(unmade, text, { contentType: JSON_TYPE });
    await expectError(misfit, 409, "CONTENT_TYPE_MISMATCH");
    expect((await head(streamOf(unmade))).status).toBe(404);
    const named = "text/plain; charset=utf-8";
    expect((await subscribed(unmade, text, { contentType: named })).isNewSession).toBe(true);
    expect((await head(streamOf(unmade))).headers.get("content-type")).toBe(named);
  });

  test("a session with envelopes gets each message with its source and its offset", async () => {
    const [one, other] = [`${freshStream("source")}/a%22b%20%C3%A9`, await source()];
    await created(one, { type: JSON_TYPE });
    const session = freshSession();
    await createdSession(session, { envelope: true });
    for (const url of [one, other]) await subscribed(session, url);
    const start = await tail(one);
    const [generation] = start.split("_");
    const at = (position) => `${generation}_${String(position).padStart(16, "0")}`;
    // White space inside a message is the stream's own.
    await publishedTo(1, one, '[1, {"a": [2, 3]}]');
    const second = await publishedTo(1, other, '"x"');
    const third = await publishedTo(1, one, "[[]]");
    const stored = (await readBytes(one)).toString();
    const [first, object, array] = JSON.parse(stored);
    expect([first, object, array]).toEqual([1, { a: [2, 3] }, []]);
    const text = /\{"a".*?\}/.exec(stored)[0];
    const lines = [
      wrapped(one, at(3), "1"),
      wrapped(one, at(3 + text.length + 2), text),
      wrapped(other, second, '"x"'),
      wrapped(one, third, "[]"),
    ];
    const got = (await bytesOf(session)).toString();
    expect(got.replace(/\s*,\n\s*|\n/g, ",").replace(/^\[,?|,?\]$/g, "")).toBe(lines.join(","));
    // An offset of an envelope is one to read on from.
    const messages = await inbox(session);
    expect(await readMessages(one, messages[1].offset)).toEqual([[]]);
  });
});

describe("a session's stream", () => {
  const COUNT = 60;

  async function publishSome(urls) {
    for (let n = 0; n < COUNT; n += 1) await publishedTo(1, urls[n % urls.length], String(n));
  }

  test("is read by catch-up, long-poll, SSE and WebSocket alike", async () => {
    const urls = [await source(), await source()];
    const session = await sessionOn(...urls);
    const stream = streamOf(session);
    const poller = new Poller(stream, await tail(stream));
    const polling = poller.run();
    const events = await EventReader.open(stream, "-1");
    const socket = await SocketReader.open(stream, "-1");
    await publishSome(urls);
    const expected = [...Array(COUNT).keys()];
    await hasMessages(session, expected);
    const end = await tail(stream);
    await events.until(({ offset }) => offset === end, "all of them");
    expect(events.messages).toEqual(expected);
    await socket.untilAt(end);
    expect(socket.messages).toEqual(expected);
    await expect.poll(() => poller.offset, { timeout: 10_000 }).toBe(end);
    expect(poller.text.match(/\d+/g).map(Number)).toEqual(expected);
    poller.stop();
    await publishedTo(1, urls[0], "-1");
    await polling;
    events.close();
    await socket.close();
  });

  test("has offsets of its own, which can be resumed from", async () => {
    const url = await source();
    for (let n = 0; n < 10; n += 1) await appended(url, `"${"x".repeat(n)}"`);
    const session = await sessionOn(url);
    const stream = streamOf(session);
    const offsets = [await tail(stream)];
    expect(positionOf(offsets[0])).toBe(0);
    for (let n = 0; n < 20; n += 1) {
      await publishedTo(1, url, String(n));
      offsets.push(await tail(stream));
    }
    for (const [n, offset] of offsets.entries()) {
      expect(await readMessages(stream, offset)).toEqual([...Array(20).keys()].slice(n));
    }
    const page = await read(stream, offsets[5]);
    const again = await read(stream, offsets[5], { "if-none-match": page.headers.get("etag") });
    expect(again.status).toBe(304);
  });
});

describe("many at the same time", () => {
  test("publishers, sources and sessions: everybody gets all of theirs in order", async () => {
    const urls = Object.fromEntries(
      await Promise.all(["a", "b", "c", "d"].map(async (name) => [name, await source()])),
    );
    const names = Object.keys(urls);
    // Every choice of sources but none.
    const sessions = Array.from({ length: 15 }, (_, at) => ({
      id: freshSession(),
      names: names.filter((_, bit) => (at + 1) & (1 << bit)),
    }));
    await each(sessions, async ({ id, names }) => {
      for (const name of names) await subscribed(id, urls[name]);
    });
    const publishing = async (by) => {
      for (let n = 0; n < 25; n += 1) {
        const s = names[(by + n) % names.length];
        const batch = [{ s, by, n }, { s, by, n: n + 0.5 }];
        const body = JSON.stringify(batch.slice(0, 1 + (n % 2)));
        if (by % 3 === 0) await appended(urls[s], body);
        else await published(urls[s], body, by % 3 === 1 ? {} : producer(`${s}${by}`, 0, n >> 2));
      }
    };
    await Promise.all(Array.from({ length: 12 }, (_, by) => publishing(by)));
    await each(sessions, ({ id, names }) =>
      expectMerged(id, Object.fromEntries(names.map((name) => [name, urls[name]]))),
    );
  });

  test("subscribing while others publish: everything from some message on", async () => {
    const url = await source();
    const sessions = Array.from({ length: 12 }, () => freshSession());
    let running = true;
    const publishing = async (by) => {
      for (let n = 0; running; n += 1) await published(url, JSON.stringify({ s: "a", by, n }));
    };
    const publishers = [publishing(0), publishing(1), publishing(2)];
    const starts = new Map();
    await each(sessions, async (session) => {
      const before = await tail(url);
      await subscribed(session, url);
      starts.set(session, [before, await tail(url)]);
    }, 4);
    await sleep(200);
    running = false;
    await Promise.all(publishers);
    const all = await readMessages(url);
    const counts = async (offset) => (await readMessages(url, offset)).length;
    for (const session of sessions) {
      const [most, least] = await Promise.all(starts.get(session).map(counts));
      await expect.poll(async () => (await inbox(session)).at(-1)).toEqual(all.at(-1));
      const got = await inbox(session);
      expect(got).toEqual(all.slice(all.length - got.length));
      expect(got.length).toBeLessThanOrEqual(most);
      expect(got.length).toBeGreaterThanOrEqual(least);
    }
  });

  test("a backlog and what is published meanwhile come in order", async () => {
    const url = await source();
    for (let n = 0; n < 200; n += 1) await appended(url, JSON.stringify({ s: "a", n }));
    const sessions = Array.from({ length: 6 }, () => freshSession());
    let n = 200;
    let running = true;
    const publishing = (async () => {
      for (; running; n += 1) await published(url, JSON.stringify({ s: "a", n }));
    })();
    await each(sessions, (session) => subscribed(session, url, { from: "-1" }), 2);
    running = false;
    await publishing;
    await each(sessions, (session) => expectMerged(session, { a: url }));
    expect((await readMessages(url)).map(({ n }) => n)).toEqual([...Array(n).keys()]);
  });

  test("subscribing and unsubscribing while others publish: runs without a hole", async () => {
    const url = await source();
    const session = freshSession();
    await createdSession(session);
    let running = true;
    let n = 0;
    const publishing = (async () => {
      for (; running; n += 1) await published(url, String(n));
    })();
    const runs = [];
    for (let run = 0; run < 10; run += 1) {
      await subscribed(session, url);
      // What is on its way now may have come too early.
      const first = n + 1;
      await sleep(30);
      await published(url, `"in ${run}"`);
      runs.push({ first, last: `in ${run}` });
      await unsubscribed(session, url);
      await published(url, `"out ${run}"`);
    }
    running = false;
    await publishing;
    const all = await readMessages(url);
    const got = await inbox(session);
    const places = got.map((message) => all.indexOf(message));
    expect(places).not.toContain(-1);
    expect(places).toEqual([...new Set(places)].sort((a, b) => a - b));
    expect(got.filter((message) => String(message).startsWith("out"))).toEqual([]);
    for (const { first, last } of runs) {
      const from = all.indexOf(first);
      const to = all.indexOf(last);
      if (from < 0 || from > to) continue;
      const run = all.slice(from, to + 1);
      const begin = got.indexOf(first);
      expect(got.slice(begin, begin + run.length)).toEqual(run);
    }
    expect(got).toEqual(expect.arrayContaining(runs.map(({ last }) => last)));
  });

  test("200 sessions get it before the publish is answered", async () => {
    const url = await source();
    const sessions = Array.from({ length: 200 }, () => freshSession());
    await each(sessions, (session) => subscribed(session, url));
    const { next, ...first } = await published(url, "0");
    expect(next).toBe(await tail(url));
    expect(first).toMatchObject({ count: 200, failures: 0 });
    for (let n = 1; n < 5; n += 1) await published(url, String(n));
    await each(sessions, (session) => hasMessages(session, [0, 1, 2, 3, 4]));
  });
});

describe("forks", () => {
  test("inherit no subscribers, and are sources of their own", async () => {
    const url = await source();
    await appended(url, '["old"]');
    const session = await sessionOn(url);
    await publishedTo(1, url, "1");
    const fork = freshStream("source");
    await created(fork, { "stream-forked-from": new URL(url).pathname });
    await publishedTo(0, fork, "2");
    const own = freshSession();
    await createdSession(own, { envelope: true });
    await subscribed(own, fork, { from: "-1" });
    // The backlog may still be on its way, and then the message comes after it.
    expect((await published(fork, "3")).count).toBe(1);
    await publishedTo(1, url, "4");
    await hasMessages(session, [1, 4]);
    const expected = ["old", 1, 2, 3];
    await expect.poll(async () => (await inbox(own)).length).toBe(expected.length);
    const messages = await inbox(own);
    expect(messages.map(({ data }) => data)).toEqual(expected);
    expect(messages.every(({ stream }) => stream === pathOf(fork))).toBe(true);
    // What an envelope names is an offset of the fork, inherited ones included.
    for (const [n, { offset }] of messages.entries()) {
      expect(await readMessages(fork, offset)).toEqual(expected.slice(n + 1));
    }
  });

  test("a session's stream is no source of a fork that could be subscribed instead", async () => {
    const session = freshSession();
    await createdSession(session);
    const url = streamOf(session);
    await expectError(await subscribe(freshSession(), url), 409, "SOURCE_IS_SESSION");
    await expectError(await publish(url, "1"), 409, "SOURCE_IS_SESSION");
    expect(await inbox(session)).toEqual([]);
  });
});

describe("large", () => {
  test("bodies of 8 MiB arrive whole", async () => {
    const url = await source({ type: BINARY_TYPE });
    const session = await sessionOn(url);
    const body = randomBuffer(8 * 1024 * 1024, seeded(3));
    const small = Buffer.from("small");
    for (const part of [body, small, body]) await published(url, part, { type: BINARY_TYPE });
    const whole = Buffer.concat([body, small, body]);
    const end = `_${String(whole.length).padStart(16, "0")}`;
    await expect
      .poll(() => tail(streamOf(session)), { timeout: 20_000 })
      .toMatch(new RegExp(`${end}$`));
    expectSameBytes(await bytesOf(session), whole);
  });

  test("JSON bodies of 8 MiB arrive whole, in an envelope as well", async () => {
    const url = await source();
    const [plain, enveloped] = [await sessionOn(url), freshSession()];
    await createdSession(enveloped, { envelope: true });
    await subscribed(enveloped, url);
    const batch = Array.from({ length: 2000 }, (_, n) => ({ n, pad: "x".repeat(4000) }));
    const body = JSON.stringify(batch);
    expect(body.length).toBeGreaterThan(7_000_000);
    await published(url, body);
    await published(url, '"end"');
    await hasMessages(plain, [...batch, "end"]);
    await expect
      .poll(async () => (await inbox(enveloped)).length, { timeout: 20_000 })
      .toBe(batch.length + 1);
    const data = (await inbox(enveloped)).map((message) => message.data);
    expect(data).toEqual([...batch, "end"]);
  });
});

test("the address of a publish takes POST only, and is no stream", async () => {
  const url = await source();
  for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
    const response = await sendJson(publishUrl(url), method, method === "GET" ? undefined : "1");
    await expectError(response, 405, "METHOD_NOT_ALLOWED");
    expect(response.headers.get("allow")).toBe("POST, OPTIONS");
  }
  expect(await readMessages(url)).toEqual([]);
  expect((await append(url, "1")).status).toBe(204);
  const { status } = await close(url);
  expect(status).toBe(204);
  await bodyOf(await subscribe(freshSession(), url));
});
