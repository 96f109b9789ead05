// Sessions, subscriptions and publishes: thin words for their requests, and what holds for every
// answer.
import { randomBytes } from "node:crypto";
import { expect } from "vitest";

import {
  JSON_TYPE,
  SERVER,
  ask,
  created,
  eventually,
  freshStream,
  nextOffset,
  readBytes,
  readMessages,
} from "./client.mjs";

const PROJECT = "/v1/blackbox";
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const MODES = ["inline", "queued", "deferred"];

/** An id that nobody else uses. */
export function freshSession(theme = "s") {
  return `${theme}-${randomBytes(8).toString("hex")}`;
}

export const sessionUrl = (session, server = SERVER) => `${server}${PROJECT}/session/${session}`;

/** The URL of a session's stream. */
export const streamOf = (session, server = SERVER) =>
  `${server}${PROJECT}/stream/session/${session}`;

/** A stream's path as bodies name it. */
export const pathOf = (url) =>
  decodeURIComponent(new URL(url).pathname.slice(`${PROJECT}/stream/`.length));

/** The server of a URL. */
const serverOf = (url) => new URL(url).origin;

/** A request whose body is JSON, unless it is text or bytes already. */
export function sendJson(url, method, body, headers = {}) {
  const isRaw = body === undefined || typeof body === "string" || Buffer.isBuffer(body);
  const type = body === undefined ? {} : { "content-type": JSON_TYPE };
  return ask(url, {
    method,
    headers: { ...type, ...headers },
    body: isRaw ? body : JSON.stringify(body),
  });
}

export const putSession = (session, body, server) =>
  sendJson(sessionUrl(session, server), "PUT", body);
export const showSession = (session, server) => ask(sessionUrl(session, server));
export const touchSession = (session, server) =>
  ask(`${sessionUrl(session, server)}/touch`, { method: "POST" });
export const deleteSession = (session, server) =>
  ask(sessionUrl(session, server), { method: "DELETE" });

/** Asks for a subscription; `body` holds more of its fields. */
export function subscribe(session, url, body = {}) {
  const wish = { sessionId: session, streamId: pathOf(url), ...body };
  return sendJson(`${serverOf(url)}${PROJECT}/subscribe`, "POST", wish);
}

/** Asks for many; `wishes` are URLs, or `{ url, from }`. */
export function subscribeBatch(session, wishes, body = {}, server = SERVER) {
  const subscriptions = wishes.map((wish) => {
    const { url, ...more } = typeof wish === "string" ? { url: wish } : wish;
    return { streamId: pathOf(url), ...more };
  });
  const all = { sessionId: session, subscriptions, ...body };
  return sendJson(`${server}${PROJECT}/subscribe/batch`, "POST", all);
}

export function unsubscribe(session, url) {
  const body = { sessionId: session, streamId: pathOf(url) };
  return sendJson(`${serverOf(url)}${PROJECT}/unsubscribe`, "DELETE", body);
}

/** The answer's body; it must have this status. */
export async function bodyOf(response, status = 200) {
  const text = await response.text();
  expect({ status: response.status, text }).toMatchObject({ status });
  expect(response.headers.get("content-type")).toBe(JSON_TYPE);
  expect(response.headers.get("cache-control")).toBe("no-store");
  return JSON.parse(text);
}

/** Checks that an end lies in the future, at most `seconds` away; in milliseconds. */
export function expectEnd(expiresAt, seconds) {
  expect(expiresAt).toMatch(RFC3339);
  const left = Date.parse(expiresAt) - Date.now();
  expect(left).toBeGreaterThan(seconds * 1000 - 10_000);
  expect(left).toBeLessThanOrEqual(seconds * 1000 + 100);
  return Date.parse(expiresAt);
}

/** Creates a session that must not exist yet, and returns what is told of it. */
export async function createdSession(session, body, server) {
  return bodyOf(await putSession(session, body, server), 201);
}

/** Subscribes, which must succeed; the answer's body. */
export async function subscribed(session, url, body) {
  return bodyOf(await subscribe(session, url, body));
}

/** Ends a subscription, which there must be. */
export async function unsubscribed(session, url) {
  const expected = { sessionId: session, streamId: pathOf(url), unsubscribed: true };
  expect(await bodyOf(await unsubscribe(session, url))).toEqual(expected);
}

/** Paths that a session is subscribed to. */
export async function subscriptionsOf(session, server) {
  const { subscriptions } = await bodyOf(await showSession(session, server));
  return subscriptions.map(({ streamId }) => streamId);
}

export const publishUrl = (url) => url.replace("/stream/", "/publish/");

export function publish(url, body, { type = JSON_TYPE, ...headers } = {}) {
  if (type !== null) headers["content-type"] = type;
  return ask(publishUrl(url), { method: "POST", headers, body });
}

/** What an answer tells of the fan-out; `undefined` when it tells nothing. */
export function fanoutOf({ headers }) {
  const names = ["count", "successes", "failures", "mode"];
  const values = names.map((name) => headers.get(`stream-fanout-${name}`));
  if (values.every((value) => value === null)) return undefined;
  const [count, successes, failures, mode] = values;
  for (const number of [count, successes, failures]) expect(number).toMatch(/^\d+$/);
  expect(MODES).toContain(mode);
  return {
    count: Number(count),
    successes: Number(successes),
    failures: Number(failures),
    mode,
  };
}

/** Publishes, which must succeed: the tail, and what became of the fan-out. */
export async function published(url, body, options) {
  const response = await publish(url, body, options);
  expect([200, 204], `${response.status} ${await response.text()}`).toContain(response.status);
  const fanout = fanoutOf(response);
  expect(fanout, "headers of the fan-out").toBeDefined();
  return { next: nextOffset(response), ...fanout };
}

/** Publishes to `count` subscribers, each of which must have it when the answer is there. */
export async function publishedTo(count, url, body, options) {
  const { next, ...fanout } = await published(url, body, options);
  expect(fanout).toEqual({ count, successes: count, failures: 0, mode: "inline" });
  return next;
}

/** Waits until nobody is subscribed to a stream any more, as its publishers are told. */
export const abandoned = (url, options) =>
  eventually(() => published(url, "0", options), ({ count }) => count === 0, 10_000);

/** A source: a new stream. */
export async function source({ server = SERVER, type = JSON_TYPE, ...options } = {}) {
  const url = freshStream("source", server);
  await created(url, { type, ...options });
  return url;
}

/** A new session that is subscribed to streams from now on. */
export async function sessionOn(...urls) {
  const session = freshSession();
  for (const url of urls) await subscribed(session, url);
  return session;
}

/** Messages of a session's stream. */
export const inbox = (session, server) => readMessages(streamOf(session, server));

/** Bytes of a session's stream. */
export const bytesOf = (session, server) => readBytes(streamOf(session, server));

/** Waits until a session's stream has so many messages, and checks which they are. */
export async function hasMessages(session, expected, { server = SERVER, timeoutMs = 20_000 } = {}) {
  const isThere = (messages) => messages.length >= expected.length;
  const got = await eventually(() => inbox(session, server), isThere, timeoutMs).catch(
    async (error) => {
      const messages = await inbox(session, server);
      throw new Error(`${messages.length} of ${expected.length} messages: ${error.message}`);
    },
  );
  expect(got).toEqual(expected);
}

/**
 * Checks that a session has what its sources have, each in order and each message once, however
 * they are mixed. Messages name their source as `s`; `sources` maps that name to a URL.
 */
export async function expectMerged(session, sources, { server = SERVER, timeoutMs = 20_000 } = {}) {
  const wanted = new Map();
  for (const [name, url] of Object.entries(sources)) wanted.set(name, await readMessages(url));
  const count = [...wanted.values()].reduce((sum, messages) => sum + messages.length, 0);
  const isThere = (messages) => messages.length >= count;
  const got = await eventually(() => inbox(session, server), isThere, timeoutMs);
  for (const [name, messages] of wanted) {
    expect(got.filter(({ s }) => s === name), `of ${name}`).toEqual(messages);
  }
  expect(got).toHaveLength(count);
}

/** The message of an envelope session, as text. */
export const wrapped = (url, offset, data) =>
  `{"stream":${JSON.stringify(pathOf(url))},"offset":"${offset}","data":${data}}`;
