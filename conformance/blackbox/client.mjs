// The HTTP client of these suites: thin words for the requests, and what holds for every answer.
import { randomBytes } from "node:crypto";
import { expect } from "vitest";

export { seeded } from "../random.mjs";

/** The served Worker, `http://127.0.0.1:PORT`. */
export const SERVER = process.env.CONFORMANCE_TEST_URL;
if (!SERVER) {
  throw new Error("CONFORMANCE_TEST_URL is not set: run `cargo xtask test --only blackbox`");
}

export const JSON_TYPE = "application/json";
export const BINARY_TYPE = "application/octet-stream";
export const MIB = 1024 * 1024;
/** Largest body that the server takes by default. */
export const BODY_BYTES_MAX = 8 * MIB;

// A browser's requests, whose answers have to allow that it reads them.
const ORIGIN = "https://example.com";

/** `fetch` as a browser sends it. */
export function ask(url, { headers, ...init } = {}) {
  return fetch(url, { ...init, headers: { origin: ORIGIN, ...headers } });
}

/** The URL path of a stream that nobody else uses. */
export function freshPath(theme) {
  return `/v1/blackbox/stream/${theme}/${randomBytes(8).toString("hex")}`;
}

/** The URL of a stream that nobody else uses. */
export function freshStream(theme, server = SERVER) {
  return server + freshPath(theme);
}

export function create(url, { type, body, ...headers } = {}) {
  if (type !== undefined) headers["content-type"] = type;
  return ask(url, { method: "PUT", headers, body });
}

/** Creates a stream that must not exist yet, and returns its tail. */
export async function created(url, options) {
  const response = await create(url, options);
  expect(response.status, await response.text()).toBe(201);
  return nextOffset(response);
}

export function append(url, body, { type = JSON_TYPE, ...headers } = {}) {
  if (type !== null) headers["content-type"] = type;
  return ask(url, { method: "POST", headers, body });
}

/** Appends, which must succeed, and returns the tail. */
export async function appended(url, body, options) {
  const response = await append(url, body, options);
  expect([200, 204], `${response.status} ${await response.text()}`).toContain(response.status);
  return nextOffset(response);
}

export function close(url, headers = {}) {
  return ask(url, { method: "POST", headers: { "stream-closed": "true", ...headers } });
}

export function read(url, offset, { live, cursor, signal, ...headers } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ offset, live, cursor })) {
    if (value !== undefined) query.set(name, value);
  }
  return ask(`${url}?${query}`, { headers, signal });
}

export function head(url) {
  return ask(url, { method: "HEAD" });
}

export function remove(url) {
  return ask(url, { method: "DELETE" });
}

export function nextOffset(response) {
  return response.headers.get("stream-next-offset");
}

/** The tail, as HEAD tells it. */
export async function tail(url) {
  const response = await head(url);
  expect(response.status).toBe(200);
  return nextOffset(response);
}

/** `offset` moved by some bytes. Clients must not do this; tests look what happens. */
export function moved(offset, bytes) {
  const [generation, position] = offset.split("_");
  return `${generation}_${String(Number(position) + bytes).padStart(16, "0")}`;
}

export function generationOf(offset) {
  return Number(offset.split("_")[0]);
}

export function positionOf(offset) {
  return Number(offset.split("_")[1]);
}

/** Producer headers. */
export function producer(id, epoch, seq) {
  return { "producer-id": id, "producer-epoch": String(epoch), "producer-seq": String(seq) };
}

/** Catch-up pages from an offset to the tail: `{ from, next, bytes, response }`. */
export async function readPages(url, offset = "-1") {
  const pages = [];
  for (let from = offset; ; ) {
    const response = await read(url, from);
    expect(response.status).toBe(200);
    const bytes = Buffer.from(await response.arrayBuffer());
    const next = nextOffset(response);
    pages.push({ from, next, bytes, response });
    if (response.headers.get("stream-up-to-date") === "true") return pages;
    expect(next > from || from === "-1", `the page at ${from} ends at ${next}`).toBe(true);
    from = next;
  }
}

/** All bytes from an offset to the tail. */
export async function readBytes(url, offset) {
  const pages = await readPages(url, offset);
  return Buffer.concat(pages.map((page) => page.bytes));
}

/** All messages of a JSON stream from an offset to the tail. */
export async function readMessages(url, offset) {
  const pages = await readPages(url, offset);
  return pages.flatMap((page) => JSON.parse(page.bytes.toString()));
}

/** Compares bytes without printing megabytes when they differ. */
export function expectSameBytes(got, expected) {
  expect(got.length).toBe(expected.length);
  if (expected.equals(got)) return;
  let at = 0;
  while (at < got.length && got[at] === expected[at]) at += 1;
  expect(at, "first byte that differs").toBe(expected.length);
}

/** What every response to a browser carries (PROTOCOL §12.7). */
export function expectCommonHeaders(headers) {
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("cross-origin-resource-policy")).toBe("cross-origin");
  expect(headers.get("access-control-allow-origin")).toBe("*");
  expect(headers.get("access-control-expose-headers")).toContain("stream-next-offset");
  expect(headers.get("cache-control"), "an explicit Cache-Control").toBeTruthy();
}

/** An error with its status, code and form; returns the inside of the body. */
export async function expectError(response, status, code) {
  const text = await response.text();
  expect({ status: response.status, text }).toMatchObject({ status });
  expectCommonHeaders(response.headers);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("cache-control")).toBe("no-store");
  const body = JSON.parse(text);
  expect(Object.keys(body)).toEqual(["error"]);
  const { error } = body;
  expect(error.code).toBe(code);
  expect(error.message).toMatch(/^\S.*\S$/);
  const allowed = ["code", "details", "message"];
  expect(Object.keys(error).filter((key) => !allowed.includes(key))).toEqual([]);
  if ("details" in error) expect(error.details).toBeTypeOf("object");
  return error;
}

export function sleep(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

/** Asks again until the answer satisfies, for what may happen a little later. */
export async function eventually(ask, satisfies, timeoutMs = 5000) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (satisfies(answer)) return answer;
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms`);
    await sleep(20);
  }
}

/** Bytes that a seed repeats (xorshift, four at a time). */
export function randomBuffer(length, random) {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = Math.floor(random() * 2 ** 32) | 1;
  for (let at = 0; at < words.length; at += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}
