// How much a client may send, and how often.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createProject, newSecret, token } from "../tokens.mjs";
import { sleep } from "./client.mjs";
import { bearer, refusedWith, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";

const KIB = 1024;
const URL_BYTES_MAX = 12 * KIB;
const PATH_BYTES_MAX = 2 * KIB;
const HEADERS_BYTES_MAX = 32 * KIB;

describe("sizes", () => {
  const BODY_BYTES_MAX = 1000;
  let host;
  let url;
  let headers;
  beforeAll(async () => {
    host = await startJwtHost({ BODY_BYTES_MAX: String(BODY_BYTES_MAX) });
    headers = bearer(token("sizes", await createProject(host.url, "sizes")));
    url = `${host.url}/v1/sizes/stream/a`;
    const all = { "content-type": "text/plain", ...headers };
    expect((await fetch(url, { method: "PUT", headers: all })).status).toBe(201);
  });
  afterAll(() => host.stop());

  // The Worker sees the URL with the host that the request names, `localhost`.
  const withUrlOf = (bytes, path) => {
    const begin = `http://localhost${path}`;
    return send(host.url, "GET", path + "x".repeat(bytes - begin.length), headers);
  };

  test("a URL has up to 12 KiB", async () => {
    const query = "/v1/sizes/stream/a?x=";
    expect((await withUrlOf(URL_BYTES_MAX, query)).status).toBe(200);
    await refusedWith(await withUrlOf(URL_BYTES_MAX + 1, query), 414, "URI_TOO_LONG");
    await refusedWith(await withUrlOf(URL_BYTES_MAX + 1, "/health?"), 414, "URI_TOO_LONG");
    await refusedWith(await withUrlOf(60 * KIB, "/health?"), 414, "URI_TOO_LONG");
  });

  test("a path has up to 2 KiB", async () => {
    const at = (bytes) => "/v1/sizes/stream/".padEnd(bytes, "x");
    const long = await send(host.url, "GET", at(PATH_BYTES_MAX), headers);
    await refusedWith(long, 400, "INVALID_PATH");
    const longer = await send(host.url, "GET", at(PATH_BYTES_MAX + 1), headers);
    await refusedWith(longer, 414, "URI_TOO_LONG");
  });

  // workerd itself refuses a URL of more than 64 KiB and a head of more than some 500 KiB, with a
  // line of plain text that nobody here can change.
  test("all headers have up to 32 KiB together", async () => {
    // Each counts as `name: value` and a line end; `send` adds three.
    const others = { host: "localhost", origin: "https://example.com", connection: "close" };
    const all = Object.entries({ ...others, ...headers });
    const taken = all.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
    const filled = (bytes) => ({ ...headers, "x-filler": "x".repeat(bytes - taken - 12) });
    const path = new URL(url).pathname;
    const fits = await send(host.url, "GET", path, filled(HEADERS_BYTES_MAX - 200));
    expect(fits.status).toBe(200);
    for (const bytes of [HEADERS_BYTES_MAX + 200, 100 * KIB, 300 * KIB]) {
      const response = await send(host.url, "GET", path, filled(bytes));
      await refusedWith(response, 431, "HEADERS_TOO_LARGE");
    }
    const many = Object.fromEntries(Array.from({ length: 900 }, (_, at) => [`x-${at}`, "x".repeat(32)]));
    const answer = await send(host.url, "GET", "/health", many);
    await refusedWith(answer, 431, "HEADERS_TOO_LARGE");
  });

  test("a body has up to BODY_BYTES_MAX", async () => {
    const append = (bytes) => {
      const all = { "content-type": "text/plain", ...headers };
      return fetch(url, { method: "POST", headers: all, body: "x".repeat(bytes) });
    };
    const before = (await fetch(url, { method: "HEAD", headers })).headers;
    const { details } = await refusedWith(await append(BODY_BYTES_MAX + 1), 413, "BODY_TOO_LARGE");
    expect(details).toEqual({ bytesMax: BODY_BYTES_MAX });
    const after = (await fetch(url, { method: "HEAD", headers })).headers;
    expect(after.get("stream-next-offset")).toBe(before.get("stream-next-offset"));
    expect((await append(BODY_BYTES_MAX)).status).toBe(204);
  });
});

describe("the rate of requests", () => {
  const LIMIT = 25;
  const PERIOD_MS = 60_000;
  const ORIGIN = "https://app.example";
  let host;
  let secret;
  let url;

  beforeAll(async () => {
    host = await startJwtHost({}, { rateLimit: LIMIT });
    // A window of the limiter begins with each minute: one that ends now would be two.
    const left = PERIOD_MS - (Date.now() % PERIOD_MS);
    if (left < 10_000) await sleep(left);
    secret = await createProject(host.url, "rate", { corsOrigins: [ORIGIN] });
    url = `${host.url}/v1/rate/stream/a`;
    const headers = { "content-type": "text/plain", ...bearer(fresh()) };
    expect((await fetch(url, { method: "PUT", headers })).status).toBe(201);
  });
  afterAll(() => host.stop());

  const fresh = () => token("rate", secret, { jti: newSecret() });
  const ask = (headers, init = {}) =>
    fetch(url, { ...init, headers: { origin: ORIGIN, ...headers } });
  const exhaust = async (headers, status) => {
    for (let at = 0; at < LIMIT; at += 1) {
      expect((await ask(headers)).status, `request ${at}`).toBe(status);
    }
    return ask(headers);
  };
  const expectLimited = async (response) => {
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(response.headers.get("access-control-allow-origin")).toBe(ORIGIN);
    await refusedWith(response, 429, "RATE_LIMITED");
  };

  test("is counted by token", async () => {
    const first = bearer(fresh());
    await expectLimited(await exhaust(first, 200));
    const body = "x";
    const type = { "content-type": "text/plain" };
    await expectLimited(await ask({ ...first, ...type }, { method: "POST", body }));
    // From wherever it comes.
    await expectLimited(await ask({ ...first, "cf-connecting-ip": "192.0.2.7" }));
    // Another token, and whoever has none, is not concerned.
    const second = bearer(fresh());
    const page = await ask(second);
    expect([page.status, await page.text()]).toEqual([200, ""]);
    await refusedWith(await ask({ "cf-connecting-ip": "192.0.2.8" }), 401, "UNAUTHORIZED");
  });

  test("is counted by address for those without a good token", async () => {
    const address = { "cf-connecting-ip": "192.0.2.1" };
    for (let at = 0; at < LIMIT; at += 1) {
      // Each is another bad token: that makes nobody another caller.
      const tried = at % 3 === 0 ? {} : bearer(at % 3 === 1 ? `x${at}` : token("rate", newSecret()));
      await refusedWith(await ask({ ...address, ...tried }), 401, "UNAUTHORIZED");
    }
    await expectLimited(await ask({ ...address, ...bearer("another") }));
    await expectLimited(await ask(address));
    await refusedWith(await ask({ "cf-connecting-ip": "192.0.2.2" }), 401, "UNAUTHORIZED");
    // Who has a good token is not held up by a neighbour.
    expect((await ask({ ...address, ...bearer(fresh()) })).status).toBe(200);
  });

  test("is told to who asks for a WebSocket or an event stream as well", async () => {
    const headers = bearer(fresh());
    await expectLimited(await exhaust(headers, 200));
    const request = (query) => fetch(`${url}?offset=-1&${query}`, { headers: { origin: ORIGIN, ...headers } });
    await expectLimited(await request("live=sse"));
    await expectLimited(await request("live=long-poll"));
  });
});
