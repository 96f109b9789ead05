// Live readers: long-poll and SSE, many and slow ones, and the deletion of what they read.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  SERVER,
  append,
  appended,
  close,
  created,
  expectCommonHeaders,
  expectError,
  expectSameBytes,
  freshStream,
  nextOffset,
  randomBuffer,
  read,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { EventReader, decodeEvents, expectOrderly } from "./event_reader.mjs";
import { open, requestHead } from "./raw_socket.mjs";

const TEXT = "text/plain";
const longPoll = (url, offset, options) => read(url, offset, { live: "long-poll", ...options });

async function stream(type, body, headers = {}) {
  const url = freshStream("live");
  return { url, start: await created(url, { type, body, ...headers }) };
}

describe("SSE carries", () => {
  test("JSON as arrays of messages, each with its control event", async () => {
    const { url } = await stream(JSON_TYPE, '[{"n":0},{"n":1}]');
    const reader = await EventReader.open(url, "-1");
    expectCommonHeaders(reader.response.headers);
    expect(reader.isBase64).toBe(false);
    await reader.untilUpToDate();
    const end = await appended(url, '[{"n":2}, [3], "a\\nb\u2028c", null]');
    await reader.until(({ messages }) => messages.length === 6, "6 messages");
    expect(reader.messages).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }, [3], "a\nb\u2028c", null]);
    expect(reader.offset).toBe(end);
    await close(url);
    await reader.untilEnd();
    expect(reader.closed).toBe(true);
    expect(reader.controls.at(-1).streamCursor).toBeUndefined();
    expectOrderly(reader);
  });

  test("JSON that was sent over several lines, each message in one", async () => {
    const { url } = await stream(JSON_TYPE);
    const reader = await EventReader.open(url, "-1");
    const messages = [{ a: [1, { b: "two\nlines\r" }] }, "x", { c: null }];
    await appended(url, JSON.stringify(messages, null, 2).replace(/\n/g, "\r\n\t"));
    await close(url);
    await reader.untilEnd();
    expect(reader.messages).toEqual(messages);
    expect(await (await read(url, "-1")).json()).toEqual(messages);
    const data = reader.events.find(({ kind }) => kind === "data");
    expect(data.text.split("\n")).toHaveLength(messages.length + 2);
  });

  test("text as lines, whatever ends them", async () => {
    const { url } = await stream(TEXT, "begin\n");
    const reader = await EventReader.open(url, "-1");
    await reader.untilUpToDate();
    const injection = "data: x\nevent: control\n\n";
    const texts = ["a\nb", "c\r\nd", "e\rf", " leading", "\n\n", injection, "é€😀"];
    for (const text of texts) {
      const end = await appended(url, text, { type: TEXT });
      await reader.until(({ offset }) => offset === end, "the append");
    }
    await close(url);
    await reader.untilEnd();
    expect(reader.text).toBe(`begin\n${texts.join("")}`.replace(/\r\n?/g, "\n"));
    expectOrderly(reader);
  });

  test("anything else as base64", async () => {
    const body = randomBuffer(3_000_000, seeded(11));
    for (const type of [BINARY_TYPE, "application/x-protobuf", "application/ndjson"]) {
      const { url } = await stream(type, body);
      const reader = await EventReader.open(url, "-1");
      expect(reader.isBase64).toBe(true);
      await reader.until(({ bytes }) => bytes.length === body.length, "all bytes");
      await appended(url, Buffer.from([0, 255, 10, 13]), { type });
      await close(url);
      await reader.untilEnd();
      expectSameBytes(reader.bytes, Buffer.concat([body, Buffer.from([0, 255, 10, 13])]));
      expectOrderly(reader);
    }
  });

  test("3 MB of text without cutting characters", async () => {
    const text = "a€😀é\n".repeat(250_000);
    const { url } = await stream(TEXT, text, { "stream-closed": "true" });
    const reader = await EventReader.open(url, "-1");
    await reader.untilEnd();
    expectSameBytes(reader.bytes, Buffer.from(text));
    // Every offset of a control event continues the text.
    expect(reader.controls.length).toBeGreaterThan(2);
    for (const { streamNextOffset } of reader.controls) {
      const page = Buffer.from(await (await read(url, streamNextOffset)).arrayBuffer());
      const isInside = page.length > 0 && page[0] >= 0x80 && page[0] < 0xc0;
      expect(isInside, `${streamNextOffset} lies inside a character`).toBe(false);
    }
  });

  test("a JSON message of 3 MB, and 10 MB of messages", async () => {
    const { url } = await stream(JSON_TYPE, JSON.stringify("m".repeat(3_000_000)));
    const reader = await EventReader.open(url, "-1");
    const expected = ["m".repeat(3_000_000)];
    for (let n = 0; n < 10; n += 1) {
      const batch = Array.from({ length: 1000 }, (_, at) => `${n}.${at}.${"x".repeat(1000)}`);
      expected.push(...batch);
      await appended(url, JSON.stringify(batch));
    }
    await close(url);
    await reader.untilEnd(30_000);
    expect(reader.messages).toEqual(expected);
    expectOrderly(reader);
  });

  test("a fork's inherited bytes and then its own", async () => {
    const { url } = await stream(JSON_TYPE, "[1,2]");
    const copy = freshStream("live");
    await created(copy, { "stream-forked-from": new URL(url).pathname });
    const reader = await EventReader.open(copy, "-1");
    await reader.untilUpToDate();
    await appended(url, '"of the source"');
    await appended(copy, "3");
    await reader.until(({ messages }) => messages.length >= 3, "the fork's own");
    await close(copy);
    await reader.untilEnd();
    expect(reader.messages).toEqual([1, 2, 3]);
    expectOrderly(reader);
  });

  test("nothing but the tail, from `now`", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1,2]");
    const reader = await EventReader.open(url, "now");
    await reader.untilUpToDate();
    expect(reader.events).toHaveLength(1);
    expect(reader.offset).toBe(start);
    await appended(url, "3");
    await reader.until(({ messages }) => messages.length === 1, "the next message");
    expect(reader.messages).toEqual([3]);
    reader.close();
  });

  test("the end of a closed stream at once", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]", { "stream-closed": "true" });
    for (const [offset, count] of [["-1", 1], ["now", 0], [start, 0]]) {
      const reader = await EventReader.open(url, offset);
      await reader.untilEnd();
      expect(reader.messages).toHaveLength(count);
      expect(reader.controls.at(-1)).toEqual({
        kind: "control",
        streamNextOffset: start,
        upToDate: true,
        streamClosed: true,
      });
    }
  });
});

describe("long-poll", () => {
  test("answers at once what is there, page by page", async () => {
    const body = randomBuffer(2_500_000, seeded(12));
    const { url } = await stream(BINARY_TYPE, body);
    const parts = [];
    for (let offset = "-1"; parts.length === 0 || parts.at(-1).next; ) {
      const response = await longPoll(url, offset);
      expect(response.status).toBe(200);
      expectCommonHeaders(response.headers);
      expect(response.headers.get("stream-cursor")).toMatch(/^\d+$/);
      parts.push({ bytes: Buffer.from(await response.arrayBuffer()) });
      offset = nextOffset(response);
      parts.at(-1).next = response.headers.get("stream-up-to-date") !== "true";
    }
    expect(parts.length).toBeGreaterThan(2);
    expectSameBytes(Buffer.concat(parts.map(({ bytes }) => bytes)), body);
  });

  test("waits for the next append, of any type", async () => {
    const cases = [
      [JSON_TYPE, '{"n":1}', '[{"n":1}]'],
      [TEXT, "line\r\n", "line\r\n"],
      [BINARY_TYPE, Buffer.from([0, 255]), Buffer.from([0, 255])],
    ];
    for (const [type, body, expected] of cases) {
      const { url, start } = await stream(type);
      const waiting = [longPoll(url, "-1"), longPoll(url, "now"), longPoll(url, start)];
      await sleep(150);
      const end = await appended(url, body, { type });
      for (const response of await Promise.all(waiting)) {
        expect(response.status).toBe(200);
        expectSameBytes(Buffer.from(await response.arrayBuffer()), Buffer.from(expected));
        expect(nextOffset(response)).toBe(end);
        expect(response.headers.get("content-type")).toBe(type);
        expect(response.headers.get("stream-up-to-date")).toBe("true");
        expect(response.headers.get("stream-cursor")).toMatch(/^\d+$/);
        expect(response.headers.get("etag")).toBeTruthy();
      }
    }
  });

  test("tells a close at once", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]");
    const waiting = longPoll(url, start);
    await sleep(150);
    await close(url);
    const later = [await longPoll(url, start), await longPoll(url, "now")];
    for (const response of [await waiting, ...later]) {
      expect(response.status).toBe(204);
      expect(response.headers.get("stream-closed")).toBe("true");
      expect(response.headers.get("stream-up-to-date")).toBe("true");
      expect(nextOffset(response)).toBe(start);
    }
  });

  test("tells an append that closes in one answer", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]");
    const waiting = longPoll(url, start);
    await sleep(150);
    await appended(url, "2", { "stream-closed": "true" });
    const response = await waiting;
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual([2]);
    expect(response.headers.get("stream-closed")).toBe("true");
  });

  test("of 200 clients is woken by one append", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1]");
    const waiting = Array.from({ length: 200 }, () => longPoll(url, start));
    await sleep(1500);
    const began = performance.now();
    const end = await appended(url, '{"for":"all"}');
    const answers = await Promise.all(waiting);
    expect(performance.now() - began).toBeLessThan(5000);
    for (const response of answers) {
      expect(response.status).toBe(200);
      expect(nextOffset(response)).toBe(end);
      expect(await response.json()).toEqual([{ for: "all" }]);
    }
  });

  test("in a chain of appends sees each one once", async () => {
    const { url } = await stream(JSON_TYPE);
    const total = 150;
    const follow = async () => {
      const messages = [];
      for (let offset = "-1"; messages.length < total; ) {
        const response = await longPoll(url, offset);
        expect(response.status).toBe(200);
        messages.push(...(await response.json()));
        offset = nextOffset(response);
      }
      return messages;
    };
    const followers = [follow(), follow(), follow(), follow()];
    for (let n = 0; n < total; n += 1) await appended(url, String(n));
    for (const messages of await Promise.all(followers)) {
      expect(messages).toEqual([...Array(total).keys()]);
    }
  });
});

describe("many SSE readers", () => {
  test("that come at any time see every message once", async () => {
    const { url } = await stream(JSON_TYPE);
    const total = 400;
    const readers = [];
    const random = seeded(13);
    const joining = (async () => {
      for (let n = 0; n < 60; n += 1) {
        readers.push(await EventReader.open(url, "-1"));
        await sleep(random() * 20);
      }
    })();
    // Appends of several connections, so that groups form.
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let n = 0; n < total / 4; n += 1) await appended(url, JSON.stringify([[writer, n]]));
    });
    await Promise.all([joining, ...writers]);
    await close(url);
    const [first] = readers;
    await first.untilEnd();
    expect(first.messages).toHaveLength(total);
    for (let writer = 0; writer < 4; writer += 1) {
      const own = first.messages.filter(([by]) => by === writer).map(([, n]) => n);
      expect(own).toEqual([...Array(total / 4).keys()]);
    }
    for (const reader of readers) {
      await reader.untilEnd();
      expectOrderly(reader);
      expect(reader.messages).toEqual(first.messages);
    }
  });

  test("that leave without a word disturb nobody", async () => {
    const { url } = await stream(JSON_TYPE);
    const staying = await EventReader.open(url, "-1");
    for (let round = 0; round < 10; round += 1) {
      const leaving = [];
      for (let n = 0; n < 5; n += 1) leaving.push(await EventReader.open(url, "-1"));
      const path = new URL(url).pathname;
      const socket = await open(SERVER);
      socket.on("error", () => {});
      socket.write(requestHead("GET", `${path}?offset=now&live=long-poll`));
      await appended(url, String(2 * round));
      for (const reader of leaving) reader.close();
      socket.resetAndDestroy();
      await appended(url, String(2 * round + 1));
    }
    await close(url);
    await staying.untilEnd();
    expect(staying.messages).toEqual([...Array(20).keys()]);
  });
});

describe("a slow SSE reader", () => {
  test("gets 5 MB in order once it reads again, and holds up nobody", async () => {
    const { url } = await stream(BINARY_TYPE);
    const path = new URL(url).pathname;
    const socket = await open(SERVER);
    socket.setTimeout(0);
    socket.pause();
    socket.write(requestHead("GET", `${path}?offset=-1&live=sse`, { connection: "close" }));
    const quick = await EventReader.open(url, "-1");
    await quick.untilUpToDate();
    const random = seeded(14);
    const parts = Array.from({ length: 100 }, () => randomBuffer(52_000, random));
    for (const part of parts) {
      const began = performance.now();
      await appended(url, part, { type: BINARY_TYPE });
      expect(performance.now() - began, "time of an append").toBeLessThan(2000);
    }
    await quick.until(({ bytes }) => bytes.length === 5_200_000, "everything, quickly");
    await close(url);
    await quick.untilEnd();
    await sleep(500);

    // Reads a little, waits, reads on.
    const chunks = [];
    for await (const chunk of socket) {
      chunks.push(chunk);
      if (chunks.length % 20 === 0) await sleep(10);
    }
    expectSameBytes(decodeEvents(chunks), Buffer.concat(parts));
    expectSameBytes(quick.bytes, Buffer.concat(parts));
    expect(Buffer.concat(chunks).toString("latin1")).toContain('"streamClosed":true');
  });

  test("whose stream is deleted gets no byte of the next life", async () => {
    const { url } = await stream(BINARY_TYPE, Buffer.alloc(8 * MIB, "o"));
    const socket = await open(SERVER);
    socket.pause();
    const target = `${new URL(url).pathname}?offset=-1&live=sse`;
    socket.write(requestHead("GET", target, { connection: "close" }));
    await sleep(500);
    await remove(url);
    await created(url, { type: BINARY_TYPE, body: Buffer.alloc(8 * MIB, "n") });
    await sleep(500);
    const chunks = [];
    for await (const chunk of socket) chunks.push(chunk);
    const whole = decodeEvents(chunks);
    expect(whole.length).toBeGreaterThan(0);
    expect(whole.length).toBeLessThanOrEqual(8 * MIB);
    expect(whole.every((byte) => byte === 0x6f)).toBe(true);
  });

  test("that never reads is not waited for", async () => {
    const { url } = await stream(JSON_TYPE);
    const path = new URL(url).pathname;
    const sockets = [];
    for (let n = 0; n < 10; n += 1) {
      const socket = await open(SERVER);
      socket.on("error", () => {});
      socket.pause();
      socket.write(requestHead("GET", `${path}?offset=-1&live=sse`));
      sockets.push(socket);
    }
    const quick = await EventReader.open(url, "-1");
    const message = JSON.stringify("m".repeat(100_000));
    for (let n = 0; n < 100; n += 1) await appended(url, message);
    await quick.until(({ messages }) => messages.length === 100, "everything");
    for (const socket of sockets) socket.destroy();
    await appended(url, '"last"');
    await quick.until(({ messages }) => messages.length === 101, "the last");
    quick.close();
  });
});

describe("deleting a stream", () => {
  test("ends its readers at once", async () => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const readers = [];
    for (let n = 0; n < 10; n += 1) readers.push(await EventReader.open(url, "-1"));
    const waiting = Array.from({ length: 10 }, () => longPoll(url, "now"));
    for (const reader of readers) await reader.untilUpToDate();
    await sleep(200);
    const began = performance.now();
    await remove(url);
    for (const reader of readers) {
      await reader.untilEnd(3000);
      expect(reader.messages).toEqual([1]);
      expect(reader.closed).toBe(false);
    }
    for (const response of await Promise.all(waiting)) {
      await expectError(response, 404, "STREAM_NOT_FOUND");
    }
    expect(performance.now() - began).toBeLessThan(3000);
  });

  test("and creating it again never shows the new life to an old reader", async () => {
    const url = freshStream("live");
    for (let life = 0; life < 20; life += 1) {
      await created(url, { type: JSON_TYPE, body: String(life) });
      const reader = await EventReader.open(url, "-1");
      await reader.untilUpToDate();
      const waiting = longPoll(url, "now");
      if (life % 2 === 0) await sleep(20);
      await remove(url);
      await created(url, { type: JSON_TYPE, body: '"new"' });
      await appended(url, '"more"');
      await reader.untilEnd(3000);
      expect(reader.messages).toEqual([life]);
      // The wait began in the old life, or came too late for it.
      const response = await waiting;
      if (life % 2 === 0) expect(response.status).toBe(404);
      await remove(url);
    }
  });
});

test("a reader at an odd offset is refused before it is attached", async () => {
  const { url } = await stream(JSON_TYPE, "[1]");
  for (const live of ["sse", "long-poll"]) {
    await expectError(await read(url, "what", { live }), 400, "INVALID_OFFSET");
    const nowhere = freshStream("live");
    await expectError(await read(nowhere, "-1", { live }), 404, "STREAM_NOT_FOUND");
  }
});
