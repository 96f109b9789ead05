// Names of streams and projects as they stand in URLs. Sent over raw sockets: a proper client
// resolves dot segments and escapes before it sends.
import { describe, expect, test } from "vitest";

import {
  SERVER,
  append,
  ask,
  create,
  created,
  expectCommonHeaders,
  expectError,
  freshPath,
  head,
  nextOffset,
  read,
  readBytes,
  remove,
} from "./client.mjs";
import { send } from "./raw_socket.mjs";

const METHODS = ["GET", "PUT", "POST", "DELETE"];

// Spellings that no stream has, below a stream root.
const ILLEGAL = {
  "an encoded slash": ["a%2Fb", "a%2fb", "%2f", "a/%2F/b", "a%2f"],
  "a dot segment": [".", "..", "a/.", "a/..", "a/./b", "a/../b", "../a", "./a", "a/b/../../c"],
  "an encoded dot segment": ["%2e", "%2E%2e", "a/.%2e", "a/%2e/b", "%2e%2E/a", "a/%2e."],
  "an empty segment": ["a//b", "/a", "a/", "//", "a/b//"],
  "a control character": ["a%00b", "%01", "a%0Ab", "a%0d", "a%1F", "a%7fb", "a%C2%80", "a%c2%9f"],
  "a backslash": ["a\\b", "a%5Cb", "a%5c", "\\", "..\\a"],
  "no UTF-8": ["a%FF", "%C0%AF", "%ED%A0%80", "a%80b", "%F4%90%80%80", "%E2%82"],
  "a broken escape": ["a%", "a%2", "a%zz", "a%u0041", "%%41"],
  "raw bytes outside ASCII": ["\xc3\xa9", "a\xf0\x9f\x98\x80b"],
  "513 bytes": ["x".repeat(513), `${"x/".repeat(256)}x`, "%41".repeat(513), "%C3%A9".repeat(257)],
};

// Spellings of legal paths, and the decoded path that they stand for.
const LEGAL = {
  a: "a",
  "a/b/c": "a/b/c",
  "a.b": "a.b",
  "...": "...",
  "a/.../b": "a/.../b",
  ".a/b.": ".a/b.",
  "a%20b": "a b",
  "%61": "a",
  "a%25b": "a%b",
  "a%252Fb": "a%2Fb",
  "a%3Fb%23c%26d=e": "a?b#c&d=e",
  "a+b": "a+b",
  "caf%C3%A9": "café",
  "%F0%9F%98%80": "😀",
  "a:b@c,d;e=f~g!h$i'j(k)*l": "a:b@c,d;e=f~g!h$i'j(k)*l",
  "stream/x": "stream/x",
  "health": "health",
  "x__ds/y": "x__ds/y",
  "sessions/x": "sessions/x",
  "a/session/b": "a/session/b",
  "SESSION/x": "SESSION/x",
};

describe.each(Object.entries(ILLEGAL))("a path with %s", (_, spellings) => {
  test.each(spellings.map((spelling) => [spelling.slice(0, 40), spelling]))(
    "is refused: %s",
    async (_, spelling) => {
      for (const root of ["/v1/p/stream/", "/v1/stream/"]) {
        for (const method of METHODS) {
          const response = await send(SERVER, method, root + spelling);
          await expectError(response, 400, "INVALID_PATH");
        }
        const response = await send(SERVER, "HEAD", root + spelling);
        expect(response.status).toBe(400);
        expectCommonHeaders(response.headers);
      }
    },
  );
});

describe("a legal path", () => {
  test.each(Object.entries(LEGAL))("%s names one stream", async (spelling, decoded) => {
    const project = freshPath("paths").split("/").at(-1);
    const target = `/v1/${project}/stream/${spelling}`;
    const headers = { "content-type": "text/plain" };
    const response = await send(SERVER, "PUT", target, headers, decoded);
    expect(response.status).toBe(201);
    expect(new URL(response.headers.get("location")).pathname).toBe(target);
    // The same name with every byte escaped, but for its slashes.
    const escaped = [...Buffer.from(decoded)]
      .map((byte) => (byte === 0x2f ? "/" : `%${byte.toString(16).padStart(2, "0")}`))
      .join("");
    const other = await send(SERVER, "GET", `/v1/${project}/stream/${escaped}`);
    expect(await other.text()).toBe(decoded);
  });

  test("of 512 bytes is the longest", async () => {
    const project = freshPath("paths").split("/").at(-1);
    for (const spelling of ["x".repeat(512), "%C3%A9".repeat(256), `${"x/".repeat(255)}xx`]) {
      const url = `${SERVER}/v1/${project}/stream/${spelling}`;
      await created(url, { type: "text/plain", body: "longest" });
      expect((await readBytes(url)).toString()).toBe("longest");
    }
  });

  test("in the default project has two URLs; Location keeps the one asked for", async () => {
    const name = freshPath("paths").split("/").at(-1);
    const short = `${SERVER}/v1/stream/${name}`;
    const long = `${SERVER}/v1/_default/stream/${name}`;
    const response = await create(short, { type: "text/plain", body: "x" });
    expect(response.headers.get("location")).toBe(short);
    expect((await readBytes(long)).toString()).toBe("x");
    expect((await remove(long)).status).toBe(204);
    expect((await head(short)).status).toBe(404);
    const again = await create(long, { type: "text/plain", body: "y" });
    expect(again.headers.get("location")).toBe(long);
  });

  test("is case-sensitive, and separate in each project", async () => {
    const [, , , , name] = freshPath("paths/x").split("/");
    const unique = freshPath("paths").split("/").at(-1);
    const urls = [
      `${SERVER}/v1/p-${unique}/stream/${name}`,
      `${SERVER}/v1/P-${unique}/stream/${name}`,
      `${SERVER}/v1/p-${unique}/stream/${name.toUpperCase()}`,
      `${SERVER}/v1/p-${unique}/stream/${name}/x`,
      `${SERVER}/v1/p_${unique}/stream/${name}`,
    ];
    for (const url of urls) await created(url, { type: "text/plain", body: url });
    for (const url of urls) expect((await readBytes(url)).toString()).toBe(url);
  });
});

describe("a project", () => {
  test.each(["a.b", "a%41", "p".repeat(65), "", "a~b", "a+b", "a:b", "%20", "..", "."])(
    "%j is refused",
    async (project) => {
      for (const method of METHODS) {
        const response = await send(SERVER, method, `/v1/${project}/stream/x`);
        await expectError(response, 400, "INVALID_PROJECT");
      }
    },
  );

  const legal = ["p".repeat(64), "_", "-", "0", "A-b_9", "v1", "_default"];

  test.each(legal)("%j is legal", async (project) => {
    const name = freshPath("paths").split("/").at(-1);
    await created(`${SERVER}/v1/${project}/stream/${name}`);
  });
});

describe("a reserved path", () => {
  const reserved = ["__ds", "__ds/x", "session", "session/x", "%5F_ds/x", "sessio%6E/x"];

  test.each(reserved)("%s takes no writes", async (spelling) => {
    for (const root of ["/v1/p/stream/", "/v1/stream/"]) {
      for (const method of ["PUT", "POST", "DELETE"]) {
        const headers = { "content-type": "text/plain" };
        const response = await send(SERVER, method, root + spelling, headers, "x");
        await expectError(response, 403, "RESERVED");
      }
    }
  });

  test("session can be read as any stream", async () => {
    const url = `${SERVER}/v1/p/stream/session/nobody`;
    await expectError(await read(url, "-1"), 404, "STREAM_NOT_FOUND");
    await expectError(await read(url, "-1", { live: "sse" }), 404, "STREAM_NOT_FOUND");
    expect((await head(url)).status).toBe(404);
  });

  test("__ds has nothing yet", async () => {
    for (const path of ["__ds", "__ds/jwks.json", "__ds/subscriptions/x"]) {
      const url = `${SERVER}/v1/p/stream/${path}`;
      await expectError(await read(url, "-1"), 404, "ROUTE_NOT_FOUND");
      expect((await head(url)).status).toBe(404);
    }
  });
});

describe("other URLs", () => {
  test.each([
    "/",
    "/v1",
    "/v1/",
    "/v1/p",
    "/v1/p/",
    "/v1/stream",
    "/v1/p/stream",
    "/v1/p/Stream/x",
    "/v2/p/stream/x",
    "/V1/p/stream/x",
    "/v1/p/%73tream/x",
    "/v1/../v1/p/stream/x",
    "/../v1/p/stream/x",
    "/health/",
    "/Health",
    "/internal/reference",
    "/internal/copy?source=1&from=0&to=1",
    "//v1/p/stream/x",
  ])("%s is no resource", async (target) => {
    for (const method of METHODS) {
      const response = await send(SERVER, method, target);
      await expectError(response, 404, "ROUTE_NOT_FOUND");
    }
  });

  test("of more than 2048 bytes are too long, wherever they lead", async () => {
    for (const target of [`/${"x".repeat(2048)}`, `/v1/p/stream/${"%41".repeat(700)}`]) {
      for (const method of METHODS) {
        await expectError(await send(SERVER, method, target), 414, "URI_TOO_LONG");
      }
    }
  });

  test("/health tells name and version", async () => {
    const response = await ask(`${SERVER}/health`);
    expect(response.status).toBe(200);
    expectCommonHeaders(response.headers);
    expect(response.headers.get("content-type")).toBe("application/json");
    const body = await response.json();
    expect(Object.keys(body)).toEqual(["name", "version"]);
    expect(body.version).toMatch(/^\d+\.\d+\.\d+/);
    expect((await head(`${SERVER}/health`)).status).toBe(200);
  });

  test("the query is no part of a name", async () => {
    const url = SERVER + freshPath("paths");
    await created(`${url}?offset=-1&live=sse`, { type: "text/plain", body: "a" });
    const response = await append(`${url}?what=ever&live=sse`, "b", { type: "text/plain" });
    expect(response.status).toBe(204);
    const whole = await ask(`${url}?unknown=1&unknown=2&offset=-1`);
    expect(await whole.text()).toBe("ab");
    expect(nextOffset(whole)).toBe(nextOffset(response));
    // Its values may be escaped, like any.
    expect(await (await ask(`${url}?offset=%2D1`)).text()).toBe("ab");
    const escaped = encodeURIComponent(nextOffset(response)).replace("_", "%5F");
    expect(await (await ask(`${url}?offset=${escaped}`)).text()).toBe("");
    expect((await remove(`${url}?x`)).status).toBe(204);
  });
});
