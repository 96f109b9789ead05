// A session from its creation to its end, and what it is subscribed to.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  SERVER,
  appended,
  ask,
  create,
  created,
  eventually,
  expectError,
  freshStream,
  head,
  read,
  readMessages,
  remove,
  sleep,
  tail,
} from "./client.mjs";
import { TEXT_TYPE } from "./cold.mjs";
import {
  bodyOf,
  createdSession,
  deleteSession,
  expectEnd,
  freshSession,
  hasMessages,
  inbox,
  pathOf,
  publishedTo,
  putSession,
  sendJson,
  sessionOn,
  sessionUrl,
  showSession,
  source,
  streamOf,
  subscribe,
  subscribeBatch,
  subscribed,
  subscriptionsOf,
  touchSession,
  unsubscribe,
  unsubscribed,
} from "./sessions.mjs";

const DAY = 86_400;
/** Longer than a path that nobody has made. */
const missing = () => freshStream("missing");

describe("creating", () => {
  test("tells everything, and where it is", async () => {
    const session = freshSession();
    const response = await putSession(session);
    expect(response.headers.get("location")).toBe(sessionUrl(session));
    const { expiresAt, ...rest } = await bodyOf(response, 201);
    expectEnd(expiresAt, DAY);
    expect(rest).toEqual({
      sessionId: session,
      sessionStreamPath: `/v1/blackbox/stream/session/${session}`,
      contentType: JSON_TYPE,
      ttlSeconds: DAY,
      envelope: false,
      subscriptions: [],
    });
  });

  test("again is 200 for what fits, 409 for what differs", async () => {
    const session = freshSession();
    const wish = { contentType: TEXT_TYPE, ttlSeconds: 60, envelope: false };
    const { expiresAt, ...told } = await createdSession(session, wish);
    expectEnd(expiresAt, 60);
    expect(told).toMatchObject(wish);
    const fits = [undefined, "", "{}", wish, { ttlSeconds: 60 }, { contentType: "text/plain;a=b" }];
    for (const body of fits) {
      const response = await putSession(session, body);
      expect(response.headers.get("location")).toBeNull();
      const { expiresAt: end, ...again } = await bodyOf(response);
      expectEnd(end, 60);
      expect(again).toEqual(told);
    }
    const differs = {
      contentType: { contentType: JSON_TYPE },
      ttlSeconds: { ttlSeconds: 61 },
    };
    for (const [name, body] of Object.entries(differs)) {
      const error = await expectError(await putSession(session, body), 409, "SESSION_EXISTS");
      expect(error.details).toEqual({ differs: name });
    }
    const wrapping = freshSession();
    await createdSession(wrapping, { envelope: true });
    const plain = await putSession(wrapping, { envelope: false });
    const error = await expectError(plain, 409, "SESSION_EXISTS");
    expect(error.details).toEqual({ differs: "envelope" });
    expect(await bodyOf(await showSession(wrapping))).toMatchObject({ envelope: true });
  });

  test("at the same time makes one", async () => {
    const session = freshSession();
    const answers = await Promise.all(Array.from({ length: 10 }, () => putSession(session)));
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses).toEqual([...Array(9).fill(200), 201]);
  });

  test("takes ids of 1 to 128 letters, digits, `_`, `-`, `:` and `.`", async () => {
    const url = await source();
    const ids = ["x".repeat(128), "A:b.c_d-9", "...", "-", "_:", freshSession("%3a")];
    const own = ids.map((id) => (id.length > 100 ? id : `${id}${freshSession()}`.slice(0, 128)));
    for (const id of own) {
      const session = id.replace(/%3a/g, ":");
      await deleteSession(id);
      await createdSession(id);
      const told = await subscribed(session, url);
      expect(told.sessionId).toBe(session);
      expect((await head(SERVER + told.sessionStreamPath)).status).toBe(200);
      expect(await subscriptionsOf(id)).toEqual([pathOf(url)]);
    }
    await publishedTo(own.length, url, "1");
    for (const id of own) await hasMessages(id, [1]);
  });

  test("makes a stream that clients may read, and nothing else", async () => {
    const session = freshSession();
    await createdSession(session, { ttlSeconds: 3600 });
    const stream = streamOf(session);
    const { status, headers } = await head(stream);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe(JSON_TYPE);
    expect(headers.get("stream-ttl")).toBe("3600");
    const offset = await tail(stream);
    for (const method of ["PUT", "POST", "DELETE"]) {
      const body = method === "DELETE" ? undefined : "[1]";
      const response = await sendJson(stream, method, body);
      await expectError(response, 403, "RESERVED");
    }
    expect(await tail(stream)).toBe(offset);
    expect(await readMessages(stream)).toEqual([]);
  });
});

describe("showing, touching and deleting", () => {
  test("a session that is not there is 404", async () => {
    const session = freshSession();
    for (const ask of [showSession, touchSession, deleteSession]) {
      await expectError(await ask(session), 404, "SESSION_NOT_FOUND");
    }
    await expectError(await unsubscribe(session, await source()), 404, "SESSION_NOT_FOUND");
    await expectError(await read(streamOf(session), "-1"), 404, "STREAM_NOT_FOUND");
    await bodyOf(await putSession(session), 201);
  });

  test("shows what was made, with GET and HEAD", async () => {
    const session = freshSession();
    const { expiresAt, ...told } = await createdSession(session, { ttlSeconds: 100 });
    const { expiresAt: shown, ...rest } = await bodyOf(await showSession(session));
    expect(rest).toEqual(told);
    expect(shown >= expiresAt).toBe(true);
    const response = await ask(sessionUrl(session), { method: "HEAD" });
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
  });

  test("touching, subscribing and reading move the end; showing does not", async () => {
    const session = freshSession();
    const url = await source();
    let { expiresAt: end } = await createdSession(session, { ttlSeconds: 100 });
    const later = async (answer) => {
      const { expiresAt } = await answer;
      expectEnd(expiresAt, 100);
      expect(expiresAt > end, `${expiresAt} after ${end}`).toBe(true);
      end = expiresAt;
    };
    await sleep(1100);
    expect((await bodyOf(await showSession(session))).expiresAt).toBe(end);
    const touched = bodyOf(await touchSession(session));
    expect(await touched).toEqual({ sessionId: session, expiresAt: expect.any(String) });
    await later(touched);
    await sleep(1100);
    await later(subscribed(session, url));
    await sleep(1100);
    await inbox(session);
    await later(bodyOf(await showSession(session)));
  });

  test("deleting ends the stream and every subscription", async () => {
    const [one, other] = [await source(), await source()];
    const session = await sessionOn(one, other);
    const stays = await sessionOn(one);
    await publishedTo(2, one, "1");
    const response = await deleteSession(session);
    expect(response.status).toBe(204);
    expect(await response.text()).toBe("");
    await expectError(await showSession(session), 404, "SESSION_NOT_FOUND");
    await expectError(await deleteSession(session), 404, "SESSION_NOT_FOUND");
    await expectError(await read(streamOf(session), "-1"), 404, "STREAM_NOT_FOUND");
    await publishedTo(1, one, "2");
    await publishedTo(0, other, "2");
    await hasMessages(stays, [1, 2]);
    await expectError(await unsubscribe(session, one), 404, "SESSION_NOT_FOUND");
  });

  test("a session that nobody reads ends", async () => {
    const url = await source();
    const session = freshSession();
    await createdSession(session, { ttlSeconds: 1 });
    await subscribed(session, url);
    await publishedTo(1, url, "1");
    const gone = async () => (await showSession(session)).status;
    await eventually(gone, (status) => status === 404, 5000);
    expect((await head(streamOf(session))).status).toBe(404);
    await publishedTo(0, url, "2");
    // The next one of this id begins from nothing.
    const { isNewSession } = await subscribed(session, url);
    expect(isNewSession).toBe(true);
    await publishedTo(1, url, "3");
    await hasMessages(session, [3]);
  });
});

describe("subscribing", () => {
  test("makes the session, of the stream's content type, or takes the one that is there", async () => {
    for (const type of [JSON_TYPE, TEXT_TYPE, BINARY_TYPE, "application/json; charset=utf-8"]) {
      const url = await source({ type });
      const session = freshSession();
      const { expiresAt, ...told } = await subscribed(session, url);
      expectEnd(expiresAt, DAY);
      expect(told).toEqual({
        sessionId: session,
        streamId: pathOf(url),
        sessionStreamPath: `/v1/blackbox/stream/session/${session}`,
        isNewSession: true,
      });
      const shown = await bodyOf(await showSession(session));
      expect(shown.contentType).toBe(type);
      expect(shown.ttlSeconds).toBe(DAY);
      expect((await subscribed(session, url)).isNewSession).toBe(false);
      expect(await subscriptionsOf(session)).toEqual([pathOf(url)]);
    }
  });

  test("begins now, at the start, or at an offset", async () => {
    const url = await source();
    const offsets = [];
    for (let n = 0; n < 4; n += 1) offsets.push(await appended(url, String(n)));
    const wanted = { now: [], "-1": [0, 1, 2, 3], [offsets[1]]: [2, 3], [offsets[3]]: [] };
    const sessions = [];
    for (const [from, backlog] of Object.entries(wanted)) {
      const session = freshSession();
      sessions.push([session, backlog]);
      await subscribed(session, url, { from });
      await hasMessages(session, backlog);
    }
    await publishedTo(4, url, "4");
    for (const [session, backlog] of sessions) await hasMessages(session, [...backlog, 4]);
  });

  test("again changes nothing, whatever it asks for", async () => {
    const url = await source();
    await appended(url, "0");
    const session = await sessionOn(url);
    await publishedTo(1, url, "1");
    for (const from of ["now", "-1", undefined]) await subscribed(session, url, { from });
    await publishedTo(1, url, "2");
    await hasMessages(session, [1, 2]);
    expect(await subscriptionsOf(session)).toEqual([pathOf(url)]);
  });

  test("many at a time tells of each", async () => {
    const [a, b, text] = [await source(), await source(), await source({ type: TEXT_TYPE })];
    const absent = missing();
    await appended(a, "0");
    const session = freshSession();
    const wishes = [absent, { url: a, from: "-1" }, text, b];
    const { expiresAt, ...told } = await bodyOf(await subscribeBatch(session, wishes));
    expectEnd(expiresAt, DAY);
    const refusedWith = (url, code, more = {}) => ({
      streamId: pathOf(url),
      subscribed: false,
      error: { code, message: expect.stringMatching(/^[A-Z].*\.$/), ...more },
    });
    const types = { details: { session: JSON_TYPE, source: TEXT_TYPE } };
    expect(told).toEqual({
      sessionId: session,
      sessionStreamPath: `/v1/blackbox/stream/session/${session}`,
      isNewSession: true,
      results: [
        refusedWith(absent, "STREAM_NOT_FOUND"),
        { streamId: pathOf(a), subscribed: true },
        refusedWith(text, "CONTENT_TYPE_MISMATCH", types),
        { streamId: pathOf(b), subscribed: true },
      ],
    });
    expect(await subscriptionsOf(session)).toEqual([pathOf(a), pathOf(b)].sort());
    await hasMessages(session, [0]);
    await publishedTo(1, a, "1");
    await publishedTo(1, b, "2");
    await publishedTo(0, text, "x", { type: TEXT_TYPE });
    await hasMessages(session, [0, 1, 2]);
    const again = await bodyOf(await subscribeBatch(session, [b, a]));
    expect(again.isNewSession).toBe(false);
    expect(again.results.map(({ subscribed }) => subscribed)).toEqual([true, true]);
  });

  test("many at a time makes a session only if one of them takes it", async () => {
    const session = freshSession();
    const response = await subscribeBatch(session, [missing(), missing()]);
    await expectError(response, 404, "STREAM_NOT_FOUND");
    await expectError(await showSession(session), 404, "SESSION_NOT_FOUND");
    expect((await head(streamOf(session))).status).toBe(404);
    await createdSession(session);
    const { isNewSession, results } = await bodyOf(await subscribeBatch(session, [missing()]));
    expect([isNewSession, results[0].subscribed]).toEqual([false, false]);
  });

  test("100 streams at a time", async () => {
    const urls = await Promise.all(Array.from({ length: 100 }, () => source()));
    const session = freshSession();
    const { results } = await bodyOf(await subscribeBatch(session, urls));
    const expected = urls.map((url) => ({ streamId: pathOf(url), subscribed: true }));
    expect(results).toEqual(expected);
    await Promise.all(urls.map((url, n) => publishedTo(1, url, String(n))));
    const got = await inbox(session);
    expect(got.sort((a, b) => a - b)).toEqual([...urls.keys()]);
  });

  test("at the same time, from many requests, is one subscription", async () => {
    const url = await source();
    const session = freshSession();
    // Whoever is overtaken by a later request of the same session may be asked to try again.
    const ask = async () => {
      for (;;) {
        const response = await subscribe(session, url);
        if (response.status !== 503) return bodyOf(response);
        expect(response.headers.get("retry-after")).toMatch(/^\d+$/);
        await expectError(response, 503, "UNAVAILABLE");
      }
    };
    const bodies = await Promise.all(Array.from({ length: 8 }, ask));
    const makers = bodies.filter(({ isNewSession }) => isNewSession);
    expect(makers.length).toBeLessThanOrEqual(1);
    for (let n = 0; n < 3; n += 1) await publishedTo(1, url, String(n));
    await hasMessages(session, [0, 1, 2]);
  });
});

describe("unsubscribing", () => {
  test("ends it; once more says that there was none", async () => {
    const [url, other] = [await source(), await source()];
    const session = await sessionOn(url, other);
    await publishedTo(1, url, "1");
    await unsubscribed(session, url);
    expect(await subscriptionsOf(session)).toEqual([pathOf(other)]);
    await publishedTo(0, url, "2");
    for (const stream of [url, await source(), missing()]) {
      const told = await bodyOf(await unsubscribe(session, stream));
      const expected = { sessionId: session, streamId: pathOf(stream), unsubscribed: false };
      expect(told).toEqual(expected);
    }
    await publishedTo(1, other, "3");
    await hasMessages(session, [1, 3]);
  });

  test("and subscribing leaves out what came in between", async () => {
    const url = await source();
    const session = freshSession();
    const expected = [];
    for (let n = 0; n < 8; n += 1) {
      await subscribed(session, url);
      await publishedTo(1, url, JSON.stringify({ n, in: true }));
      expected.push({ n, in: true });
      await unsubscribed(session, url);
      await publishedTo(0, url, JSON.stringify({ n, in: false }));
    }
    await hasMessages(session, expected);
    await subscribed(session, url, { from: "-1" });
    const all = await readMessages(url);
    await hasMessages(session, [...expected, ...all]);
  });

  test("and a source that is deleted needs no more looking after", async () => {
    const url = await source();
    const session = await sessionOn(url);
    await publishedTo(1, url, "1");
    expect((await remove(url)).status).toBe(204);
    await eventually(() => subscriptionsOf(session), (left) => left.length === 0);
    expect(await bodyOf(await unsubscribe(session, url))).toMatchObject({ unsubscribed: false });
    expect((await create(url, { type: JSON_TYPE })).status).toBe(201);
    await publishedTo(0, url, "2");
    await hasMessages(session, [1]);
  });
});

test("paths of sources may hold any character that paths may", async () => {
  const session = freshSession();
  const names = ["é 😀", "a+b&c=d", "per%25cent", "quo\"te'", "x/y/z", "{braces}"];
  const urls = [];
  for (const name of names) {
    const encoded = name.split("/").map(encodeURIComponent).join("/");
    urls.push(`${freshStream("source")}/${encoded}`);
    await created(urls.at(-1), { type: JSON_TYPE });
    await subscribed(session, urls.at(-1));
  }
  const shown = await subscriptionsOf(session);
  expect(shown).toEqual(urls.map(pathOf).sort());
  for (const [n, url] of urls.entries()) await publishedTo(1, url, String(n));
  await hasMessages(session, [...urls.keys()]);
});
