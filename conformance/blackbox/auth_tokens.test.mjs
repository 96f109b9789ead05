// Tokens beyond the matrix: in queries and subprotocols, on live connections that outlive them, at
// the sources of forks, and who needs none.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createProject, jwt, newSecret, token } from "../tokens.mjs";
import { freshPath, sleep } from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { bearer, configure, refusedWith, seconds, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";
import { SUBPROTOCOL, SocketReader, refusal, socketUrl } from "./ws_client.mjs";

const PROJECT = "tokens";
const OTHER = "tokens-other";
const PUBLIC = "tokens-public";
const MODES = { "catch-up": {}, "long-poll": { live: "long-poll" }, sse: { live: "sse" } };
// How late a connection may be closed after its token has ended.
const LATE_MS = 3000;

let host;
const secrets = {};

beforeAll(async () => {
  host = await startJwtHost({ READ_CHUNK_BYTES: "20" });
  secrets[PROJECT] = await createProject(host.url, PROJECT);
  secrets[OTHER] = await createProject(host.url, OTHER);
  secrets[PUBLIC] = await createProject(host.url, PUBLIC, { isPublic: true });
});
afterAll(() => host.stop());

const good = (project = PROJECT, more = {}) => token(project, secrets[project], more);
/** A path below `project` that nobody else uses, and its URL. */
const pathIn = (project) => freshPath("tokens").replace("/blackbox/", `/${project}/`);
const decodedPath = (path) => path.split("/stream/")[1];

async function createStream({ project = PROJECT, type = "application/json" } = {}) {
  const path = pathIn(project);
  const response = await put(path, bearer(good(project)), { "content-type": type });
  expect(response.status).toBe(201);
  const url = host.url + path;
  const headers = { "content-type": type, ...bearer(good(project)) };
  expect((await fetch(url, { method: "POST", headers, body: "[1]" })).status).toBe(204);
  return url;
}

function put(path, authorization, headers = {}) {
  const all = { "content-type": "application/json", ...authorization, ...headers };
  return fetch(host.url + path, { method: "PUT", headers: all });
}

/** A read from the start; its body is not waited for. */
async function ask(url, query, headers = {}) {
  const aborter = new AbortController();
  const target = `${url}?offset=-1&${query}`;
  const response = await fetch(target, { headers, signal: aborter.signal });
  if (response.status !== 200) return response;
  aborter.abort();
  return { status: 200 };
}

const modeOf = (live) => (live === undefined ? "" : `live=${live}&`);
const BAD = {
  empty: () => "token=",
  "without a value": () => "token",
  undecodable: () => "token=%zz",
  garbage: () => "token=garbage",
  forged: () => `token=${token(PROJECT, newSecret())}`,
  "of another project": () => `token=${good(OTHER)}`,
  expired: () => `token=${good(PROJECT, { seconds: -90 })}`,
  "with its name encoded": () => "tok%65n=garbage",
  "good, then bad": () => `token=${good()}&token=garbage`,
  "bad, then good": () => `token=garbage&token=${good()}`,
  "good twice": () => `token=${good()}&token=${good()}`,
  "9 KiB": () => `token=${jwt({ padding: "x".repeat(6700) }, secrets[PROJECT])}`,
};

describe.each([PROJECT, PUBLIC])("a token in the query, in the project %s", (project) => {
  let url;
  beforeAll(async () => {
    url = await createStream({ project });
  });

  describe.each(Object.entries(MODES))("%s", (_, { live }) => {
    test("a good one reads", async () => {
      const text = good(project, { scope: "read" });
      expect((await ask(url, `${modeOf(live)}token=${text}`)).status).toBe(200);
      const encoded = text.replaceAll(".", "%2E");
      expect((await ask(url, `${modeOf(live)}tok%65n=${encoded}`)).status).toBe(200);
      const other = jwt(
        { sub: project, scope: "read", exp: seconds() + 60, stream_id: "other" },
        secrets[project],
      );
      const denied = await ask(url, `${modeOf(live)}token=${other}`);
      await refusedWith(denied, 403, "FORBIDDEN");
    });

    test.each(Object.entries(BAD))("%s is 401", async (_, query) => {
      const text = query().replaceAll(PROJECT, project);
      await refusedWith(await ask(url, modeOf(live) + text), 401, "UNAUTHORIZED");
    });

    test("the header counts before it", async () => {
      const query = `${modeOf(live)}token=garbage`;
      expect((await ask(url, query, bearer(good(project)))).status).toBe(200);
      const refused = await ask(url, `${modeOf(live)}token=${good(project)}`, bearer("garbage"));
      await refusedWith(refused, 401, "UNAUTHORIZED");
    });
  });

  test.each(Object.entries(BAD))("WebSocket: %s is 401", async (_, query) => {
    const answer = await refusal(`${socketUrl(url, "-1")}&${query()}`);
    await refusedWith(answer, 401, "UNAUTHORIZED");
  });

  test("WebSocket: a good one reads", async () => {
    const query = { token: good(project, { scope: "read" }) };
    const socket = await SocketReader.open(url, "-1", { query });
    await socket.untilUpToDate();
    expect(socket.messages).toEqual([1]);
    await socket.close();
  });
});

describe("a token in the query does not count", () => {
  test.each(["PUT", "POST", "DELETE", "HEAD"])("on %s", async (method) => {
    const path = new URL(await createStream()).pathname;
    const headers = { "content-type": "application/json" };
    const body = method === "POST" ? "[2]" : undefined;
    const response = await send(host.url, method, `${path}?token=${good()}`, headers, body);
    if (method === "HEAD") expect(response.status).toBe(401);
    else await refusedWith(response, 401, "UNAUTHORIZED");
    const text = await (await fetch(host.url + path, { headers: bearer(good()) })).text();
    expect(JSON.parse(text)).toEqual([1]);
  });

  test("for statistics, the configuration and reconciling", async () => {
    const url = await createStream();
    await refusedWith(await fetch(`${url}?stats&token=${good()}`), 401, "UNAUTHORIZED");
    for (const path of ["config", "reconcile"]) {
      const response = await fetch(`${host.url}/v1/${PROJECT}/${path}?token=${good()}`);
      await refusedWith(response, 401, "UNAUTHORIZED");
    }
  });
});

describe("a token among the subprotocols", () => {
  const open = async (...protocols) => {
    const url = await createStream();
    return SocketReader.open(url, "-1", { protocols });
  };
  const refused = async (...protocols) => {
    const url = await createStream();
    return refusal(socketUrl(url, "-1"), { protocols });
  };

  test("a good one reads, and is not chosen", async () => {
    const offers = [
      [SUBPROTOCOL, `bearer.${good()}`],
      [`bearer.${good()}`, SUBPROTOCOL],
    ];
    for (const protocols of offers) {
      const socket = await open(...protocols);
      expect(socket.protocol).toBe(SUBPROTOCOL);
      await socket.untilUpToDate();
      await socket.close();
    }
  });

  test.each([
    ["garbage", () => "bearer.garbage"],
    ["empty", () => "bearer."],
    ["forged", () => `bearer.${token(PROJECT, newSecret())}`],
    ["expired", () => `bearer.${good(PROJECT, { seconds: -90 })}`],
  ])("%s is 401", async (_, protocol) => {
    const response = await refused(SUBPROTOCOL, protocol());
    await refusedWith(response, 401, "UNAUTHORIZED");
  });

  test("one for another stream is 403", async () => {
    const other = token(PROJECT, secrets[PROJECT], { stream_id: "other" });
    await refusedWith(await refused(SUBPROTOCOL, `bearer.${other}`), 403, "FORBIDDEN");
  });
});

describe("a connection and its token", () => {
  test("who may only read does not append over a socket", async () => {
    const url = await createStream();
    const socket = await SocketReader.open(url, "-1", {
      headers: bearer(good(PROJECT, { scope: "read" })),
    });
    await socket.untilUpToDate();
    await socket.nacked({ payload: 2 }, "FORBIDDEN");
    await socket.close();
    expect(socket.messages).toEqual([1]);
  });

  test("who may write appends over a socket", async () => {
    const url = await createStream();
    const headers = bearer(good(PROJECT, { scope: "write" }));
    const socket = await SocketReader.open(url, "-1", { headers });
    await socket.acked({ payload: 2 });
    await socket.close();
  });

  // A token is taken for so long behind its `exp`.
  const LEEWAY_SECONDS = 60;
  const ending = (secondsLeft) => {
    const end = seconds() + secondsLeft;
    return { end, text: token(PROJECT, secrets[PROJECT], { exp: end - LEEWAY_SECONDS }) };
  };
  const expectInTime = (end) => {
    const lateMs = Date.now() - end * 1000;
    expect(lateMs).toBeGreaterThan(-100);
    expect(lateMs).toBeLessThan(LATE_MS);
  };

  test.concurrent("a socket is closed when its token ends", async () => {
    const url = await createStream();
    const { end, text } = ending(3);
    const socket = await SocketReader.open(url, "-1", { query: { token: text } });
    await socket.untilUpToDate();
    await socket.untilError("UNAUTHORIZED", 1008);
    expectInTime(end);
  });

  test.concurrent("an event stream ends with a control event when its token ends", async () => {
    const url = await createStream();
    const { end, text } = ending(3);
    const reader = await EventReader.open(url, "-1", bearer(text));
    await reader.untilUpToDate();
    await reader.untilEnd();
    expectInTime(end);
    expect(reader.events.at(-1).kind).toBe("control");
    expect(reader.closed).toBe(false);
  });

  test.concurrent("what is opened within the leeway gets its data", async () => {
    const url = await createStream();
    const { text } = ending(30);
    const reader = await EventReader.open(url, "-1", bearer(text));
    const socket = await SocketReader.open(url, "-1", { headers: bearer(text) });
    await Promise.all([socket.untilUpToDate(), reader.untilUpToDate()]);
    await sleep(500);
    expect([socket.end, reader.ended]).toEqual([undefined, false]);
    reader.close();
    await socket.close();
  });

  test.concurrent("a token that does not end soon ends nothing", async () => {
    const url = await createStream();
    const exp = 10 ** 12;
    const headers = bearer(token(PROJECT, secrets[PROJECT], { exp }));
    const socket = await SocketReader.open(url, "-1", { headers });
    const reader = await EventReader.open(url, "-1", headers);
    await Promise.all([socket.untilUpToDate(), reader.untilUpToDate()]);
    await sleep(1500);
    expect([socket.end, reader.ended]).toEqual([undefined, false]);
    reader.close();
    await socket.close();
  });
});

describe("the source of a fork", () => {
  const fork = (source, claims = {}) => {
    const path = pathIn(PROJECT);
    const pattern = `${decodedPath(path)}`;
    const text = good(PROJECT, { scope: "write", stream_id: pattern, ...claims });
    return { path, answer: put(path, bearer(text), { "stream-forked-from": source }) };
  };
  const untouched = async (path) => {
    const response = await fetch(host.url + path, { method: "HEAD", headers: bearer(good()) });
    expect(response.status).toBe(404);
  };
  const sourcePath = async (project) => new URL(await createStream({ project })).pathname;

  test("which the token does not cover is 403", async () => {
    for (const source of [await sourcePath(PROJECT), pathIn(PROJECT)]) {
      const { path, answer } = fork(source);
      await refusedWith(await answer, 403, "FORBIDDEN");
      await untouched(path);
    }
  });

  test("which the token covers is shared", async () => {
    const source = await sourcePath(PROJECT);
    const { path, answer } = fork(source, { stream_id: "tokens/*" });
    expect((await answer).status).toBe(201);
    const response = await fetch(host.url + path, { headers: bearer(good()) });
    expect(await response.json()).toEqual([1]);
  });

  test("of another project does not exist", async () => {
    const source = await sourcePath(OTHER);
    for (const claims of [{}, { stream_id: "**" }, { stream_id: undefined }]) {
      const { path, answer } = fork(source, claims);
      await refusedWith(await answer, 404, "FORK_SOURCE_NOT_FOUND");
      await untouched(path);
    }
  });

  test("that is malformed is 400", async () => {
    for (const source of ["nothing", "/v1/a b", `/v1/${PROJECT}/stream/a//b`, "https://h/x", ""]) {
      const { path, answer } = fork(source);
      await refusedWith(await answer, 400, "INVALID_HEADER", source);
      await untouched(path);
    }
  });

  test("says nothing to who has no token", async () => {
    for (const source of [await sourcePath(PROJECT), await sourcePath(PUBLIC), "nothing"]) {
      const answer = await put(pathIn(PROJECT), {}, { "stream-forked-from": source });
      await refusedWith(answer, 401, "UNAUTHORIZED");
    }
  });
});

describe("a public project", () => {
  let url;
  beforeAll(async () => {
    url = await createStream({ project: PUBLIC });
  });

  test("is read by everybody, in every mode", async () => {
    for (const { live } of Object.values(MODES)) {
      expect((await ask(url, modeOf(live))).status).toBe(200);
    }
    expect((await fetch(url, { method: "HEAD" })).status).toBe(200);
    const socket = await SocketReader.open(url, "-1");
    await socket.untilUpToDate();
    await socket.nacked({ payload: 2 }, "UNAUTHORIZED");
    await socket.close();
    const missing = await fetch(host.url + pathIn(PUBLIC));
    await refusedWith(missing, 404, "STREAM_NOT_FOUND");
  });

  test("is written by nobody without a token", async () => {
    const headers = { "content-type": "application/json" };
    for (const method of ["PUT", "POST", "DELETE"]) {
      const body = method === "DELETE" ? undefined : "[2]";
      const response = await fetch(url, { method, headers, body });
      await refusedWith(response, 401, "UNAUTHORIZED");
    }
    const reader = good(PUBLIC, { scope: "read" });
    const denied = await fetch(url, { method: "POST", headers: bearer(reader), body: "[2]" });
    await refusedWith(denied, 403, "FORBIDDEN");
    expect(await (await fetch(url)).json()).toEqual([1]);
  });

  test("shows neither statistics nor configuration", async () => {
    for (const path of [`${url}?stats`, `${host.url}/v1/${PUBLIC}/config`]) {
      await refusedWith(await fetch(path), 401, "UNAUTHORIZED");
    }
  });

  test("a bad token is never treated as no token", async () => {
    const bad = [
      { authorization: "Basic eDp5" },
      { authorization: "Bearer" },
      bearer("garbage"),
      bearer(token(PUBLIC, newSecret())),
      bearer(good(PUBLIC, { seconds: -90 })),
    ];
    for (const headers of bad) {
      for (const { live } of Object.values(MODES)) {
        await refusedWith(await ask(url, modeOf(live), headers), 401, "UNAUTHORIZED");
      }
      expect((await fetch(url, { method: "HEAD", headers })).status).toBe(401);
      const answer = await refusal(socketUrl(url, "-1"), { headers });
      await refusedWith(answer, 401, "UNAUTHORIZED");
    }
  });

  test("stops being public when it is said to", async () => {
    const project = "tokens-once-public";
    secrets[project] = await createProject(host.url, project, { isPublic: true });
    const stream = await createStream({ project });
    expect((await fetch(stream)).status).toBe(200);
    expect((await configure(host, "PATCH", `${project}/config`, { isPublic: false })).status).toBe(200);
    await refusedWith(await fetch(stream), 401, "UNAUTHORIZED");
  });
});

describe("a public stream", () => {
  const createPublic = async () => {
    const path = pathIn(PROJECT);
    const made = await put(path, bearer(good()), { "stream-public": "true" });
    expect(made.status).toBe(201);
    return host.url + path;
  };

  test("is read by everybody, in every mode", async () => {
    const url = await createPublic();
    const headers = { "content-type": "application/json", ...bearer(good()) };
    expect((await fetch(url, { method: "POST", headers, body: "[1]" })).status).toBe(204);
    for (const { live } of Object.values(MODES)) {
      expect((await ask(url, modeOf(live))).status).toBe(200);
    }
    expect((await fetch(url, { method: "HEAD" })).status).toBe(200);
    const socket = await SocketReader.open(url, "-1");
    await socket.untilUpToDate();
    await socket.nacked({ payload: 2 }, "UNAUTHORIZED");
    await socket.close();
  });

  test("is neither written nor measured without a token", async () => {
    const url = await createPublic();
    const headers = { "content-type": "application/json", "stream-public": "true" };
    for (const method of ["PUT", "POST", "DELETE"]) {
      const body = method === "DELETE" ? undefined : "[2]";
      await refusedWith(await fetch(url, { method, headers, body }), 401, "UNAUTHORIZED");
    }
    await refusedWith(await fetch(`${url}?stats`), 401, "UNAUTHORIZED");
    expect(await (await fetch(url)).json()).toEqual([]);
  });

  test("is refused to who shows a bad token, or one for other streams", async () => {
    const url = await createPublic();
    for (const { live } of Object.values(MODES)) {
      await refusedWith(await ask(url, modeOf(live), bearer("garbage")), 401, "UNAUTHORIZED");
      await refusedWith(await ask(url, `${modeOf(live)}token=`), 401, "UNAUTHORIZED");
      const other = bearer(good(PROJECT, { stream_id: "other" }));
      await refusedWith(await ask(url, modeOf(live), other), 403, "FORBIDDEN");
    }
  });

  test("is no source that everybody may fork", async () => {
    const source = new URL(await createPublic()).pathname;
    const made = await put(pathIn(PROJECT), {}, { "stream-forked-from": source });
    await refusedWith(made, 401, "UNAUTHORIZED");
  });
});

describe("the internal mark of who asks", () => {
  test.each(["", "anonymous", "authorised"])("%j gives nobody a right", async (value) => {
    const url = await createStream();
    const mark = { "x-durable-streams-audience": value };
    for (const { live } of Object.values(MODES)) {
      await refusedWith(await ask(url, modeOf(live), mark), 401, "UNAUTHORIZED");
    }
    const headers = { "content-type": "application/json", ...mark };
    const answer = await fetch(url, { method: "POST", headers, body: "[2]" });
    await refusedWith(answer, 401, "UNAUTHORIZED");
  });
});

describe("the spelling of a path", () => {
  test("does not matter to the pattern of a token", async () => {
    const url = await createStream();
    const path = decodedPath(new URL(url).pathname);
    const spelled = url.replace("/stream/t", "/stream/%74");
    const read = async (target, stream_id) =>
      (await fetch(target, { headers: bearer(good(PROJECT, { stream_id })) })).status;
    expect(await read(url, path)).toBe(200);
    expect(await read(spelled, path)).toBe(200);
    expect(await read(url, path.replace("t", "%74"))).toBe(403);
    expect(await read(spelled, "other/**")).toBe(403);
    expect(await read(`${url}/more`, path)).toBe(403);
    expect(await read(`${url}/more`, `${path}*`)).toBe(403);
    expect(await read(`${url}/../other`, path)).toBe(403);
  });
});

describe("pages that are kept at the edge", () => {
  // A page that ends before the tail, asked for by an offset: it never changes.
  const pageUrl = async (project) => {
    const url = await createStream({ project, type: "text/plain" });
    const headers = { "content-type": "text/plain", ...bearer(good(project)) };
    for (const body of ["a".repeat(30), "b".repeat(30)]) {
      expect((await fetch(url, { method: "POST", headers, body })).status).toBe(204);
    }
    const first = await fetch(url, { headers });
    return `${url}?offset=${first.headers.get("stream-next-offset")}`;
  };
  const expectPages = async (target, headers, privacy) => {
    // The first comes from the object, the others from what is kept.
    for (let at = 0; at < 3; at += 1) {
      const response = await fetch(target, { headers });
      expect(response.status).toBe(200);
      expect(response.headers.get("stream-up-to-date")).toBe(null);
      if (at > 0) expect(["hit", "coalesced"]).toContain(response.headers.get("stream-cache"));
      expect(response.headers.get("cache-control")).toMatch(new RegExp(`^${privacy}, max-age=`));
    }
  };

  test("of a private project are the client's own elsewhere", async () => {
    await expectPages(await pageUrl(PROJECT), bearer(good()), "private");
  });

  test("of a public project may be kept by everybody", async () => {
    const target = await pageUrl(PUBLIC);
    await expectPages(target, {}, "public");
    await expectPages(target, bearer(good(PUBLIC)), "public");
  });

  test("are given to nobody who may not read them", async () => {
    const target = await pageUrl(PROJECT);
    await expectPages(target, bearer(good()), "private");
    await expectPages(`${target}&token=${good()}`, {}, "private");
    await refusedWith(await fetch(target), 401, "UNAUTHORIZED");
    await refusedWith(await fetch(target, { headers: bearer("garbage") }), 401, "UNAUTHORIZED");
    const other = bearer(good(PROJECT, { stream_id: "other" }));
    await refusedWith(await fetch(target, { headers: other }), 403, "FORBIDDEN");
  });

  test("nor is a wait that others share", async () => {
    const url = await createStream();
    const headers = { "content-type": "application/json", ...bearer(good()) };
    const tail = (await fetch(url, { method: "HEAD", headers })).headers.get("stream-next-offset");
    const target = `${url}?offset=${tail}&live=long-poll`;
    const waiting = [fetch(target, { headers }), fetch(target, { headers })];
    await sleep(200);
    const strangers = [fetch(target), fetch(target, { headers: bearer("garbage") })];
    for (const stranger of strangers) await refusedWith(await stranger, 401, "UNAUTHORIZED");
    expect((await fetch(url, { method: "POST", headers, body: "[2]" })).status).toBe(204);
    for (const answer of waiting) expect(await (await answer).json()).toEqual([2]);
    await refusedWith(await fetch(target), 401, "UNAUTHORIZED");
  });
});

describe("a private project", () => {
  test("tells who has no token nothing of its streams, in any mode", async () => {
    const url = await createStream();
    const missing = host.url + pathIn(PROJECT);
    for (const stream of [url, missing]) {
      for (const { live } of Object.values(MODES)) {
        await refusedWith(await ask(stream, modeOf(live)), 401, "UNAUTHORIZED");
      }
      expect((await fetch(stream, { method: "HEAD" })).status).toBe(401);
      const answer = await refusal(socketUrl(stream, "-1"));
      await refusedWith(answer, 401, "UNAUTHORIZED");
    }
  });
});
