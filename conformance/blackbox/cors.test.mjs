// Which pages may read which answers: origins of the deployment and of a project, preflights, and
// what caches are told.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createProject, token } from "../tokens.mjs";
import { Host } from "./host.mjs";
import { ADMIN, bearer, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";

const PROJECT = "cors";
const OPEN_PROJECT = "cors-open";
const GLOBAL = "https://global.example";
const APP = "https://app.example";
const CORS_ORIGINS = `${GLOBAL}, https://*.wild.example`;
const PROJECT_ORIGINS = [APP, "https://*.apps.example", "http://localhost:5173"];

const ALLOWED = [...PROJECT_ORIGINS, GLOBAL, "https://a.apps.example", "https://b.wild.example"]
  .filter((origin) => !origin.includes("*"));
const FOREIGN = [
  "https://evil.example",
  "http://app.example",
  "https://app.example:8443",
  "https://APP.example",
  "https://app.example.evil.example",
  "https://evilapp.example",
  "https://apps.example",
  "https://a.b.apps.example",
  "https://evil-apps.example",
  "https://.apps.example",
  "https://*.apps.example",
  "http://localhost:5174",
  "null",
  "",
];

// What a page's client of the protocol reads of an answer.
const EXPOSED = [
  "stream-next-offset",
  "stream-cursor",
  "stream-up-to-date",
  "stream-closed",
  "stream-ttl",
  "stream-expires-at",
  "stream-public",
  "stream-sse-data-encoding",
  "producer-epoch",
  "producer-seq",
  "producer-expected-seq",
  "producer-received-seq",
  "etag",
  "location",
  "retry-after",
  "server-timing",
  "x-request-id",
];
// What it sends.
const SENT = [
  "content-type",
  "authorization",
  "if-none-match",
  "stream-seq",
  "stream-ttl",
  "stream-expires-at",
  "stream-closed",
  "stream-public",
  "stream-forked-from",
  "stream-fork-offset",
  "stream-fork-sub-offset",
  "stream-timing",
  "producer-id",
  "producer-epoch",
  "producer-seq",
  "traceparent",
];
const RESOURCES = {
  [`/v1/${PROJECT}/stream/a`]: "GET, HEAD, POST, PUT, DELETE, OPTIONS",
  [`/v1/${PROJECT}/config`]: "GET, HEAD, PUT, PATCH, OPTIONS",
  [`/v1/${PROJECT}/config/secrets`]: "POST, OPTIONS",
  [`/v1/${PROJECT}/config/secrets/00ff`]: "DELETE, OPTIONS",
  [`/v1/${PROJECT}/reconcile`]: "GET, HEAD, OPTIONS",
};
const GLOBAL_RESOURCES = {
  "/health": "GET, HEAD, OPTIONS",
  "/openapi.json": "GET, HEAD, OPTIONS",
};

let host;
let headers;
let url;

beforeAll(async () => {
  host = await startJwtHost({ CORS_ORIGINS, LONG_POLL_TIMEOUT_MS: "200" });
  const secret = await createProject(host.url, PROJECT, { corsOrigins: PROJECT_ORIGINS });
  await createProject(host.url, OPEN_PROJECT, { corsOrigins: ["*"], isPublic: true });
  headers = { "content-type": "application/json", ...bearer(token(PROJECT, secret)) };
  url = `${host.url}/v1/${PROJECT}/stream/a`;
  expect((await fetch(url, { method: "PUT", headers, body: "[1]" })).status).toBe(201);
});
afterAll(() => host.stop());

const list = (text) => (text ?? "").split(",").map((part) => part.trim().toLowerCase());
const corsHeaders = ({ headers: all }) =>
  [...all.keys()].filter((name) => name.startsWith("access-control-"));

function expectAllowed(response, origin) {
  expect(response.headers.get("access-control-allow-origin")).toBe(origin);
  const exposed = list(response.headers.get("access-control-expose-headers"));
  expect(EXPOSED.filter((name) => !exposed.includes(name))).toEqual([]);
  // Nobody is asked for cookies.
  expect(response.headers.get("access-control-allow-credentials")).toBe(null);
  expectVaries(response);
}

function expectForeign(response) {
  expect(corsHeaders(response)).toEqual([]);
  expectVaries(response);
}

function expectVaries(response) {
  expect(list(response.headers.get("vary")).filter((name) => name === "origin")).toHaveLength(1);
}

/** A GET by hand: browsers and `fetch` alter some origins. */
const get = (origin, path = new URL(url).pathname, more = {}) =>
  send(host.url, "GET", path, { ...headers, origin, ...more });

/** `fetch` from a page; its body is given up. */
async function ask(origin, target, init = {}) {
  const aborter = new AbortController();
  const all = { ...headers, ...init.headers, ...(origin && { origin }) };
  const response = await fetch(target, { ...init, headers: all, signal: aborter.signal });
  if (response.headers.get("content-type") === "text/event-stream") aborter.abort();
  else await response.arrayBuffer();
  return response;
}

describe("an origin of the deployment or of the project", () => {
  test.each(ALLOWED)("%s may read", async (origin) => {
    const response = await get(origin);
    expect(response.status).toBe(200);
    expectAllowed(response, origin);
  });

  test.each(FOREIGN)("%s may not", async (origin) => {
    const response = await get(origin);
    expect(response.status).toBe(200);
    expectForeign(response);
  });

  test("nobody asks: nothing is said", async () => {
    const response = await fetch(url, { headers });
    expect(response.status).toBe(200);
    expectForeign(response);
  });

  test("a project's origins are no other project's, and none of what has no project", async () => {
    for (const path of [`/v1/${OPEN_PROJECT}-not/stream/a`, "/health", "/v1", "/v1/a%20b/stream/a"]) {
      expectForeign(await get(APP, path, { authorization: "Bearer x" }));
      expectAllowed(await get(GLOBAL, path, { authorization: "Bearer x" }), GLOBAL);
    }
  });

  test("a project may allow everybody", async () => {
    const response = await get("https://any.example", `/v1/${OPEN_PROJECT}/config`, ADMIN);
    expect(response.status).toBe(200);
    expectAllowed(response, "*");
    expectVaries(await fetch(`${host.url}/v1/${OPEN_PROJECT}/config`, { headers: ADMIN }));
  });
});

const post = (body, more = {}) => ({ method: "POST", body, headers: more });
const producer = (epoch, seq) => ({
  "producer-id": "p",
  "producer-epoch": String(epoch),
  "producer-seq": String(seq),
});
// Status, and the request, in an order that makes sense: the stream is deleted in the end.
const ANSWERS = [
  [201, () => [`${url}-new`, { method: "PUT", body: "[1,2]" }]],
  [200, () => [`${url}-new`, { method: "PUT" }]],
  [204, () => [`${url}-new`, post("[3]")]],
  [200, () => [`${url}-new`, post("[4]", producer(0, 0))]],
  [204, () => [`${url}-new`, post("[4]", producer(0, 0))]],
  [409, () => [`${url}-new`, post("[5]", producer(0, 5))]],
  [200, () => [`${url}-new?offset=-1`]],
  [200, () => [`${url}-new?offset=now`]],
  [200, () => [`${url}-new?offset=-1&live=long-poll`]],
  [204, () => [`${url}-new?offset=now&live=long-poll`]],
  [200, () => [`${url}-new?offset=-1&live=sse`]],
  [304, () => [`${url}-new?offset=-1`, { headers: { "if-none-match": "*" } }]],
  [200, () => [`${url}-new`, { method: "HEAD" }]],
  [200, () => [`${url}-new?stats`]],
  [426, () => [`${url}-new?offset=-1&live=ws`]],
  [400, () => [`${url}-new?offset=what`]],
  [400, () => [`${url}-new`, post("{")]],
  [401, () => [`${url}-new`, { headers: { authorization: "Bearer x" } }]],
  [403, () => [`${host.url}/v1/${PROJECT}/stream/__ds/a`, { method: "DELETE" }]],
  [404, () => [`${url}-missing`]],
  [404, () => [`${host.url}/v1/${PROJECT}/config/secrets/00ff`, { method: "DELETE" }]],
  [405, () => [`${url}-new`, { method: "PATCH" }]],
  [400, () => [`${host.url}/v1/${PROJECT}/config`, { method: "PATCH", body: "{}" }]],
  [200, () => [`${host.url}/v1/${PROJECT}/config`]],
  [200, () => [`${host.url}/v1/${PROJECT}/reconcile`]],
  [204, () => [`${url}-new`, { method: "DELETE" }]],
];

describe("every answer says to whom it is said", () => {
  test.each([
    ["an origin of the project", APP],
    ["an origin of the deployment", GLOBAL],
    ["a foreign origin", "https://evil.example"],
    ["nobody", undefined],
  ])("%s", async (_, origin) => {
    for (const [status, request] of ANSWERS) {
      const [target, init] = request();
      const response = await ask(origin, target, init);
      const what = `${init?.method ?? "GET"} ${target}`;
      expect({ what, status: response.status }).toEqual({ what, status });
      if ([APP, GLOBAL].includes(origin)) expectAllowed(response, origin);
      else expectForeign(response);
      expect(response.headers.get("x-content-type-options")).toBe("nosniff");
      expect(response.headers.get("cross-origin-resource-policy")).toBe("cross-origin");
    }
  });

  test("413 and 414, which the project's pages may read where the project is known", async () => {
    const long = await ask(GLOBAL, `${url}${"x".repeat(2100)}`);
    expect(long.status).toBe(414);
    expectAllowed(long, GLOBAL);
    const body = "x".repeat(9 * 1024 * 1024);
    const large = await ask(APP, url, { method: "POST", body });
    expect(large.status).toBe(413);
    expectAllowed(large, APP);
  });
});

describe("a preflight", () => {
  const preflight = (origin, path, base = host.url) =>
    send(base, "OPTIONS", path, {
      ...(origin && { origin }),
      "access-control-request-method": "POST",
      "access-control-request-headers": SENT.join(","),
    });

  test.each(Object.entries({ ...RESOURCES, ...GLOBAL_RESOURCES }))("of %s", async (path, methods) => {
    const origin = path in RESOURCES ? APP : GLOBAL;
    const response = await preflight(origin, path);
    expect(response.status).toBe(204);
    expectAllowed(response, origin);
    expect(response.headers.get("access-control-allow-methods")).toBe(methods);
    expect(response.headers.get("allow")).toBe(methods);
    const allowed = list(response.headers.get("access-control-allow-headers"));
    expect(SENT.filter((name) => !allowed.includes(name))).toEqual([]);
    expect(Number(response.headers.get("access-control-max-age"))).toBeGreaterThan(0);
  });

  test.each(Object.entries(RESOURCES))("of %s by a foreign page", async (path, methods) => {
    const response = await preflight("https://evil.example", path);
    expect(response.status).toBe(204);
    expect(response.headers.get("allow")).toBe(methods);
    expectForeign(response);
  });

  test("of a project that is not there", async () => {
    const path = "/v1/cors-unknown/stream/a";
    expectForeign(await preflight(APP, path));
    expectAllowed(await preflight(GLOBAL, path), GLOBAL);
  });

  test("of nothing is 404", async () => {
    const response = await preflight(GLOBAL, `/v1/${PROJECT}/nothing`);
    expect(response.status).toBe(404);
    expectAllowed(response, GLOBAL);
  });
});

describe("deployments that allow everybody", () => {
  const open = {};
  beforeAll(async () => {
    const start = async (name, starting) => (open[name] = await starting);
    await Promise.all([
      start("none", Host.start({ AUTH: "none" })),
      start("star", startJwtHost({ CORS_ORIGINS: "*" })),
      start("chosen", Host.start({ AUTH: "none", CORS_ORIGINS: GLOBAL })),
    ]);
    await createProject(open.star.url, PROJECT, { corsOrigins: PROJECT_ORIGINS, isPublic: true });
  });
  afterAll(() => Promise.all(Object.values(open).map((one) => one.stop())));

  test.each(["none", "star"])("%s: every answer says so by itself", async (name) => {
    const base = `${open[name].url}/v1/${PROJECT}/stream/a`;
    const requests = [
      [`${open[name].url}/health`, {}],
      [`${open[name].url}/nothing`, {}],
      [base, {}],
      [base, { method: "OPTIONS" }],
      [base, { method: "PATCH" }],
    ];
    for (const [target, init] of requests) {
      for (const origin of ["https://any.example", "null", undefined]) {
        const response = await send(
          open[name].url,
          init.method ?? "GET",
          new URL(target).pathname,
          origin === undefined ? {} : { origin },
        );
        expect(response.headers.get("access-control-allow-origin")).toBe("*");
        const exposed = list(response.headers.get("access-control-expose-headers"));
        expect(EXPOSED.filter((header) => !exposed.includes(header))).toEqual([]);
        expect(list(response.headers.get("vary"))).not.toContain("origin");
      }
    }
  });

  test("chosen origins count without tokens, too", async () => {
    const target = `${open.chosen.url}/v1/${PROJECT}/stream/a`;
    const request = (origin) => fetch(target, { method: "PUT", headers: { origin } });
    expectAllowed(await request(GLOBAL), GLOBAL);
    expectForeign(await request(APP));
    const read = (origin) => fetch(target, { headers: { origin } });
    expectAllowed(await read(GLOBAL), GLOBAL);
    expectForeign(await read(APP));
  });
});
