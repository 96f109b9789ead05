// What is no session, no subscription and no publish: refused with its code, nothing is changed.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  MIB,
  SERVER,
  appended,
  ask,
  expectError,
  freshStream,
  moved,
  producer,
  readMessages,
  tail,
} from "./client.mjs";
import { TEXT_TYPE } from "./cold.mjs";
import { send } from "./raw_socket.mjs";
import {
  bodyOf,
  createdSession,
  fanoutOf,
  freshSession,
  hasMessages,
  inbox,
  pathOf,
  publish,
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
} from "./sessions.mjs";

const SUBSCRIBE = `${SERVER}/v1/blackbox/subscribe`;
const BATCH = `${SUBSCRIBE}/batch`;
const UNSUBSCRIBE = `${SERVER}/v1/blackbox/unsubscribe`;
const BODY_BYTES_MAX = 64 * 1024;

const LONG_PATH = "a/".repeat(256) + "a";
const NO_PATHS = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a\u0001b", LONG_PATH];
const NO_SESSIONS = ["", ".", "..", "a b", "a/b", "é", "x".repeat(129), "a%20b", "a\n", "a?b"];

/** A session with one subscription, and what must not change. */
let world;
beforeAll(async () => {
  const url = await source();
  const session = await sessionOn(url);
  await publishedTo(1, url, "[1,2]");
  world = { url, session, offset: await tail(streamOf(session)), at: await tail(url) };
});

/** Nothing of the session, of its stream or of its source has changed, and it works. */
afterAll(async () => {
  const { url, session, offset, at } = world;
  const { subscriptions } = await bodyOf(await showSession(session));
  expect(subscriptions).toEqual([{ streamId: pathOf(url) }]);
  expect(await tail(streamOf(session))).toBe(offset);
  expect(await tail(url)).toBe(at);
  await publishedTo(1, url, "3");
  await hasMessages(session, [1, 2, 3]);
});

const valid = () => ({ sessionId: world.session, streamId: pathOf(world.url) });

describe("ids in URLs", () => {
  const IDS = ["x".repeat(129), "%2e%2e%2f", "a%20b", "a%2Fb", "%C3%A9", "a%00", "a;b", "a@b", "%"];

  test.each(IDS)("%s", async (id) => {
    const url = sessionUrl(id);
    const requests = [["PUT", "{}"], ["GET"], ["DELETE"], ["POST", undefined, "/touch"]];
    for (const [method, body, rest = ""] of requests) {
      const response = await sendJson(url + rest, method, body);
      const error = await expectError(response, 400, "INVALID_SESSION");
      expect(error.message.length).toBeLessThan(300);
    }
  });

  test("dots are what every URL parser makes of them", async () => {
    for (const dots of [".", ".."]) {
      const response = await send(SERVER, "GET", `/v1/blackbox/session/${dots}`);
      const { error } = await response.json();
      expect([400, 404]).toContain(response.status);
      expect(["INVALID_SESSION", "ROUTE_NOT_FOUND"]).toContain(error.code);
    }
  });

  test("more segments, or fewer, are no address", async () => {
    const { session } = world;
    const urls = [`${sessionUrl(session)}/more`, `${sessionUrl(session)}/touch/more`];
    urls.push(sessionUrl(""), `${SERVER}/v1/blackbox/session`, `${SUBSCRIBE}/batches`);
    urls.push(`${SERVER}/v1/session/${session}`, `${SERVER}/v1/subscribe`);
    for (const url of urls) {
      const response = await ask(url, { method: "POST" });
      const { error } = await response.json();
      expect([400, 404], `${url}: ${response.status}`).toContain(response.status);
      expect(["ROUTE_NOT_FOUND", "INVALID_SESSION"]).toContain(error.code);
    }
  });

  test("other methods", async () => {
    const { session } = world;
    const allowed = {
      [sessionUrl(session)]: "GET, HEAD, PUT, DELETE, OPTIONS",
      [`${sessionUrl(session)}/touch`]: "POST, OPTIONS",
      [SUBSCRIBE]: "POST, OPTIONS",
      [BATCH]: "POST, OPTIONS",
      [UNSUBSCRIBE]: "DELETE, OPTIONS",
    };
    for (const [url, allow] of Object.entries(allowed)) {
      for (const method of ["GET", "PUT", "POST", "PATCH", "DELETE"]) {
        if (allow.includes(method)) continue;
        const response = await sendJson(url, method, method === "GET" ? undefined : "{}");
        await expectError(response, 405, "METHOD_NOT_ALLOWED");
        expect(response.headers.get("allow")).toBe(allow);
      }
    }
  });
});

describe("bodies", () => {
  /** Requests whose body is `body`. */
  const everywhere = {
    create: (body, headers) => sendJson(sessionUrl(world.session), "PUT", body, headers),
    subscribe: (body, headers) => sendJson(SUBSCRIBE, "POST", body, headers),
    "subscribe many": (body, headers) => sendJson(BATCH, "POST", body, headers),
    unsubscribe: (body, headers) => sendJson(UNSUBSCRIBE, "DELETE", body, headers),
  };

  test.each(Object.entries(everywhere))("%s: what is no JSON object", async (name, ask) => {
    const bodies = ["{", "nonsense", "[]", "null", "1", '"text"', "{}{}", "{]", "{'a':1}", "\u0000"];
    bodies.push(Buffer.from([0x7b, 0xff, 0x7d]), `${"[".repeat(5000)}`);
    if (name !== "create") bodies.push("", " ", "{}");
    for (const body of bodies) await expectError(await ask(body), 400, "INVALID_BODY");
  });

  test.each(Object.entries(everywhere))("%s: another content type", async (name, ask) => {
    const body = name === "create" ? {} : valid();
    if (name === "subscribe many") {
      Object.assign(body, { streamId: undefined, subscriptions: [{ streamId: "a" }] });
    }
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "json", "a/b; c"]) {
      const response = await ask(JSON.stringify(body), { "content-type": type });
      await expectError(response, 400, "INVALID_CONTENT_TYPE");
    }
  });

  test.each(Object.entries(everywhere))("%s: too large", async (name, ask) => {
    const max = name === "subscribe many" ? MIB : BODY_BYTES_MAX;
    const body = `{"sessionId":"${" ".repeat(max)}"}`;
    await expectError(await ask(body), 413, "BODY_TOO_LARGE");
  });

  const field = async (response, name, code = "INVALID_BODY") => {
    const error = await expectError(response, 400, code);
    expect(error.details).toEqual({ field: name });
  };

  test("fields of a session", async () => {
    const bad = {
      contentType: [1, "", "json", "a/b\u0000", `text/${"x".repeat(300)}`],
      ttlSeconds: [0, -1, 1.5, "60", true, 31_536_001, 1e300],
      envelope: ["true", 1, []],
      unknown: [1, {}],
      ttlseconds: [60],
    };
    const session = freshSession();
    for (const [name, values] of Object.entries(bad)) {
      for (const value of values) await field(await putSession(session, { [name]: value }), name);
    }
    const wraps = { contentType: TEXT_TYPE, envelope: true };
    await field(await putSession(session, wraps), "envelope");
    await field(await putSession(session, '{"ttlSeconds":1,"ttlSeconds":2}'), "ttlSeconds");
    await expectError(await showSession(session), 404, "SESSION_NOT_FOUND");
  });

  test("fields of a subscription, and of its end", async () => {
    const { sessionId, streamId } = valid();
    for (const [url, method] of [[SUBSCRIBE, "POST"], [UNSUBSCRIBE, "DELETE"]]) {
      const ask = (body) => sendJson(url, method, body);
      await field(await ask({ sessionId }), "streamId");
      await field(await ask({ streamId }), "sessionId");
      await field(await ask({ sessionId, streamId, extra: 1 }), "extra");
      for (const bad of [...NO_SESSIONS, 1, null, {}]) {
        await field(await ask({ sessionId: bad, streamId }), "sessionId");
      }
      for (const bad of [...NO_PATHS, 1, null, []]) {
        await field(await ask({ sessionId, streamId: bad }), "streamId");
      }
    }
    for (const from of ["", "0", "-2", "NOW", "0000000000000000", 1, {}]) {
      await field(await subscribe(sessionId, world.url, { from }), "from");
    }
    for (const contentType of ["", "json", 1]) {
      await field(await subscribe(sessionId, world.url, { contentType }), "contentType");
    }
    const long = "y".repeat(65);
    const error = await expectError(
      await subscribe(sessionId, world.url, { [long]: 1 }),
      400,
      "INVALID_BODY",
    );
    expect(JSON.stringify(error)).not.toContain(long);
  });

  test("fields of many subscriptions refuse all of them", async () => {
    const { session, url } = world;
    const fresh = await source();
    const wishes = (last) => [{ streamId: pathOf(fresh) }, last];
    const ask = (subscriptions) => sendJson(BATCH, "POST", { sessionId: session, subscriptions });
    await field(await ask([]), "subscriptions");
    await field(await ask(wishes({ streamId: pathOf(fresh) })), "subscriptions");
    const many = Array.from({ length: 1001 }, (_, n) => ({ streamId: `a/${n}` }));
    await field(await ask(many), "subscriptions");
    for (const streamId of NO_PATHS) {
      await field(await ask(wishes({ streamId })), "subscriptions[1].streamId");
    }
    await field(await ask(wishes({ streamId: "a", from: "x" })), "subscriptions[1].from");
    await expectError(await ask(wishes({ streamId: "a", x: 1 })), 400, "INVALID_BODY");
    await expectError(await ask(wishes("a")), 400, "INVALID_BODY");
    await expectError(await ask({ 0: { streamId: "a" } }), 400, "INVALID_BODY");
    await expectError(await ask(wishes({ streamId: "session/a" })), 409, "SOURCE_IS_SESSION");
    await expectError(await ask(wishes({ streamId: "__ds/a" })), 403, "RESERVED");
    const { subscriptions } = await bodyOf(await showSession(session));
    expect(subscriptions).toEqual([{ streamId: pathOf(url) }]);
    await publishedTo(0, fresh, "1");
  });
});

describe("what is no source", () => {
  test("a stream that is not there", async () => {
    const absent = freshStream("missing");
    const session = freshSession();
    await expectError(await subscribe(session, absent), 404, "STREAM_NOT_FOUND");
    await expectError(await showSession(session), 404, "SESSION_NOT_FOUND");
    await expectError(await subscribe(world.session, absent), 404, "STREAM_NOT_FOUND");
    await expectError(await publish(absent, "1"), 404, "STREAM_NOT_FOUND");
    expect((await ask(absent, { method: "HEAD" })).status).toBe(404);
  });

  test("a session's stream, and what is reserved", async () => {
    const other = freshSession();
    await createdSession(other);
    const streams = ["session", "session/a", `session/${other}`, `session/${world.session}`];
    for (const streamId of streams) {
      const body = { sessionId: other, streamId };
      for (const [url, method] of [[SUBSCRIBE, "POST"], [UNSUBSCRIBE, "DELETE"]]) {
        await expectError(await sendJson(url, method, body), 409, "SOURCE_IS_SESSION");
      }
      const url = `${SERVER}/v1/blackbox/publish/${streamId}`;
      await expectError(await sendJson(url, "POST", "1"), 409, "SOURCE_IS_SESSION");
    }
    const body = { sessionId: other, streamId: "__ds/x" };
    await expectError(await sendJson(SUBSCRIBE, "POST", body), 403, "RESERVED");
    const reserved = `${SERVER}/v1/blackbox/publish/__ds/x`;
    await expectError(await sendJson(reserved, "POST", "1"), 403, "RESERVED");
    expect(await inbox(other)).toEqual([]);
  });

  test("offsets that the stream has not handed out", async () => {
    const url = await source();
    const at = await appended(url, '["one","two"]');
    const session = freshSession();
    const refused = {
      [moved(at, 1)]: [400, "OFFSET_BEYOND_TAIL"],
      [moved(at, 1000)]: [400, "OFFSET_BEYOND_TAIL"],
      [moved(at, -1)]: [400, "INVALID_OFFSET"],
    };
    for (const [from, [status, code]] of Object.entries(refused)) {
      const response = await subscribe(session, url, { from });
      const { error } = await response.clone().json();
      expect([code, "INVALID_OFFSET"], from).toContain(error.code);
      await expectError(response, status, error.code);
    }
    await expectError(await showSession(session), 404, "SESSION_NOT_FOUND");
    await publishedTo(0, url, "1");
  });
});

describe("a publish", () => {
  test("is refused as an append is, and then tells of no fan-out", async () => {
    const url = await source();
    const session = await sessionOn(url);
    await publishedTo(1, url, "1", producer("p", 3, 0));
    const at = await tail(url);
    const before = await tail(streamOf(session));
    const refusals = [
      ["1", { type: TEXT_TYPE }, 409, "CONTENT_TYPE_MISMATCH"],
      // Bytes, for which nobody makes a content type up.
      [Buffer.from("1"), { type: null }, 400, "CONTENT_TYPE_MISSING"],
      ["", {}, 400, "EMPTY_BODY"],
      ["{", {}, 400, "INVALID_JSON"],
      ["[]", {}, 400, "EMPTY_ARRAY"],
      ["1", { "producer-id": "p" }, 400, undefined],
      ["1", producer("p", 2, 9), 403, "STALE_EPOCH"],
      ["1", producer("p", 3, 5), 409, "PRODUCER_GAP"],
      ["1", producer("p", 4, 1), 400, undefined],
      ["1", { "producer-id": "p", "producer-epoch": "x", "producer-seq": "0" }, 400, undefined],
    ];
    for (const [body, options, status, code] of refusals) {
      const published = await publish(url, body, { ...options });
      const posted = await postLike(url, body, options);
      const expected = (await posted.json()).error;
      expect(posted.status).toBe(status);
      const error = await expectError(published, status, code ?? expected.code);
      expect(error).toEqual(expected);
      expect(fanoutOf(published)).toBeUndefined();
    }
    expect(await tail(url)).toBe(at);
    expect(await tail(streamOf(session))).toBe(before);
    expect((await publish(url, "2", producer("p", 3, 1))).status).toBe(200);
    await hasMessages(session, [1, 2]);
  });

  const postLike = (url, body, { type = JSON_TYPE, ...headers }) =>
    ask(url, {
      method: "POST",
      headers: type === null ? headers : { "content-type": type, ...headers },
      body,
    });

  test("at an address that is none", async () => {
    for (const path of ["", "a//b", "a%2Fb", "a%00", "x".repeat(513), "%ff"]) {
      const response = await sendJson(`${SERVER}/v1/blackbox/publish/${path}`, "POST", "1");
      const { error } = await response.json();
      expect([400, 404], path).toContain(response.status);
      expect(["INVALID_PATH", "ROUTE_NOT_FOUND", "URI_TOO_LONG"]).toContain(error.code);
    }
  });

  test("is asked for by its address: what marks it inside is no right of clients", async () => {
    const fresh = await source();
    for (const value of ["1", "0", "x"]) {
      const headers = { "content-type": JSON_TYPE, "x-durable-streams-publish": value };
      const response = await ask(fresh, { method: "POST", headers, body: "1" });
      expect(response.status).toBe(204);
    }
    expect(await readMessages(fresh)).toEqual([1, 1, 1]);
    const session = streamOf(world.session);
    const headers = { "content-type": JSON_TYPE, "x-durable-streams-publish": "1" };
    const response = await ask(session, { method: "POST", headers, body: "1" });
    await expectError(response, 403, "RESERVED");
  });
});

test("many that are not there: each says why, and the session stays", async () => {
  const { session } = world;
  const urls = [freshStream("missing"), await source({ type: TEXT_TYPE })];
  const { results, isNewSession } = await bodyOf(await subscribeBatch(session, urls));
  expect(isNewSession).toBe(false);
  const codes = results.map(({ subscribed, error }) => [subscribed, error.code]);
  expect(codes).toEqual([
    [false, "STREAM_NOT_FOUND"],
    [false, "CONTENT_TYPE_MISMATCH"],
  ]);
});
