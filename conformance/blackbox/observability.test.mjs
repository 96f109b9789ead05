// What an operator sees of requests: one line each, traces, timing; and what no log may ever hold.
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { ADMIN_TOKEN, createProject, newSecret, token } from "../tokens.mjs";
import { eventually } from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { ADMIN, bearer, breakRecord, configure, refusedWith, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";
import { SUBPROTOCOL, SocketReader, refusal, socketUrl } from "./ws_client.mjs";

const PROJECT = "observed";
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT = `00-${TRACE}-b7ad6b7169203331-01`;
// What the runtime itself writes, which is no JSON.
const NOISE = [/^$/];

let host;
let secret;
let url;
/** Every token and signing secret that was ever sent to the host. */
const secrets = [ADMIN_TOKEN];
let count = 0;

beforeAll(async () => {
  host = await startJwtHost({ LONG_POLL_TIMEOUT_MS: "500" });
  secret = keep(await createProject(host.url, PROJECT));
  url = `${host.url}/v1/${PROJECT}/stream/seen/a`;
  const response = await fetch(url, { method: "PUT", headers: json(), body: "[1]" });
  expect(response.status).toBe(201);
});
afterAll(() => host.stop());

function keep(text) {
  secrets.push(text);
  return text;
}

const good = (more = {}) => keep(token(PROJECT, secret, { jti: `${(count += 1)}`, ...more }));
const json = () => ({ "content-type": "application/json", ...bearer(good()) });

/** Lines of a console that are JSON; all others have to be known. */
function linesOf(text) {
  const complete = text.slice(0, text.lastIndexOf("\n") + 1);
  const lines = complete.split("\n").filter((line) => !NOISE.some((noise) => noise.test(line)));
  return lines.map((line) => {
    try {
      return JSON.parse(line);
    } catch {
      throw new Error(`a line that is no JSON: ${line.slice(0, 300)}`);
    }
  });
}

/** The one line of the request with this id. */
async function lineOf(id) {
  const isMeant = ({ event, requestId }) => event === "request" && requestId === id;
  const lines = await eventually(
    async () => linesOf(host.console).filter(isMeant),
    ({ length }) => length > 0,
  );
  expect(lines, id).toHaveLength(1);
  return lines[0];
}

/** Sends a request with an id of its own, as the platform gives one; its line and the answer. */
async function traced(method, path, headers = {}, body) {
  const id = `ray-${(count += 1)}`;
  const response = await send(host.url, method, path, { "cf-ray": id, ...headers }, body);
  return { id, response, line: await lineOf(id) };
}

const STREAM = `/v1/${PROJECT}/stream/seen`;
// Method, path, body; operation, status, whether a stream and a project belong to it.
const REQUESTS = [
  ["PUT", `${STREAM}/b`, "[1]", "createStream", 201, { stream: "seen/b" }],
  ["POST", `${STREAM}/b`, "[2]", "appendStream", 204, { stream: "seen/b" }],
  ["POST", `${STREAM}/b`, "{", "appendStream", 400, { stream: "seen/b" }],
  ["GET", `${STREAM}/b`, undefined, "readStream", 200, { stream: "seen/b" }],
  ["GET", `${STREAM}/%62?offset=-1`, undefined, "readStream", 200, { stream: "seen/b" }],
  ["GET", `${STREAM}/b?offset=now&live=long-poll`, undefined, "readStream", 204, { stream: "seen/b" }],
  ["HEAD", `${STREAM}/b`, undefined, "headStream", 200, { stream: "seen/b" }],
  ["GET", `${STREAM}/b?stats`, undefined, "streamStats", 200, { stream: "seen/b" }],
  ["DELETE", `${STREAM}/b`, undefined, "deleteStream", 204, { stream: "seen/b" }],
  ["GET", `${STREAM}/b`, undefined, "readStream", 404, { stream: "seen/b" }],
  ["GET", `${STREAM}/%22%3C%C3%A9`, undefined, "readStream", 404, { stream: 'seen/"<é' }],
  ["OPTIONS", `${STREAM}/b`, undefined, "preflight", 204, { stream: "seen/b" }],
  ["PATCH", `${STREAM}/b`, "", "refused", 405, { stream: "seen/b", code: "METHOD_NOT_ALLOWED" }],
  ["PUT", `/v1/${PROJECT}/stream/__ds/b`, "", "refused", 403, { stream: "__ds/b", code: "RESERVED" }],
  ["GET", `/v1/${PROJECT}/config`, undefined, "readConfig", 200, {}],
  ["PATCH", `/v1/${PROJECT}/config`, '{"isPublic":false}', "changeConfig", 200, {}],
  ["PUT", `/v1/${PROJECT}/config`, "{}", "refused", 403, { code: "FORBIDDEN" }],
  ["POST", `/v1/${PROJECT}/config/secrets`, "{}", "addSecret", 400, {}],
  ["DELETE", `/v1/${PROJECT}/config/secrets/00ff`, undefined, "removeSecret", 404, {}],
  ["GET", `/v1/${PROJECT}/reconcile`, undefined, "reconcile", 200, {}],
  ["GET", "/health", undefined, "health", 200, { project: undefined }],
  ["GET", "/openapi.json", undefined, "openApi", 200, { project: undefined }],
  ["GET", "/nothing", undefined, "refused", 404, { project: undefined, code: "ROUTE_NOT_FOUND" }],
  ["GET", "/v1/a%20b/stream/x", undefined, "refused", 400, { project: undefined, code: "INVALID_PROJECT" }],
];

describe("a request is one line", () => {
  test.each(REQUESTS)("%s %s", async (method, path, body, operation, status, names) => {
    const { id, line, response } = await traced(method, path, json(), body);
    expect(response.status).toBe(status);
    const { durationMs, ...fields } = line;
    expect(durationMs).toBeGreaterThanOrEqual(0);
    const expected = { project: PROJECT, ...names };
    const present = Object.entries(expected).filter(([, value]) => value !== undefined);
    expect(fields).toEqual({
      event: "request",
      requestId: id,
      operation,
      status,
      ...Object.fromEntries(present),
    });
    expect(response.headers.get("x-request-id")).toBe(status >= 400 ? id : null);
  });

  test("of who is refused, too", async () => {
    for (const headers of [bearer(keep("garbage-of-observability")), bearer(keep(token(PROJECT, newSecret())))]) {
      const { line, response } = await traced("POST", `${STREAM}/a`, headers, "[1]");
      expect(line).toMatchObject({ operation: "refused", project: PROJECT, stream: "seen/a" });
      expect([line.status, response.status]).toEqual([401, 401]);
    }
  });

  test("of an upgrade, too, with a request id when it is refused", async () => {
    const id = `ray-${(count += 1)}`;
    const headers = { "cf-ray": id, ...bearer(good()) };
    const socket = await SocketReader.open(url, "-1", { headers });
    expect(await lineOf(id)).toMatchObject({ operation: "readStream", status: 101 });
    await socket.close();
    const bad = `ray-${(count += 1)}`;
    const answer = await refusal(socketUrl(url, "-1"), { headers: { "cf-ray": bad } });
    expect(answer.headers.get("x-request-id")).toBe(bad);
    expect(await lineOf(bad)).toMatchObject({ status: 401 });
  });

  test("a request without a usable id gets one", async () => {
    const ids = new Set();
    for (const ray of [undefined, "", "a b", "x".repeat(65), "é", "a,b", "a_b"]) {
      const headers = ray === undefined ? {} : { "cf-ray": ray };
      const response = await send(host.url, "GET", "/nothing", headers);
      const id = response.headers.get("x-request-id");
      expect(id).toMatch(/^[0-9a-f]{16}$/);
      expect(await lineOf(id)).toMatchObject({ operation: "refused", status: 404 });
      ids.add(id);
    }
    expect(ids.size).toBe(7);
  });
});

describe("a trace", () => {
  test.each([
    ["of version 00", TRACEPARENT],
    ["that is not sampled", TRACEPARENT.replace(/01$/, "00")],
    ["of a later version", `01-${TRACE}-b7ad6b7169203331-01-more`],
  ])("%s is in the line", async (_, traceparent) => {
    const { line } = await traced("GET", `${STREAM}/a`, { traceparent, ...bearer(good()) });
    expect(line.traceId).toBe(TRACE);
    const refused = await traced("GET", "/nothing", { traceparent });
    expect(refused.line.traceId).toBe(TRACE);
  });

  test.each([
    "",
    "what",
    TRACEPARENT.toUpperCase(),
    TRACEPARENT.slice(1),
    `${TRACEPARENT}-more`,
    `ff-${TRACE}-b7ad6b7169203331-01`,
    `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    `${TRACEPARENT}, ${TRACEPARENT}`,
  ])("%j is ignored", async (traceparent) => {
    const { line, response } = await traced("GET", `${STREAM}/a`, { traceparent, ...bearer(good()) });
    expect(response.status).toBe(200);
    expect(line).not.toHaveProperty("traceId");
  });

  test("is in every line of a socket", async () => {
    const trace = randomBytes(16).toString("hex");
    const headers = { traceparent: `00-${trace}-b7ad6b7169203331-01`, ...bearer(good()) };
    const socket = await SocketReader.open(url, "-1", { headers });
    await socket.untilUpToDate();
    await socket.close();
    const traced = () => linesOf(host.console).filter(({ traceId }) => traceId === trace);
    const isThere = (name) => traced().some(({ event }) => event === name);
    const events = ["request", "ws_open", "ws_close"];
    await eventually(async () => events.filter(isThere), ({ length }) => length === 3);
  });
});

describe("timing", () => {
  const PHASE = /^[a-z]+;dur=\d+(\.\d+)?$/;
  const phases = (response) => (response.headers.get("server-timing") ?? "").split(/, */);

  test("is told to who asks for it", async () => {
    for (const value of ["true", "TRUE"]) {
      for (const [method, path, body] of [
        ["GET", `${STREAM}/a`],
        ["HEAD", `${STREAM}/a`],
        ["POST", `${STREAM}/a`, "[2]"],
        ["GET", `${STREAM}/missing`],
        ["GET", "/health"],
      ]) {
        const headers = { "stream-timing": value, ...json() };
        const { id, response } = await traced(method, path, headers, body);
        const told = phases(response);
        expect(told.filter((phase) => !PHASE.test(phase))).toEqual([]);
        expect(told.some((phase) => phase.startsWith("edge;"))).toBe(true);
        expect(response.headers.get("x-request-id")).toBe(id);
      }
    }
  });

  test("is told to nobody else", async () => {
    for (const value of [undefined, "false", "1", ""]) {
      const headers = value === undefined ? {} : { "stream-timing": value };
      const { response } = await traced("GET", `${STREAM}/a`, { ...headers, ...bearer(good()) });
      expect(response.headers.get("server-timing")).toBe(null);
      expect(response.headers.get("x-request-id")).toBe(null);
    }
  });
});

describe("a deployment that logs less", () => {
  const hosts = {};
  beforeAll(async () => {
    // A project whose record cannot be read is the service's failure.
    const start = async (name) => {
      const one = (hosts[name] = await startJwtHost({ LOG_REQUESTS: name }));
      breakRecord(one, keep(await createProject(one.url, "p")), "{}");
      await one.restart();
    };
    await Promise.all(["errors", "none"].map(start));
  });
  afterAll(() => Promise.all(Object.values(hosts).map((one) => one.stop())));

  const requests = async ({ url: base, ...one }) => {
    for (const path of ["/health", "/nothing", "/v1/p/stream/a"]) {
      const headers = { "cf-ray": `ray${path.replaceAll("/", "-")}` };
      await (await fetch(base + path, { headers })).text();
    }
    return one;
  };
  const logged = (one) => linesOf(one.console).filter(({ event }) => event === "request");

  test("errors: what the service failed to answer", async () => {
    await requests(hosts.errors);
    const lines = await eventually(async () => logged(hosts.errors), ({ length }) => length > 0);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ requestId: "ray-v1-p-stream-a", status: 500, project: "p" });
  });

  test("none: nothing", async () => {
    await requests(hosts.none);
    await requests(hosts.errors);
    await eventually(async () => logged(hosts.errors), ({ length }) => length > 1);
    expect(logged(hosts.none)).toEqual([]);
  });
});

describe("no token is ever told", () => {
  const at = (name) => `${host.url}/v1/${PROJECT}/stream/secret/${name}`;
  const create = async (name) => {
    const response = await fetch(at(name), { method: "PUT", headers: json(), body: "[1]" });
    expect(response.status).toBe(201);
    return at(name);
  };
  const remove = async (target) => {
    expect((await fetch(target, { method: "DELETE", headers: json() })).status).toBe(204);
  };
  const bad = () => [
    keep(token(PROJECT, newSecret())),
    good({ seconds: -90 }),
    good({ stream_id: "other" }),
    keep("not-a-token-0123456789"),
  ];

  test("of reads, good and bad, in every mode", async () => {
    const target = await create("reads");
    for (const text of [good(), ...bad()]) {
      for (const live of ["", "&live=long-poll", "&live=sse", "&live=ws"]) {
        const aborter = new AbortController();
        const { signal } = aborter;
        await fetch(`${target}?offset=-1${live}&token=${text}`, { signal });
        await fetch(`${target}?tok%65n=${text}&offset=-1${live}`, { signal });
        aborter.abort();
      }
      const malformed = await fetch(`${target}?offset=what&token=${text}`);
      expect(await malformed.text()).not.toContain(text);
    }
  });

  test("of requests where it does not belong", async () => {
    const target = await create("elsewhere");
    const text = good();
    for (const method of ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD"]) {
      await fetch(`${target}?token=${text}`, { method });
    }
    await fetch(`${host.url}/nothing?token=${text}`);
    await fetch(`${host.url}/health?token=${text}`);
    await fetch(`${host.url}/v1/${PROJECT}/config?token=${text}`);
    const created = await fetch(`${at("new")}?token=${text}`, { method: "PUT", headers: json() });
    await refusedWith(created, 401, "UNAUTHORIZED");
  });

  test("of live readers whose stream is deleted", async () => {
    const target = await create("deleted");
    const text = good();
    const socket = await SocketReader.open(target, "-1", { query: { token: text } });
    const offered = await SocketReader.open(target, "-1", {
      protocols: [SUBPROTOCOL, `bearer.${good()}`],
    });
    await Promise.all([socket.untilUpToDate(), offered.untilUpToDate()]);
    const events = await fetch(`${target}?offset=-1&live=sse&token=${text}`);
    const waiting = fetch(`${target}?offset=now&live=long-poll&token=${text}`);
    await socket.acked({ payload: 2 });
    await waiting;
    const again = fetch(`${target}?offset=now&live=long-poll&token=${text}`);
    await eventually(
      async () => (await fetch(`${target}?stats`, { headers: json() })).json(),
      ({ readers }) => readers.longPoll === 1,
    );
    await remove(target);
    await Promise.all([socket.untilError("STREAM_NOT_FOUND", 4404), offered.untilEnd(4404)]);
    await refusedWith(await again, 404, "STREAM_NOT_FOUND");
    await events.text().catch(() => {});
    const gone = await refusal(socketUrl(target, "-1", { token: text }));
    await refusedWith(gone, 404, "STREAM_NOT_FOUND");
  });

  test("of live readers whose token ends, or who leave", async () => {
    const target = await create("ends");
    // 60 s of leeway are nearly over.
    const short = () => good({ seconds: -57 });
    const socket = await SocketReader.open(target, "-1", { query: { token: short() } });
    const reader = await EventReader.open(target, "-1", bearer(short()));
    const events = await fetch(`${target}?offset=-1&live=sse&token=${short()}`);
    const leaver = await SocketReader.open(target, "-1", { query: { token: good() } });
    await leaver.untilUpToDate();
    await leaver.abandon("rst");
    await socket.untilError("UNAUTHORIZED", 1008);
    await reader.untilEnd();
    await events.text();
  });

  test("of the admin API", async () => {
    const next = keep(newSecret());
    const add = (body) => configure(host, "POST", `${PROJECT}/config/secrets`, body);
    expect((await add({ signingSecret: next })).status).toBe(201);
    expect((await add(`{"signingSecret":"${next}"`)).status).toBe(400);
    expect((await add({ signingSecret: next, [keep(newSecret())]: 1 })).status).toBe(400);
    expect((await add({ signingSecret: [next] })).status).toBe(400);
    expect((await configure(host, "PUT", `${PROJECT}/config`, { signingSecret: next })).status).toBe(409);
    expect((await fetch(url, { headers: ADMIN })).status).toBe(401);
  });

  test("neither whole nor its signature, nor a query", async () => {
    await traced("GET", "/health");
    const { console } = host;
    expect(linesOf(console).length).toBeGreaterThan(100);
    expect(secrets.length).toBeGreaterThan(50);
    const parts = secrets.flatMap((text) => [text, text.split(".").at(-1)]);
    expect(parts.filter((text) => console.includes(text))).toEqual([]);
    expect(console).not.toMatch(/token=|tok%65n|bearer|eyJ/i);
  });
});
