// Public streams, and who may do what to them. On a server that lets everybody in, a client is
// anonymous when it says so itself.
import { describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  SERVER,
  append,
  appended,
  ask,
  close,
  create,
  created,
  expectError,
  freshStream,
  head,
  nextOffset,
  read,
  readMessages,
  remove,
  sleep,
} from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { SocketReader, refusal, socketUrl } from "./ws_client.mjs";

const ANONYMOUS = { "x-durable-streams-audience": "anonymous" };
const PUBLIC = { type: JSON_TYPE, "stream-public": "true" };

const isPublic = (response) => response.headers.get("stream-public");

async function publicStream(...messages) {
  const url = freshStream("public");
  await created(url, { ...PUBLIC, body: JSON.stringify(messages) });
  return url;
}

async function privateStream(...messages) {
  const url = freshStream("public");
  await created(url, { type: JSON_TYPE, body: JSON.stringify(messages) });
  return url;
}

async function expectUnauthorized(response) {
  expect(response.headers.get("www-authenticate")).toBe("Bearer");
  const error = await expectError(response, 401, "UNAUTHORIZED");
  expect(error.message).toBe("This stream needs a token.");
}

describe("Stream-Public", () => {
  test("is told by HEAD and every kind of GET", async () => {
    const url = await publicStream(1);
    const page = await read(url, "-1");
    expect(isPublic(page)).toBe("true");
    const known = { "if-none-match": page.headers.get("etag") };
    const responses = [
      await head(url),
      await read(url, "now"),
      await read(url, "-1", known),
      await read(url, "-1", { live: "long-poll" }),
    ];
    expect(responses.map(isPublic)).toEqual(["true", "true", "true", "true"]);
    const events = await EventReader.open(url, "-1");
    expect(isPublic(events.response)).toBe("true");
    events.close();
    const waiting = read(url, "now", { live: "long-poll" });
    await sleep(300);
    await appended(url, "2");
    expect(isPublic(await waiting)).toBe("true");
  });

  test("is not told of other streams", async () => {
    const url = await privateStream(1);
    const responses = [await head(url), await read(url, "-1"), await read(url, "now")];
    expect(responses.map(isPublic)).toEqual([null, null, null]);
  });

  test.each(["TRUE", "True"])("%s is true", async (value) => {
    const url = freshStream("public");
    await created(url, { "stream-public": value });
    expect(isPublic(await head(url))).toBe("true");
  });

  test.each(["false", "1", "yes", ""])("%j counts as absent", async (value) => {
    const url = freshStream("public");
    await created(url, { "stream-public": value });
    expect(isPublic(await head(url))).toBe(null);
  });

  test("is part of what a repeated PUT describes", async () => {
    const url = await publicStream();
    expect((await create(url, PUBLIC)).status).toBe(200);
    const refused = await expectError(await create(url, { type: JSON_TYPE }), 409, "STREAM_EXISTS");
    expect(refused.details).toEqual({ differs: "Stream-Public" });
    const other = await privateStream();
    expect((await create(other, { type: JSON_TYPE, "stream-public": "false" })).status).toBe(200);
    await expectError(await create(other, PUBLIC), 409, "STREAM_EXISTS");
  });

  test("is not inherited by forks, and can be theirs", async () => {
    const source = await publicStream(1);
    const forked = { "stream-forked-from": new URL(source).pathname };
    const fork = freshStream("public");
    await created(fork, forked);
    expect(isPublic(await head(fork))).toBe(null);
    await expectUnauthorized(await read(fork, "-1", ANONYMOUS));
    await expectError(await create(fork, { ...forked, "stream-public": "true" }), 409, "STREAM_EXISTS");
    const open = freshStream("public");
    await created(open, { ...forked, "stream-public": "true" });
    expect(await (await read(open, "-1", ANONYMOUS)).json()).toEqual([1]);
  });

  test("is among the statistics", async () => {
    const stats = async (url) => (await ask(`${url}?stats`)).json();
    expect((await stats(await publicStream())).public).toBe(true);
    expect((await stats(await privateStream())).public).toBe(false);
  });

  test("may be sent and read by scripts of other origins", async () => {
    const url = await publicStream();
    const preflight = await ask(url, { method: "OPTIONS" });
    expect(preflight.headers.get("access-control-allow-headers")).toContain("stream-public");
    const exposed = (await head(url)).headers.get("access-control-expose-headers");
    expect(exposed).toContain("stream-public");
  });
});

describe("an anonymous caller reads a public stream:", () => {
  test("catch-up and HEAD", async () => {
    const url = await publicStream(1, 2);
    const page = await read(url, "-1", ANONYMOUS);
    expect(await page.json()).toEqual([1, 2]);
    const response = await ask(url, { method: "HEAD", headers: ANONYMOUS });
    expect([response.status, isPublic(response)]).toEqual([200, "true"]);
    const malformed = await read(url, "what", ANONYMOUS);
    await expectError(malformed, 400, "INVALID_OFFSET");
  });

  test("long-poll", async () => {
    const url = await publicStream(1);
    const ready = await read(url, "-1", { live: "long-poll", ...ANONYMOUS });
    expect(await ready.json()).toEqual([1]);
    const waiting = read(url, nextOffset(ready), { live: "long-poll", ...ANONYMOUS });
    await sleep(300);
    await appended(url, "2");
    expect(await (await waiting).json()).toEqual([2]);
  });

  test("SSE", async () => {
    const url = await publicStream(1);
    const events = await EventReader.open(url, "-1", ANONYMOUS);
    await events.untilUpToDate();
    await appended(url, "2");
    await events.until(({ messages }) => messages.length === 2, "the second message");
    await close(url);
    await events.untilEnd();
    expect(events.messages).toEqual([1, 2]);
  });

  test("WebSocket, whose appends are refused", async () => {
    const url = await publicStream(1);
    const socket = await SocketReader.open(url, "-1", { headers: ANONYMOUS });
    await socket.untilUpToDate();
    const error = await socket.nacked({ payload: 7 }, "UNAUTHORIZED");
    expect(error.message).toBe("Appends need a token.");
    await socket.nacked({ close: true }, "UNAUTHORIZED");
    const next = await appended(url, "2");
    await socket.untilAt(next);
    expect(socket.messages).toEqual([1, 2]);
    await socket.close();
    expect(await readMessages(url)).toEqual([1, 2]);
  });
});

describe("an anonymous caller may not", () => {
  const cases = [
    ["a private stream", () => privateStream(1)],
    ["no stream", async () => freshStream("public")],
    ["a stream that has expired", async () => {
      const url = freshStream("public");
      await created(url, { ...PUBLIC, "stream-ttl": "0" });
      return url;
    }],
    ["a public stream that is held for its forks", async () => {
      const url = await publicStream(1);
      await created(freshStream("public"), { "stream-forked-from": new URL(url).pathname });
      await remove(url);
      return url;
    }],
  ];
  test.each(cases)("read %s", async (_, make) => {
    const url = await make();
    await expectUnauthorized(await read(url, "-1", ANONYMOUS));
    await expectUnauthorized(await read(url, "what", ANONYMOUS));
    await expectUnauthorized(await read(url, "-1", { live: "long-poll", ...ANONYMOUS }));
    await expectUnauthorized(await read(url, "-1", { live: "sse", ...ANONYMOUS }));
    await expectUnauthorized(await refusal(socketUrl(url, "-1"), { headers: ANONYMOUS }));
    const response = await ask(url, { method: "HEAD", headers: ANONYMOUS });
    expect(response.status).toBe(401);
  });

  test("write to a public stream, or create one", async () => {
    const url = await publicStream(1);
    await expectUnauthorized(await append(url, "2", ANONYMOUS));
    await expectUnauthorized(await close(url, ANONYMOUS));
    await expectUnauthorized(await create(url, { ...PUBLIC, ...ANONYMOUS }));
    await expectUnauthorized(await ask(url, { method: "DELETE", headers: ANONYMOUS }));
    const other = freshStream("public");
    await expectUnauthorized(await create(other, { ...PUBLIC, body: "[1]", ...ANONYMOUS }));
    expect((await head(other)).status).toBe(404);
    expect(await readMessages(url)).toEqual([1]);
    expect((await head(url)).headers.get("stream-closed")).toBe(null);
  });

  test.each(["", "authorised", "anonymous, authorised"])("use the value %j instead", async (value) => {
    const url = await privateStream(1);
    const headers = { "x-durable-streams-audience": value };
    await expectUnauthorized(await read(url, "-1", headers));
    await expectUnauthorized(await append(url, "2", headers));
  });
});

describe("a path that becomes private is no longer fed to anonymous readers:", () => {
  async function replaced(url) {
    await remove(url);
    await created(url, { type: JSON_TYPE, body: '["secret"]' });
    await appended(url, '"more"');
  }

  test("SSE", async () => {
    const url = await publicStream(1);
    const events = await EventReader.open(url, "-1", ANONYMOUS);
    await events.untilUpToDate();
    await replaced(url);
    await events.untilEnd();
    expect(events.messages).toEqual([1]);
  });

  test("long-poll", async () => {
    const url = await publicStream(1);
    const waiting = read(url, "now", { live: "long-poll", ...ANONYMOUS });
    await sleep(300);
    await replaced(url);
    await expectUnauthorized(await waiting);
  });

  test("WebSocket", async () => {
    const url = await publicStream(1);
    const socket = await SocketReader.open(url, "-1", { headers: ANONYMOUS });
    await socket.untilUpToDate();
    await replaced(url);
    await socket.untilError("STREAM_NOT_FOUND", 4404);
    expect(socket.messages).toEqual([1]);
  });

  test("catch-up at an offset of the public stream", async () => {
    const url = await publicStream(1);
    const offset = nextOffset(await read(url, "-1"));
    await replaced(url);
    await expectUnauthorized(await read(url, offset, ANONYMOUS));
  });
});

test("other paths do not know the audience", async () => {
  expect((await ask(`${SERVER}/health`, { headers: ANONYMOUS })).status).toBe(200);
});
