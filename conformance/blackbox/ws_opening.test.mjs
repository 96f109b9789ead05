// How a WebSocket is opened, and what is refused before it is.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  SERVER,
  appended,
  ask,
  close,
  created,
  eventually,
  expectError,
  freshStream,
  head,
  moved,
  nextOffset,
  read,
  readMessages,
  remove,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { send } from "./raw_socket.mjs";
import { SUBPROTOCOL, SocketReader, refusal, socketUrl } from "./ws_client.mjs";
import { RawWebSocket, upgradeHeaders } from "./ws_raw.mjs";

const pathOf = (url) => new URL(url).pathname;

async function stream(...messages) {
  const url = freshStream("ws-opening");
  await created(url, { type: JSON_TYPE, body: JSON.stringify(messages) });
  return url;
}

const protocolOf = ({ head: text }) => /^sec-websocket-protocol: (.*)$/im.exec(text)?.[1].trim();

let small;
beforeAll(async () => {
  small = await Host.start({ READERS_MAX: "3" });
});
afterAll(() => small.stop());

describe("the subprotocol", () => {
  test("is chosen when it is offered", async () => {
    const reader = await SocketReader.open(await stream(1), "-1");
    expect(reader.protocol).toBe(SUBPROTOCOL);
    await reader.untilUpToDate();
    expect(reader.messages).toEqual([1]);
    await reader.close();
  });

  test("is chosen among others, wherever it stands", async () => {
    const url = await stream(1);
    for (const protocols of [
      ["chat", SUBPROTOCOL],
      [SUBPROTOCOL, "chat"],
      ["bearer.secret", SUBPROTOCOL, "chat"],
    ]) {
      const reader = await SocketReader.open(url, "-1", { protocols });
      expect(reader.protocol).toBe(SUBPROTOCOL);
      await reader.close();
    }
  });

  test("is none when none is offered, and the frames are the same", async () => {
    const url = await stream(1, 2);
    const offering = await SocketReader.open(url, "-1");
    const silent = await SocketReader.open(url, "-1", { protocols: [] });
    expect(silent.protocol).toBe("");
    const frames = [];
    for (const reader of [offering, silent]) {
      await reader.untilUpToDate();
      const steady = reader.frames.map(({ streamCursor, ...frame }) => frame);
      frames.push(steady);
      await reader.close();
    }
    expect(frames[1]).toEqual(frames[0]);
  });

  test("is refused when only others are offered", async () => {
    const url = await stream(1);
    for (const protocols of [
      ["chat"],
      ["durable-streams.v2"],
      ["durable-streams"],
      ["Durable-Streams.V1"],
      ["chat", "bearer.secret"],
    ]) {
      const response = await refusal(socketUrl(url, "-1"), { protocols });
      const { message } = await expectError(response, 400, "INVALID_SUBPROTOCOL");
      expect(message).not.toContain("secret");
    }
  });

  test("`bearer.…` is a token: never echoed, and alone like none", async () => {
    const url = await stream(1);
    const only = await RawWebSocket.open(url, { "sec-websocket-protocol": "bearer.secret" });
    expect(protocolOf(only)).toBeUndefined();
    const both = `bearer.secret, ${SUBPROTOCOL}`;
    const first = await RawWebSocket.open(url, { "sec-websocket-protocol": both });
    expect(protocolOf(first)).toBe(SUBPROTOCOL);
    for (const socket of [only, first]) {
      expect(socket.head).not.toContain("secret");
      await socket.until(({ dataFrames }) => dataFrames.length === 1);
      expect(JSON.stringify(socket.frames)).not.toContain("secret");
      socket.destroy();
    }
  });

  test("a token in the query is taken, whatever it is", async () => {
    const url = await stream(1);
    const reader = await SocketReader.open(url, "-1", { query: { token: "a.b~c/d+e=" } });
    await reader.untilUpToDate();
    await reader.close();
  });
});

describe("a request that is no upgrade", () => {
  test("gets 426", async () => {
    const url = await stream(1);
    await expectError(await read(url, "-1", { live: "ws" }), 426, "UPGRADE_REQUIRED");
  });

  test("gets 426 as well when it asks for another protocol", async () => {
    const path = pathOf(await stream(1));
    const headers = { connection: "Upgrade, close", upgrade: "h2c" };
    const response = await send(SERVER, "GET", `${path}?offset=-1&live=ws`, headers);
    await expectError(response, 426, "UPGRADE_REQUIRED");
  });

  test("and an upgrade that is no live read gets no socket", async () => {
    const url = await stream(1);
    // So that every answer ends.
    await close(url);
    for (const query of ["offset=-1", "offset=-1&live=sse", "offset=-1&live=long-poll"]) {
      const target = `${url.replace(/^http/, "ws")}?${query}`;
      const response = await refusal(target).catch((error) => error);
      // The server may answer as if nothing had been asked, or refuse; it must not open.
      expect(response.status, `${query}: ${response}`).toBeGreaterThanOrEqual(200);
    }
    expect((await head(url)).status).toBe(200);
  });
});

describe("the method", () => {
  test.each(["HEAD", "POST", "PUT", "DELETE"])("%s opens no socket", async (method) => {
    const url = await stream(1);
    const headers = { ...upgradeHeaders(), "content-type": JSON_TYPE };
    const body = method === "POST" || method === "PUT" ? "2" : undefined;
    const response = await send(SERVER, method, `${pathOf(url)}?offset=-1&live=ws`, headers, body);
    expect(response.status).not.toBe(101);
    expect(response.status).toBeLessThan(500);
    // The request did what it does without the headers, or nothing at all.
    const isDone = response.status < 300;
    const messages = isDone && method === "POST" ? [1, 2] : [1];
    if (method === "DELETE" && isDone) expect((await head(url)).status).toBe(404);
    else expect(await readMessages(url)).toEqual(messages);
  });
});

/** What is wrong with a request, and what answers it: `[what, request, status, code]`. */
const REFUSALS = [
  ["no such stream", async () => [freshStream("ws-opening"), "-1"], 404, "STREAM_NOT_FOUND"],
  [
    "no such stream, and a malformed offset",
    async () => [freshStream("ws-opening"), "what"],
    404,
    "STREAM_NOT_FOUND",
  ],
  [
    "an expired stream",
    async () => {
      const url = freshStream("ws-opening");
      await created(url, { type: JSON_TYPE, "stream-ttl": "0" });
      return [url, "-1"];
    },
    404,
    "STREAM_NOT_FOUND",
  ],
  [
    "a deleted stream that a fork holds",
    async () => {
      const url = await stream(1);
      const fork = freshStream("ws-opening");
      await created(fork, { "stream-forked-from": pathOf(url) });
      await remove(url);
      return [url, "-1"];
    },
    410,
    "STREAM_GONE",
  ],
  ["no offset", async () => [await stream(1), undefined], 400, "INVALID_QUERY"],
  ...["", "what", "0", "1_2", "NOW"].map((offset) => [
    `the offset ${JSON.stringify(offset)}`,
    async () => [await stream(1), offset],
    400,
    "INVALID_OFFSET",
  ]),
  [
    "an offset inside a message",
    async () => {
      const url = await stream("message", "message");
      return [url, moved(await tail(url), -3)];
    },
    400,
    "INVALID_OFFSET",
  ],
  [
    "an offset of an earlier life",
    async () => {
      const url = await stream(1, 2, 3);
      const offset = await tail(url);
      await remove(url);
      await created(url, { type: JSON_TYPE, body: "[4,5,6,7]" });
      return [url, offset];
    },
    400,
    "STALE_OFFSET",
  ],
  [
    "an offset beyond the tail",
    async () => {
      const url = await stream(1);
      return [url, moved(await tail(url), 2)];
    },
    400,
    "OFFSET_BEYOND_TAIL",
  ],
];

describe("refused before the upgrade, like a GET:", () => {
  test.each(REFUSALS)("%s", async (_, request, status, code) => {
    const [url, offset] = await request();
    const response = await refusal(socketUrl(url, offset));
    const wanted = await read(url, offset, { live: "sse" });
    const [body, wantedBody] = [await response.clone().text(), await wanted.text()];
    await expectError(response, status, code);
    expect(wanted.status).toBe(status);
    expect(body).toBe(wantedBody);
  });

  test("a path that is no stream's", async () => {
    const nowhere = socketUrl(`${SERVER}/v1/a.b/stream/x`, "-1");
    await expectError(await refusal(nowhere), 400, "INVALID_PROJECT");
    const twice = `${socketUrl(await stream(1), "-1")}&live=ws`;
    await expectError(await refusal(twice), 400, "INVALID_QUERY");
  });

  test.each(["", "-1", "1.5", "+1", "1e3", "x", "9007199254740992", "99999999999999999999"])(
    "the credit %j",
    async (credit) => {
      const url = await stream(1);
      const response = await refusal(socketUrl(url, "-1", { credit }));
      await expectError(response, 400, "INVALID_CREDIT");
    },
  );

  test("credit that stands twice", async () => {
    const target = `${socketUrl(await stream(1), "-1", { credit: 1 })}&credit=1`;
    await expectError(await refusal(target), 400, "INVALID_QUERY");
  });
});

test("the largest credit is taken", async () => {
  const url = await stream(1);
  const reader = await SocketReader.open(url, "-1", { credit: 2 ** 53 - 1 });
  await reader.untilUpToDate();
  expect(reader.messages).toEqual([1]);
  await reader.close();
});

test("READERS_MAX counts sockets: 429 with Retry-After, until one has left", async () => {
  const url = freshStream("ws-opening", small.url);
  await created(url, { type: JSON_TYPE, body: "[1]" });
  const readers = [];
  for (let n = 0; n < 3; n += 1) readers.push(await SocketReader.open(url, "-1"));
  for (const reader of readers) await reader.untilUpToDate();
  const response = await refusal(socketUrl(url, "-1"));
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
  const body = await response.clone().text();
  await expectError(response, 429, "TOO_MANY_READERS");
  expect(await (await read(url, "-1", { live: "sse" })).text()).toBe(body);
  // Whoever is there goes on.
  const end = await appended(url, "2");
  for (const reader of readers) await reader.untilAt(end);
  await readers[0].close();
  const again = await eventually(
    () => SocketReader.open(url, end).catch(() => undefined),
    (opened) => opened !== undefined,
  );
  await again.untilUpToDate();
  for (const reader of [...readers.slice(1), again]) await reader.close();
});

test("a socket counts as a reader of every mode", async () => {
  const url = freshStream("ws-opening", small.url);
  const start = await created(url, { type: BINARY_TYPE, body: "x" });
  const readers = [];
  for (let n = 0; n < 3; n += 1) readers.push(await SocketReader.open(url, "-1"));
  for (const live of ["sse", "long-poll"]) {
    await expectError(await read(url, start, { live }), 429, "TOO_MANY_READERS");
  }
  expect((await ask(`${url}?offset=-1`)).status).toBe(200);
  await close(url);
  for (const reader of readers) await reader.untilEnd();
  expect(nextOffset(await head(url))).toBe(start);
});

describe("compression", () => {
  test("is the platform's, and changes nothing", async () => {
    const url = freshStream("ws-opening");
    await created(url, { type: JSON_TYPE });
    const compress = true;
    const socket = await SocketReader.open(url, "-1", { compress });
    const strict = await SocketReader.open(url, "-1", { compress, credit: 1 });
    const messages = Array.from({ length: 200 }, (_, n) => ({ n, text: "é€😀".repeat(200) }));
    const answers = messages.map((payload) => socket.append({ payload }));
    for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    const end = await tail(url);
    await socket.untilAt(end);
    expect(socket.messages).toEqual(messages);
    expect(strict.dataFrames).toHaveLength(1);
    strict.grant(1000);
    await strict.untilAt(end);
    expect(strict.messages).toEqual(messages);
    for (const reader of [socket, strict]) await reader.close();
  });

  test("makes no message smaller than it is", async () => {
    const url = await stream(1);
    const socket = await SocketReader.open(url, "-1", { compress: true });
    await socket.untilUpToDate();
    // A few kilobytes on the wire.
    socket.send(`{"append":{"id":1,"payload":"${"x".repeat(8_000_000)}"}}`);
    await socket.untilError("MESSAGE_TOO_LARGE", 1009);
    expect(await readMessages(url)).toEqual([1]);
  });
});

describe("headers of the upgrade", () => {
  test("are read whatever their case", async () => {
    const url = await stream(1);
    const raw = await RawWebSocket.open(url, {
      upgrade: "WebSocket",
      connection: "keep-alive, upgrade",
    });
    await raw.until(({ dataFrames }) => dataFrames.length === 1);
    raw.destroy();
  });

  test("of a page of another origin are allowed", async () => {
    const url = await stream(1);
    const raw = await RawWebSocket.open(url, { origin: "https://elsewhere.example" });
    await raw.until(({ dataFrames }) => dataFrames.length === 1);
    raw.destroy();
  });

  test("without a key, or of another version, get no socket", async () => {
    const path = pathOf(await stream(1));
    for (const headers of [
      upgradeHeaders({ "sec-websocket-key": undefined }),
      upgradeHeaders({ "sec-websocket-version": "8" }),
    ]) {
      const response = await send(SERVER, "GET", `${path}?offset=-1&live=ws`, headers);
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.status).toBeLessThan(500);
    }
  });
});

test("a stream's path may be escaped, and a query may hold anything else", async () => {
  const url = `${await stream(1)}/%C3%A9%20%26`;
  await created(url, { type: JSON_TYPE, body: '["escaped"]' });
  const query = { token: "a&offset=now&live=sse", other: "%00", cursor: "7" };
  const reader = await SocketReader.open(url, "-1", { query });
  await reader.untilUpToDate();
  expect(reader.messages).toEqual(["escaped"]);
  await reader.close();
});
