// What a WebSocket delivers: the same bytes at the same offsets as a catch-up, each once.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  SERVER,
  appended,
  close,
  created,
  expectSameBytes,
  freshStream,
  moved,
  positionOf,
  randomBuffer,
  readBytes,
  readMessages,
  readPages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { COLD, KINDS, TEXT_TYPE, cooled, each, randomStream, segmentsOf, wireOf } from "./cold.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { SocketReader, expectOrderlySocket } from "./ws_client.mjs";

// Names and brackets of a data frame beside its messages.
const ENVELOPE_BYTES = 200;

async function stream(type, body, { server = SERVER, ...headers } = {}) {
  const url = freshStream("ws-data", server);
  return { url, start: await created(url, { type, body, ...headers }) };
}

/** Offsets that a reader was told, each once. */
const offsetsOf = ({ frames }) => [
  ...new Set(frames.flatMap(({ streamNextOffset }) => streamNextOffset ?? [])),
];

describe("a WebSocket carries", () => {
  test("JSON: what is there, then what comes", async () => {
    const { url } = await stream(JSON_TYPE, '[{"n":0},{"n":1}]');
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    expect(reader.messages).toEqual([{ n: 0 }, { n: 1 }]);
    const messages = [{ n: 2 }, [3], "a\nb\u2028c\u0000", null, 1.5e300, ""];
    const end = await appended(url, JSON.stringify(messages));
    await reader.untilAt(end);
    expect(reader.messages.slice(2)).toEqual(messages);
    await close(url);
    await reader.untilEnd();
    expectOrderlySocket(reader);
  });

  test("JSON as it was sent, whatever its spelling", async () => {
    const { url } = await stream(JSON_TYPE);
    const reader = await SocketReader.open(url, "-1");
    const spelled = '{ "b" : [1.0, -0, 1E2,\r\n\t"\\u00e9\\ud83d\\ude00 é"], "a": {"a": 1} }';
    await appended(url, `[${spelled}, {"b":2,"b":3}]`);
    await close(url);
    await reader.untilEnd();
    expect(reader.messages).toEqual([JSON.parse(spelled), { b: 3 }]);
    expect(await readMessages(url)).toEqual(reader.messages);
  });

  test.each([TEXT_TYPE, BINARY_TYPE, "application/ndjson"])("%s as bytes", async (type) => {
    const { url } = await stream(type, "begin\r\n");
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    const parts = ["a\r\nb\r", "é€😀", Buffer.from([0, 255, 13, 10]), '{"credit":0}'];
    for (const part of parts) await reader.untilAt(await appended(url, part, { type }));
    await close(url);
    await reader.untilEnd();
    const whole = Buffer.concat(["begin\r\n", ...parts].map((part) => Buffer.from(part)));
    expectSameBytes(reader.bytes, whole);
    expect(reader.dataFrames.every(({ kind }) => kind === "bytes")).toBe(true);
    expectOrderlySocket(reader);
  });

  test("first of all a control frame that says where the reader stands", async () => {
    const { url, start } = await stream(JSON_TYPE);
    const end = await appended(url, "[1,2]");
    for (const [offset, at] of [["-1", start], [start, start], [end, end], ["now", end]]) {
      const reader = await SocketReader.open(url, offset);
      await reader.untilUpToDate();
      expect(reader.frames[0]).toMatchObject({ kind: "control", streamNextOffset: at });
      expect(reader.frames[0].upToDate).toBe(at === end ? true : undefined);
      expect(reader.messages).toEqual(at === end ? [] : [1, 2]);
      expectOrderlySocket(reader);
      await reader.close();
    }
  });

  test("nothing but the tail, from `now`", async () => {
    const { url, start } = await stream(JSON_TYPE, "[1,2]");
    const reader = await SocketReader.open(url, "now");
    await reader.untilUpToDate();
    expect(reader.frames).toHaveLength(1);
    expect(reader.offset).toBe(start);
    await reader.untilAt(await appended(url, "3"));
    expect(reader.messages).toEqual([3]);
    await reader.close();
  });

  test.each([JSON_TYPE, TEXT_TYPE, BINARY_TYPE])("an empty stream of %s", async (type) => {
    const { url, start } = await stream(type);
    for (const offset of ["-1", "now", start]) {
      const reader = await SocketReader.open(url, offset);
      await reader.untilUpToDate();
      expect(reader.frames).toHaveLength(1);
      expect(reader.offset).toBe(start);
      await reader.close();
    }
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    await close(url);
    await reader.untilEnd();
    expect(reader.dataFrames).toEqual([]);
    expect(reader.offset).toBe(start);
  });

  test("two readers at different positions, each from its own", async () => {
    const { url, start } = await stream(JSON_TYPE);
    const offsets = [start];
    for (let n = 0; n < 20; n += 1) offsets.push(await appended(url, String(n)));
    const early = await SocketReader.open(url, offsets[3]);
    const late = await SocketReader.open(url, offsets[15]);
    await appended(url, "20");
    await close(url);
    await early.untilEnd();
    await late.untilEnd();
    const all = [...Array(21).keys()];
    expect(early.messages).toEqual(all.slice(3));
    expect(late.messages).toEqual(all.slice(15));
  });
});

test("the cursor goes past the client's, in every control frame", async () => {
  const { url } = await stream(JSON_TYPE, "[1]");
  const reader = await SocketReader.open(url, "-1", { query: { cursor: "99999999" } });
  await reader.untilUpToDate();
  await reader.untilAt(await appended(url, "2"));
  expect(reader.controls.length).toBeGreaterThan(2);
  for (const { streamCursor } of reader.controls) {
    expect(Number(streamCursor)).toBeGreaterThan(99_999_999);
  }
  await reader.close();
});

test.each([
  ["application/json; charset=utf-8", "data"],
  ["APPLICATION/JSON", "data"],
  ["text/plain; charset=utf-8", "bytes"],
])("a stream of %s has frames of kind %s", async (type, kind) => {
  const { url } = await stream(type, '["x"]');
  const reader = await SocketReader.open(url, "-1");
  await reader.untilUpToDate();
  expect(reader.dataFrames.map((frame) => frame.kind)).toEqual([kind]);
  await reader.close();
});

test("200 readers get one append", async () => {
  const { url, start } = await stream(JSON_TYPE, "[1]");
  const opening = Array.from({ length: 200 }, () => SocketReader.open(url, start));
  const readers = await Promise.all(opening);
  for (const reader of readers) await reader.untilUpToDate();
  const end = await appended(url, '{"for":"all"}');
  for (const reader of readers) {
    await reader.untilAt(end, 5000);
    expect(reader.messages).toEqual([{ for: "all" }]);
    await reader.close();
  }
});

describe("a closed stream", () => {
  test.each([JSON_TYPE, BINARY_TYPE])("of %s ends its readers at once", async (type) => {
    const { url, start } = await stream(type, "[1]", { "stream-closed": "true" });
    for (const [offset, frames] of [["-1", 1], ["now", 0], [start, 0]]) {
      const reader = await SocketReader.open(url, offset);
      await reader.untilEnd();
      expect(reader.dataFrames).toHaveLength(frames);
      expect(reader.frames.at(-1)).toEqual({
        kind: "control",
        streamNextOffset: start,
        upToDate: true,
        streamClosed: true,
      });
      expectOrderlySocket(reader);
    }
  });

  test("ends a reader that is attached, after the last bytes", async () => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    const end = await appended(url, "2", { "stream-closed": "true" });
    await reader.untilEnd();
    expect(reader.messages).toEqual([1, 2]);
    expect(reader.offset).toBe(end);
    expect(reader.closed).toBe(true);
  });

  test("is delivered to its end before the socket is closed", async () => {
    const body = randomBuffer(6 * MIB, seeded(31));
    const { url } = await stream(BINARY_TYPE, body, { "stream-closed": "true" });
    const reader = await SocketReader.open(url, "-1");
    await reader.untilEnd();
    expectSameBytes(reader.bytes, body);
    expectOrderlySocket(reader);
  });
});

describe("offsets", () => {
  test("of JSON data and control frames are those of a catch-up, and resume", async () => {
    const { url, start } = await stream(JSON_TYPE);
    const expected = [];
    const reader = await SocketReader.open(url, "-1");
    for (let n = 0; n < 12; n += 1) {
      const batch = Array.from({ length: 1 + (n % 4) }, (_, at) => ({ n, at, text: "é€😀" }));
      expected.push(...batch);
      await reader.untilAt(await appended(url, JSON.stringify(batch)));
    }
    const late = await SocketReader.open(url, "-1");
    await late.untilUpToDate();
    for (const { frames } of [reader, late]) {
      // An offset is where the bytes before it end.
      let at = start;
      for (const frame of frames) {
        if (frame.kind === "data") at = moved(at, wireOf(frame.payload).length);
        expect(frame.streamNextOffset).toBe(at);
      }
      expect(at).toBe(await tail(url));
    }
    const ends = expected.map((_, n) => wireOf(expected.slice(0, n)).length);
    await each([...offsetsOf(reader), ...offsetsOf(late)], async (offset) => {
      const count = ends.findIndex((end) => end === positionOf(offset));
      const rest = count < 0 ? [] : expected.slice(count);
      expect(await readMessages(url, offset)).toEqual(rest);
      const resumed = await SocketReader.open(url, offset);
      await resumed.untilUpToDate();
      expect(resumed.messages).toEqual(rest);
      await resumed.close();
    });
    await reader.close();
    await late.close();
  });

  test.each([TEXT_TYPE, BINARY_TYPE])("of %s are those of a catch-up, and resume", async (type) => {
    const { url } = await stream(type);
    const random = seeded(32);
    const ends = [];
    const parts = [];
    const reader = await SocketReader.open(url, "-1");
    for (let n = 0; n < 12; n += 1) {
      parts.push(Buffer.from("abc€".repeat(1 + Math.floor(random() * 50))));
      ends.push(await appended(url, parts.at(-1), { type }));
      await reader.untilAt(ends.at(-1));
    }
    expectOrderlySocket(reader);
    expect(offsetsOf(reader).slice(1)).toEqual(ends);
    const whole = Buffer.concat(parts);
    await each(offsetsOf(reader), async (offset) => {
      const rest = whole.subarray(positionOf(offset));
      expectSameBytes(await readBytes(url, offset), rest);
      const resumed = await SocketReader.open(url, offset);
      await resumed.untilUpToDate();
      expectSameBytes(resumed.bytes, rest);
      await resumed.close();
    });
    await reader.close();
  });

  test("of large catch-ups resume as well", async () => {
    const body = randomBuffer(5_500_000, seeded(33));
    const { url } = await stream(BINARY_TYPE, body);
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    expectSameBytes(reader.bytes, body);
    expectOrderlySocket(reader);
    expect(reader.controls.length).toBeGreaterThan(4);
    for (const offset of offsetsOf(reader)) {
      const resumed = await SocketReader.open(url, offset);
      await resumed.untilUpToDate();
      expectSameBytes(resumed.bytes, body.subarray(positionOf(offset)));
      await resumed.close();
    }
    await reader.close();
  });

  test("of a fork are those of its catch-up, across the fork point", async () => {
    const source = await stream(JSON_TYPE, "[1,2]");
    const at = await appended(source.url, "3");
    await appended(source.url, "[4,5]");
    const url = freshStream("ws-data");
    await created(url, {
      "stream-forked-from": new URL(source.url).pathname,
      "stream-fork-offset": at,
    });
    const reader = await SocketReader.open(url, "-1");
    const events = await EventReader.open(url, "-1");
    await reader.untilUpToDate();
    await events.untilUpToDate();
    expect(reader.messages).toEqual([1, 2, 3]);
    expect(reader.offset).toBe(events.offset);
    await appended(source.url, '"of the source"');
    for (const n of [6, 7]) await reader.untilAt(await appended(url, String(n)));
    expect(reader.offset).toBe(await tail(url));
    expect(reader.messages).toEqual([1, 2, 3, 6, 7]);
    // The source's offsets up to the fork point are the fork's, in this mode as well.
    for (const offset of [source.start, at, ...offsetsOf(reader)]) {
      const rest = await readMessages(url, offset);
      const resumed = await SocketReader.open(url, offset);
      await resumed.untilUpToDate();
      expect(resumed.messages).toEqual(rest);
      expect(resumed.offset).toBe((await readPages(url, offset)).at(-1).next);
      expectOrderlySocket(resumed);
      await resumed.close();
    }
    await close(url);
    await reader.untilEnd();
    events.close();
  });
});

describe("a frame", () => {
  test.each([
    [MIB - 1, [MIB - 1]],
    [MIB, [MIB]],
    [MIB + 1, [MIB, 1]],
    [2 * MIB, [MIB, MIB]],
    [2 * MIB + 1, [MIB, MIB, 1]],
  ])("of bytes ends after 1,048,576: %i", async (length, frames) => {
    const body = randomBuffer(length, seeded(34));
    const { url } = await stream(BINARY_TYPE);
    const live = await SocketReader.open(url, "-1");
    await live.untilUpToDate();
    await appended(url, body, { type: BINARY_TYPE });
    const later = await SocketReader.open(url, "-1");
    for (const reader of [live, later]) {
      await reader.untilAt(await tail(url));
      expect(reader.dataFrames.map(({ bytes }) => bytes.length)).toEqual(frames);
      expectSameBytes(reader.bytes, body);
      expectOrderlySocket(reader);
      await reader.close();
    }
  });

  test("of JSON has at most 1 MiB of whole messages", async () => {
    const { url } = await stream(JSON_TYPE);
    const live = await SocketReader.open(url, "-1");
    const batch = Array.from({ length: 4000 }, (_, n) => `${n}.${"é".repeat(400)}`);
    await appended(url, JSON.stringify(batch));
    const later = await SocketReader.open(url, "-1");
    for (const reader of [live, later]) {
      await reader.untilAt(await tail(url));
      expect(reader.messages).toEqual(batch);
      expect(reader.dataFrames.length).toBeGreaterThan(2);
      for (const { payload } of reader.dataFrames) {
        const bytes = Buffer.byteLength(JSON.stringify(payload));
        expect(bytes).toBeLessThanOrEqual(MIB + ENVELOPE_BYTES + payload.length);
      }
      expectOrderlySocket(reader);
      await reader.close();
    }
  });

  test("of JSON holds one message that is larger, alone", async () => {
    const { url } = await stream(JSON_TYPE);
    const live = await SocketReader.open(url, "-1");
    const large = "m".repeat(3_000_000);
    const messages = [1, large, 2, `${large}!`, 3];
    await appended(url, JSON.stringify(messages));
    const later = await SocketReader.open(url, "-1");
    for (const reader of [live, later]) {
      await reader.untilAt(await tail(url));
      expect(reader.messages).toEqual(messages);
      for (const { payload } of reader.dataFrames) {
        if (payload.some((message) => message.length > MIB)) expect(payload).toHaveLength(1);
      }
      expectOrderlySocket(reader);
      await reader.close();
    }
  });
});

describe("cold, then hot, then live bytes, while appends land:", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start({ ...COLD, READ_CHUNK_BYTES: "500" });
  });
  afterAll(() => host.stop());

  test.each(Object.keys(KINDS))("%s", async (name) => {
    const kind = KINDS[name];
    const { url, whole, offsets } = await randomStream(host, kind, seeded(41), 60);
    await cooled(host, url, offsets.at(-1), 2000);
    const random = seeded(42);
    const later = [];
    let isWriting = true;
    const writing = (async () => {
      for (let n = 0; n < 150; n += 1) {
        const body = kind.body(random);
        later.push(kind.wire(body));
        await appended(url, body, { type: kind.type });
        if (n % 10 === 0) await sleep(20);
      }
      isWriting = false;
      await close(url);
    })();
    // Readers come all the time, from everywhere.
    const readers = [];
    for (let n = 0; isWriting; n += 1) {
      const from = ["-1", ...offsets][n % (offsets.length + 1)];
      const credit = n % 3 === 0 ? 2 ** 40 : undefined;
      readers.push({ from, reader: await SocketReader.open(url, from, { credit }) });
      await sleep(20);
    }
    await writing;
    const all = Buffer.concat([whole, ...later]);
    expect(readers.length).toBeGreaterThan(5);
    for (const { from, reader } of readers) {
      await reader.untilEnd();
      expectOrderlySocket(reader);
      expectSameBytes(kind.followed(reader), all.subarray(from === "-1" ? 0 : positionOf(from)));
    }
    expect(segmentsOf(host, url).length).toBeGreaterThan(5);
  });
});

describe("a strict reader that waits while its bytes become cold:", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start(COLD);
  });
  afterAll(() => host.stop());

  test.each(Object.keys(KINDS))("%s", async (name) => {
    const kind = KINDS[name];
    const url = freshStream("ws-data", host.url);
    await created(url, { type: kind.type });
    const readers = [];
    const parts = [];
    const random = seeded(44);
    for (let n = 0; n < 60; n += 1) {
      if (n % 12 === 0) readers.push(await SocketReader.open(url, "-1", { credit: n / 12 }));
      const body = kind.body(random);
      parts.push(kind.wire(body));
      await appended(url, body, { type: kind.type });
    }
    const end = await tail(url);
    await cooled(host, url, end);
    for (const reader of readers) reader.grant(1000);
    for (const reader of readers) {
      await reader.untilAt(end);
      expectSameBytes(kind.followed(reader), Buffer.concat(parts));
      expectOrderlySocket(reader);
      await reader.close();
    }
  });
});

test("60 readers that come at any time see every message of four writers once", async () => {
  const { url } = await stream(JSON_TYPE);
  const total = 400;
  const readers = [];
  const random = seeded(43);
  const joining = (async () => {
    for (let n = 0; n < 60; n += 1) {
      const credit = n % 2 === 0 ? 10_000 : undefined;
      readers.push(await SocketReader.open(url, "-1", { credit }));
      await sleep(random() * 20);
    }
  })();
  const writers = Array.from({ length: 4 }, async (_, writer) => {
    for (let n = 0; n < total / 4; n += 1) await appended(url, JSON.stringify([[writer, n]]));
  });
  await Promise.all([joining, ...writers]);
  await close(url);
  const expected = await readMessages(url);
  expect(expected).toHaveLength(total);
  for (const reader of readers) {
    await reader.untilEnd();
    expectOrderlySocket(reader);
    expect(reader.messages).toEqual(expected);
  }
});
