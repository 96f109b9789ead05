// Every operation of the route table against every kind of credential: who is let through, who is
// refused with what, and that a refusal changes nothing.
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { ADMIN_TOKEN, createProject, jwt, newSecret, token } from "../tokens.mjs";
import { ADMIN, bearer, configure, refusedWith, seconds, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";

const PROJECT = "matrix";
const OTHER = "matrix-other";
const UNKNOWN = "matrix-unknown";
// Beyond the leeway of a minute, and within it.
const FAR = 90;
const NEAR = 30;

const world = {};
let freshCount = 0;
const freshPath = () => `kept/path-${(freshCount += 1)}`;
const freshSession = () => `session-${(freshCount += 1)}`;

beforeAll(async () => {
  world.host = await startJwtHost();
  const { url } = world.host;
  world.secret = await createProject(url, PROJECT);
  world.second = await addSecret();
  world.removed = await addSecret();
  world.otherSecret = await createProject(url, OTHER);
  const { secrets } = await (await configure(world.host, "GET", `${PROJECT}/config`)).json();
  expect(secrets).toHaveLength(3);
  const gone = await configure(world.host, "DELETE", `${PROJECT}/config/secrets/${secrets[2].id}`);
  expect(gone.status).toBe(204);
  world.path = await createStream();
  world.state = await stateOf(world.path);
  expect(world.state.tail).toBeTruthy();
});
afterAll(() => world.host.stop());

async function addSecret() {
  const signingSecret = newSecret();
  const response = await configure(world.host, "POST", `${PROJECT}/config/secrets`, {
    signingSecret,
  });
  expect(response.status).toBe(201);
  return signingSecret;
}

const streamUrl = (path, project = PROJECT) => `${world.host.url}/v1/${project}/stream/${path}`;
const manage = () => bearer(token(PROJECT, world.secret));

async function createStream(path = freshPath()) {
  const response = await fetch(streamUrl(path), {
    method: "PUT",
    headers: { "content-type": "application/json", ...manage() },
    body: "[1]",
  });
  expect(response.status).toBe(201);
  return path;
}

async function createSession(session = freshSession()) {
  const url = `${world.host.url}/v1/${PROJECT}/session/${session}`;
  const response = await fetch(url, { method: "PUT", headers: manage() });
  expect(response.status, await response.text()).toBe(201);
  return session;
}

async function stateOf(path) {
  const [head, config] = await Promise.all([
    fetch(streamUrl(path), { method: "HEAD", headers: manage() }),
    configure(world.host, "GET", `${PROJECT}/config`),
  ]);
  const tail = head.headers.get("stream-next-offset");
  return { status: head.status, tail, config: await config.text() };
}

/** The table as the router has it. */
function operationsOf(source) {
  const [, table] = /^operations! \{\n([^]*?)^\}/m.exec(source);
  const rows = table.matchAll(/^ {4}\w+ "(\w+)" (\w+) "([A-Z]+)" (\w+) "/gm);
  return [...rows].map(([, id, resource, method, access]) => ({ id, resource, method, access }));
}

const ROUTES = new URL("../../crates/protocol/src/routes.rs", import.meta.url);
const OPERATIONS = operationsOf(readFileSync(ROUTES, "utf8"));

// The streams that an operation names: a token that is for some streams has to cover each of them.
const ofStream = ({ path }) => [path];
const ofSession = ({ session }) => [`session/${session}`];
const ofBoth = (target) => [...ofSession(target), ...ofStream(target)];
const ofProject = () => [];

// What each operation takes, by its contract; `names`: the streams that it names, one by default;
// `passed`: its status when it is let through.
const JSON_BODY = { headers: { "content-type": "application/json" } };
const onStream = ({ path }, project) => `/v1/${project}/stream/${path}`;
const onSession = ({ session }, project) => `/v1/${project}/session/${session}`;
const below = (rest) => (_, project) => `/v1/${project}/${rest}`;
const subscription = ({ session, path }) => JSON.stringify({ sessionId: session, streamId: path });
const EXPECTED = {
  createStream: { needs: "write", url: onStream, body: () => "[2]", ...JSON_BODY, passed: 201 },
  appendStream: { needs: "write", url: onStream, body: () => "[2]", ...JSON_BODY, passed: 204 },
  readStream: { needs: "read", url: onStream, passed: 200 },
  headStream: { needs: "read", url: onStream, passed: 200 },
  deleteStream: { needs: "write", url: onStream, passed: 204 },
  streamStats: {
    needs: "manage",
    url: (target, project) => `${onStream(target, project)}?stats`,
    passed: 200,
  },
  createSession: { needs: "write", url: onSession, names: ofSession, passed: 201 },
  showSession: { needs: "token", url: onSession, names: ofSession, passed: 200 },
  deleteSession: { needs: "write", url: onSession, names: ofSession, passed: 204 },
  touchSession: {
    needs: "token",
    url: (target, project) => `${onSession(target, project)}/touch`,
    names: ofSession,
    passed: 200,
  },
  subscribe: {
    needs: "write",
    url: below("subscribe"),
    names: ofBoth,
    body: subscription,
    ...JSON_BODY,
    passed: 200,
  },
  subscribeBatch: {
    needs: "write",
    url: below("subscribe/batch"),
    names: ofBoth,
    body: ({ session, path }) =>
      JSON.stringify({ sessionId: session, subscriptions: [{ streamId: path }] }),
    ...JSON_BODY,
    passed: 200,
  },
  unsubscribe: {
    needs: "write",
    url: below("unsubscribe"),
    names: ofBoth,
    body: subscription,
    ...JSON_BODY,
    passed: 200,
  },
  publish: {
    needs: "write",
    url: ({ path }, project) => `/v1/${project}/publish/${path}`,
    body: () => "[2]",
    ...JSON_BODY,
    passed: 204,
  },
  readConfig: { needs: "config", url: below("config"), names: ofProject, passed: 200 },
  // The project is there already, which only who may create it is told.
  createProject: {
    needs: "admin",
    url: below("config"),
    names: ofProject,
    body: () => JSON.stringify({ signingSecret: newSecret() }),
    passed: 409,
  },
  changeConfig: {
    needs: "config",
    url: below("config"),
    names: ofProject,
    body: () => JSON.stringify({ corsOrigins: [] }),
    passed: 200,
  },
  // The secret is there already.
  addSecret: {
    needs: "config",
    url: below("config/secrets"),
    names: ofProject,
    body: () => JSON.stringify({ signingSecret: world.second }),
    refusedBody: () => JSON.stringify({ signingSecret: newSecret() }),
    passed: 200,
  },
  removeSecret: {
    needs: "config",
    url: below("config/secrets/0123456789abcdef"),
    names: ofProject,
    passed: 404,
  },
  reconcile: { needs: "manage", url: below("reconcile"), names: ofProject, passed: 200 },
  health: { needs: "open", url: () => "/health", passed: 200 },
  openApi: { needs: "open", url: () => "/openapi.json", passed: 200 },
};

const UNAUTHORIZED = [401, "UNAUTHORIZED"];
const FORBIDDEN = [403, "FORBIDDEN"];
const PASSED = "passed";

const RANK = ["read", "write", "manage"];

/** What a good token of a scope is answered. */
function scoped(scope) {
  return (needs) => {
    if (needs === "admin") return FORBIDDEN;
    const needed = { config: "manage", token: "read" }[needs] ?? needs;
    return RANK.indexOf(scope) >= RANK.indexOf(needed) ? PASSED : FORBIDDEN;
  };
}

/** What a good token for some streams is answered: nothing of the project as a whole. */
const covering = (isCovered) => (needs, names) =>
  names.length > 0 && names.every(isCovered) ? scoped("manage")(needs) : FORBIDDEN;

const never = () => UNAUTHORIZED;
const forbidden = () => FORBIDDEN;

const claims = (more = {}) => ({ sub: PROJECT, scope: "manage", exp: seconds() + 3600, ...more });
const signed = (more, header) => bearer(jwt(claims(more), world.secret, header));
const unsigned = (header, signature) => {
  const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return bearer(`${encoded(header)}.${encoded(claims())}.${signature}`);
};
function hs512() {
  const [header, payload] = jwt(claims(), "", { alg: "HS512", typ: "JWT" }).split(".");
  const mac = createHmac("sha512", world.secret).update(`${header}.${payload}`);
  return bearer(`${header}.${payload}.${mac.digest("base64url")}`);
}
function tampered() {
  const [header, , signature] = jwt(claims({ scope: "read" }), world.secret).split(".");
  const payload = Buffer.from(JSON.stringify(claims())).toString("base64url");
  return bearer(`${header}.${payload}.${signature}`);
}
const raw = (authorization) => () => ({ authorization });

// Name, headers of a request that names this stream, and what an operation answers; then the URL's
// project.
const CREDENTIALS = [
  ["no token", () => ({}), never],
  ["Basic", raw("Basic dXNlcjpwYXNzd29yZA=="), never],
  ["Bearer without a token", raw("Bearer"), never],
  ["Bearer and a space", raw("Bearer "), never],
  ["an empty header", raw(""), never],
  ["garbage", raw("Bearer garbage"), never],
  ["garbage in three parts", raw("Bearer a.b.c"), never],
  ["the bare token", () => ({ authorization: token(PROJECT, world.secret) }), never],
  [
    "two tokens",
    () => ({ authorization: `Bearer ${token(PROJECT, world.secret)}, Bearer x` }),
    never,
  ],
  ["a signature of somebody else", () => bearer(token(PROJECT, newSecret())), never],
  ["claims changed after signing", tampered, never],
  ["alg none, unsigned", () => unsigned({ alg: "none" }, ""), never],
  ["alg none, signed", () => signed({}, { alg: "none", typ: "JWT" }), never],
  ["alg HS512", hs512, never],
  ["alg HS512 over a signature of HS256", () => signed({}, { alg: "HS512" }), never],
  ["alg RS256", () => signed({}, { alg: "RS256" }), never],
  ["alg in small letters", () => signed({}, { alg: "hs256" }), never],
  ["a critical extension", () => signed({}, { alg: "HS256", crit: ["b64"], b64: false }), never],
  ["expired", () => signed({ exp: seconds() - FAR }), never],
  ["expired within the leeway", () => signed({ exp: seconds() - NEAR }), scoped("manage")],
  ["not valid yet", () => signed({ nbf: seconds() + FAR }), never],
  ["not valid yet within the leeway", () => signed({ nbf: seconds() + NEAR }), scoped("manage")],
  ["no exp", () => signed({ exp: undefined }), never],
  ["exp as text", () => signed({ exp: String(seconds() + 60) }), never],
  ["no scope", () => signed({ scope: undefined }), never],
  ["an unknown scope", () => signed({ scope: "owner" }), never],
  ["no sub", () => signed({ sub: undefined }), never],
  ["stream_id null", () => signed({ stream_id: null }), never],
  ["stream_id empty", () => signed({ stream_id: "" }), never],
  ["9 KiB", () => signed({ padding: "x".repeat(9 * 1024) }), never],
  ["another project's", () => bearer(token(OTHER, world.otherSecret)), never],
  ["our project, another's secret", () => bearer(token(PROJECT, world.otherSecret)), never],
  ["another project, our secret", () => signed({ sub: OTHER }), forbidden],
  ["ours at an unknown project", () => manage(), never, UNKNOWN],
  ["an unknown project's own", () => bearer(token(UNKNOWN, world.secret)), never, UNKNOWN],
  ["ours at another project", () => manage(), never, OTHER],
  ["read", () => signed({ scope: "read" }), scoped("read")],
  ["write", () => signed({ scope: "write" }), scoped("write")],
  ["manage", () => signed({ scope: "manage" }), scoped("manage")],
  ["several scopes", () => signed({ scope: "read other write" }), scoped("write")],
  [
    "bearer in small letters",
    () => ({ authorization: `bearer ${token(PROJECT, world.secret)}` }),
    scoped("manage"),
  ],
  [
    "the admin token",
    () => ADMIN,
    (needs) => (["config", "admin"].includes(needs) ? PASSED : UNAUTHORIZED),
  ],
  ["nearly the admin token", () => bearer(ADMIN_TOKEN.slice(0, -1)), never],
  [
    "exactly this stream",
    (name) => signed({ stream_id: name }),
    covering((name, _, names) => name === names[0]),
  ],
  [
    "a glob of streams",
    () => signed({ stream_id: "kept/*" }),
    covering((name) => name.startsWith("kept/")),
  ],
  [
    "a glob of sessions",
    () => signed({ stream_id: "session/*" }),
    covering((name) => name.startsWith("session/")),
  ],
  ["a glob of everything", () => signed({ stream_id: "**" }), covering(() => true)],
  ["a glob of one segment", () => signed({ stream_id: "*" }), forbidden],
  ["a glob of other streams", () => signed({ stream_id: "other/**" }), forbidden],
  ["a removed secret", () => bearer(token(PROJECT, world.removed)), never],
  ["the second secret", () => bearer(token(PROJECT, world.second)), scoped("manage")],
];

test("every operation of the table is here", () => {
  expect(OPERATIONS.length).toBeGreaterThan(10);
  expect(OPERATIONS.map(({ id }) => id).sort()).toEqual(Object.keys(EXPECTED).sort());
});

test("the table asks for what the contract says", () => {
  const access = OPERATIONS.map(({ id, access }) => [id, access.toLowerCase()]);
  const needs = Object.entries(EXPECTED).map(([id, { needs }]) => [id, needs]);
  expect(Object.fromEntries(access)).toEqual(Object.fromEntries(needs));
});

describe.each(OPERATIONS)("$id", ({ id, method }) => {
  const { needs, url, body, refusedBody, names = ofStream, headers = {}, passed } = EXPECTED[id];

  const isNew = id === "createStream";
  const isNewSession = id === "createSession";
  const changesStream = ["appendStream", "deleteStream", "publish"].includes(id);
  const wantsSession = ["showSession", "deleteSession", "touchSession", "unsubscribe"].includes(id);

  async function targetFor(isPassed) {
    const isOwn = isPassed && changesStream;
    const path = isNew ? freshPath() : isOwn ? await createStream() : world.path;
    const session = isPassed && wantsSession ? await createSession() : freshSession();
    return { path, session };
  }

  test.concurrent.each(CREDENTIALS)("%s", async (_, credential, verdict, project = PROJECT) => {
    // Which streams they are does not matter to whether they are covered.
    const probe = { path: world.path, session: "probe" };
    const expected = needs === "open" ? PASSED : verdict(needs, names(probe));
    const isPassed = expected === PASSED;
    const target = await targetFor(isPassed);
    const response = await send(
      world.host.url,
      method,
      url(target, project),
      { ...headers, ...credential(names(target)[0] ?? target.path) },
      (isPassed ? body : (refusedBody ?? body))?.(target),
    );
    if (isPassed) {
      expect(response.status, await response.text()).toBe(passed);
      return;
    }
    if (method === "HEAD") expect(response.status).toBe(expected[0]);
    else await refusedWith(response, ...expected);
    if (["GET", "HEAD"].includes(method)) return;
    expect(await stateOf(world.path)).toEqual(world.state);
    if (isNew) expect((await stateOf(target.path)).status).toBe(404);
    if (isNewSession) {
      const url = `${world.host.url}/v1/${PROJECT}/session/${target.session}`;
      await refusedWith(await fetch(url, { headers: manage() }), 404, "SESSION_NOT_FOUND");
    }
  });
});

test("nobody without a token sees a session of a public project", async () => {
  const project = "matrix-public";
  await createProject(world.host.url, project, { isPublic: true });
  const session = `/v1/${project}/session/a`;
  for (const [method, path] of [["GET", session], ["POST", `${session}/touch`]]) {
    const response = await send(world.host.url, method, path);
    await refusedWith(response, 401, "UNAUTHORIZED");
  }
});

describe("what is not in the table", () => {
  const tokens = {
    none: () => ({}),
    garbage: () => bearer("garbage"),
    manage: () => manage(),
    admin: () => ADMIN,
  };

  describe.each(Object.entries(tokens))("token: %s", (_, headers) => {
    test.each([
      ["GET", "/"],
      ["GET", "/v1"],
      ["GET", `/v1/${PROJECT}`],
      ["PUT", `/v1/${PROJECT}`],
      ["GET", `/v1/${PROJECT}/nothing`],
      ["GET", `/v1/${PROJECT}/config/other`],
      ["DELETE", `/v1/${PROJECT}/config/secrets/a/b`],
      ["GET", "/v2/p/stream/a"],
      ["GET", "/health/more"],
      ["GET", `/v1/${PROJECT}/stream/__ds/a`],
      ["GET", `/v1/${PROJECT}/session`],
      ["PUT", `/v1/${PROJECT}/session/a/b`],
      ["POST", `/v1/${PROJECT}/publish`],
      ["POST", "/v1/subscribe"],
      ["GET", `/v1/${UNKNOWN}/nothing`],
    ])("%s %s is 404", async (method, path) => {
      const response = await send(world.host.url, method, path, headers());
      await refusedWith(response, 404, "ROUTE_NOT_FOUND");
    });

    test.each([
      ["PATCH", `/v1/${PROJECT}/stream/a`],
      ["TRACE", `/v1/${PROJECT}/stream/a`],
      ["PROPFIND", `/v1/${PROJECT}/stream/a`],
      ["POST", `/v1/${PROJECT}/config`],
      ["DELETE", `/v1/${PROJECT}/config`],
      ["GET", `/v1/${PROJECT}/config/secrets`],
      ["GET", `/v1/${PROJECT}/config/secrets/00ff`],
      ["PUT", `/v1/${PROJECT}/reconcile`],
      ["POST", `/v1/${PROJECT}/session/a`],
      ["GET", `/v1/${PROJECT}/session/a/touch`],
      ["GET", `/v1/${PROJECT}/subscribe`],
      ["DELETE", `/v1/${PROJECT}/subscribe/batch`],
      ["POST", `/v1/${PROJECT}/unsubscribe`],
      ["PUT", `/v1/${PROJECT}/publish/a`],
      ["POST", "/health"],
      ["DELETE", "/openapi.json"],
      ["PATCH", `/v1/${UNKNOWN}/stream/a`],
    ])("%s %s is 405", async (method, path) => {
      const response = await send(world.host.url, method, path, headers());
      expect(response.headers.get("allow")).toContain("OPTIONS");
      await refusedWith(response, 405, "METHOD_NOT_ALLOWED");
    });

    test.each(["PUT", "POST", "DELETE"])("%s of a reserved path is 403", async (method) => {
      const path = `/v1/${PROJECT}/stream/__ds/a`;
      const response = await send(world.host.url, method, path, headers());
      await refusedWith(response, 403, "RESERVED");
    });

    test.each([
      ["__ds/a", 403, "RESERVED"],
      ["session/a", 409, "SOURCE_IS_SESSION"],
    ])("nothing is published to %s", async (path, status, code) => {
      const response = await send(
        world.host.url,
        "POST",
        `/v1/${PROJECT}/publish/${path}`,
        headers(),
      );
      await refusedWith(response, status, code);
    });
  });

  test("HEAD takes what GET takes", async () => {
    for (const path of [`${PROJECT}/config`, `${PROJECT}/reconcile`]) {
      const url = `${world.host.url}/v1/${path}`;
      const ask = async (headers) => (await fetch(url, { method: "HEAD", headers })).status;
      expect(await ask({})).toBe(401);
      expect(await ask(signed({ scope: "write" }))).toBe(403);
      expect(await ask(manage())).toBe(200);
    }
  });
});
