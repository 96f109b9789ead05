// Credit: who grants gets exactly as many data frames as were granted, and nobody else waits.
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
  randomBuffer,
  read,
  readMessages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { watchMemory } from "./machine.mjs";
import { SAFE_INTEGER_MAX, SocketReader, expectOrderlySocket } from "./ws_client.mjs";

// How long a frame that must not come is waited for.
const SILENCE_MS = 400;

async function stream(type, body, { server = SERVER, ...headers } = {}) {
  const url = freshStream("ws-credit", server);
  return { url, start: await created(url, { type, body, ...headers }) };
}

/** A binary stream whose catch-up is `frames` frames, the last one short. */
async function binaryStream(frames) {
  const body = randomBuffer((frames - 1) * MIB + 1000, seeded(51));
  return { ...(await stream(BINARY_TYPE, body)), body };
}

/** Waits for `count` data frames, and that no other comes. */
async function exactly(reader, count) {
  await reader.until(({ dataFrames }) => dataFrames.length >= count, `${count} data frames`);
  await sleep(SILENCE_MS);
  expect(reader.dataFrames).toHaveLength(count);
}

describe("credit=0", () => {
  test("is strict from the start: a control frame and no data", async () => {
    const { url, start } = await stream(JSON_TYPE);
    await appended(url, "[1,2]");
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    await exactly(reader, 0);
    expect(reader.frames[0]).toMatchObject({ kind: "control", streamNextOffset: start });
    expect(reader.upToDate).toBe(false);
    await appended(url, "3");
    await exactly(reader, 0);
    reader.grant(1);
    await reader.until(({ dataFrames }) => dataFrames.length === 1, "the first frame");
    await reader.close();
  });

  test("lets control frames pass", async () => {
    const { url, start } = await stream(JSON_TYPE);
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    await reader.untilUpToDate();
    expect(reader.offset).toBe(start);
    // Nothing was left to deliver, so the end needs no credit.
    await close(url);
    await reader.untilEnd();
    expect(reader.closed).toBe(true);
  });

  test("holds the end of a stream back while data is left", async () => {
    const { url } = await stream(JSON_TYPE, "[1]", { "stream-closed": "true" });
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    await exactly(reader, 0);
    expect(reader.end).toBeUndefined();
    expect(reader.closed).toBe(false);
    reader.grant(1);
    await reader.untilEnd();
    expect(reader.messages).toEqual([1]);
  });

  test("lets acks and nacks pass", async () => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    const { streamNextOffset } = await reader.acked({ payload: 2 });
    expect(streamNextOffset).toBe(await tail(url));
    await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
    await exactly(reader, 0);
    reader.grant(10);
    await reader.untilAt(streamNextOffset);
    expect(reader.messages).toEqual([1, 2]);
    await reader.close();
  });

  test("granting 0 changes nothing", async () => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    for (let n = 0; n < 5; n += 1) reader.grant(0);
    await exactly(reader, 0);
    expect(reader.end).toBeUndefined();
    await reader.close();
  });
});

describe("n grants", () => {
  test.each([1, 2, 3])("in the query give exactly n data frames: %i", async (credit) => {
    const { url, body } = await binaryStream(5);
    const reader = await SocketReader.open(url, "-1", { credit });
    await exactly(reader, credit);
    expectSameBytes(reader.bytes, body.subarray(0, credit * MIB));
    reader.grant(2);
    await exactly(reader, Math.min(credit + 2, 5));
    reader.grant(100);
    await reader.untilAt(await tail(url));
    expectSameBytes(reader.bytes, body);
    expectOrderlySocket(reader);
    await reader.close();
  });

  test("one at a time give one data frame each", async () => {
    const { url, body } = await binaryStream(6);
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    for (let count = 1; count <= 6; count += 1) {
      reader.grant(1);
      await reader.until(({ dataFrames }) => dataFrames.length === count, `frame ${count}`);
      if (count === 3) await exactly(reader, 3);
    }
    await reader.untilAt(await tail(url));
    expectSameBytes(reader.bytes, body);
    await reader.close();
  });

  test("left over at the tail pay for what comes later", async () => {
    const { url } = await stream(JSON_TYPE, "[0]");
    const reader = await SocketReader.open(url, "-1", { credit: 3 });
    await reader.untilUpToDate();
    for (let n = 1; n <= 2; n += 1) await reader.untilAt(await appended(url, String(n)));
    await appended(url, "3");
    await exactly(reader, 3);
    expect(reader.messages).toEqual([0, 1, 2]);
    await appended(url, "4");
    reader.grant(1);
    await exactly(reader, 4);
    reader.grant(1);
    await reader.untilAt(await tail(url));
    expect(reader.messages).toEqual([0, 1, 2, 3, 4]);
    await reader.close();
  });

  test("many and small add up, whatever comes between them", async () => {
    const { url } = await stream(JSON_TYPE);
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    await reader.untilUpToDate();
    // Below the limit of frames in a minute.
    for (let n = 0; n < 500; n += 1) reader.grant(n % 2);
    const expected = [];
    for (let n = 0; n < 250; n += 1) {
      await appended(url, String(n));
      expected.push(n);
      await reader.until(({ messages }) => messages.length === n + 1, `message ${n}`);
    }
    expect(reader.dataFrames).toHaveLength(250);
    await appended(url, "250");
    await exactly(reader, 250);
    expect(reader.messages).toEqual(expected);
    await reader.close();
  });
});

test("a strict reader far behind appends as any other", async () => {
  const { url, body } = await binaryStream(6);
  const reader = await SocketReader.open(url, "-1", { credit: 1 });
  await reader.until(({ dataFrames }) => dataFrames.length === 1, "the first frame");
  const own = Array.from({ length: 300 }, (_, n) => Buffer.from(`<${n}>`));
  const answers = own.map((part) => reader.append({ base64: part.toString("base64") }));
  for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
  await exactly(reader, 1);
  reader.grant(1000);
  await reader.untilAt(await tail(url));
  expectSameBytes(reader.bytes, Buffer.concat([body, ...own]));
  await reader.close();
});

test("who never names credit is not held up", async () => {
  const { url, body } = await binaryStream(8);
  const reader = await SocketReader.open(url, "-1");
  await reader.untilAt(await tail(url));
  expectSameBytes(reader.bytes, body);
  await reader.close();
});

test("who names credit later is strict from the first grant on", async () => {
  const { url } = await stream(JSON_TYPE, "[0]");
  const reader = await SocketReader.open(url, "-1");
  await reader.untilUpToDate();
  for (let n = 1; n <= 3; n += 1) await reader.untilAt(await appended(url, String(n)));
  const before = reader.dataFrames.length;
  reader.grant(2);
  // An answer that comes after the grant was taken.
  await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
  for (let n = 4; n <= 5; n += 1) await reader.untilAt(await appended(url, String(n)));
  await appended(url, "6");
  await exactly(reader, before + 2);
  expect(reader.messages).toEqual([0, 1, 2, 3, 4, 5]);
  reader.grant(1);
  await reader.untilAt(await tail(url));
  expect(reader.messages).toEqual([0, 1, 2, 3, 4, 5, 6]);
  await reader.close();
});

test("a first grant of 0 is a grant: nothing more comes", async () => {
  const { url } = await stream(JSON_TYPE, "[0]");
  const reader = await SocketReader.open(url, "-1");
  await reader.untilUpToDate();
  reader.grant(0);
  await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
  await appended(url, "1");
  await exactly(reader, 1);
  await reader.close();
});

describe("INVALID_CREDIT ends the socket with 1008:", () => {
  const cases = [
    ["negative", "-1"],
    ["negative zero and more", "-0.5"],
    ["a fraction", "1.5"],
    ["2^53", "9007199254740992"],
    ["far too large", "1e300"],
    ["a string", '"1"'],
    ["null", "null"],
    ["a boolean", "true"],
    ["an array", "[1]"],
    ["an object", '{"n":1}'],
  ];
  test.each(cases)("%s", async (_, text) => {
    const { url } = await stream(JSON_TYPE, "[1]");
    const witness = await SocketReader.open(url, "-1");
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    await reader.until(({ frames }) => frames.length === 1, "the first frame");
    reader.send(`{"credit":${text}}`);
    await reader.untilError("INVALID_CREDIT", 1008);
    expect(reader.dataFrames).toEqual([]);
    await witness.untilAt(await appended(url, "2"));
    await witness.close();
  });

  test("a sum that passes 2^53 - 1", async () => {
    const { url } = await stream(JSON_TYPE);
    const most = await SocketReader.open(url, "-1", { credit: SAFE_INTEGER_MAX });
    most.grant(0);
    await most.untilAt(await appended(url, "1"));
    // One was spent, so one more is allowed, and another is not.
    most.grant(1);
    await most.nacked({ payload: [] }, "EMPTY_ARRAY");
    most.grant(1);
    await most.untilError("INVALID_CREDIT", 1008);
  });

  test("a sum of grants that passes 2^53 - 1", async () => {
    const { url } = await stream(JSON_TYPE);
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    reader.grant(SAFE_INTEGER_MAX);
    await reader.untilAt(await appended(url, "1"));
    reader.grant(SAFE_INTEGER_MAX);
    await reader.untilError("INVALID_CREDIT", 1008);
  });
});

describe("strict readers without credit", () => {
  const READERS = 48;
  // What a runtime that was idle takes for appends and one reader, until it collects its garbage.
  const NOISE_BYTES = 180 * MIB;
  let host;
  beforeAll(async () => {
    host = await Host.start();
  });
  afterAll(() => host.stop());

  test("cost no memory, delay nobody, and get everything once they grant", async () => {
    const { url } = await stream(JSON_TYPE, undefined, { server: host.url });
    const strict = [];
    for (let n = 0; n < READERS; n += 1) {
      strict.push(await SocketReader.open(url, "-1", { credit: 0 }));
    }
    const quick = await SocketReader.open(url, "-1");
    for (const reader of [...strict, quick]) await reader.untilUpToDate();
    const part = "m".repeat(500_000);
    const append = async (n) => {
      const began = performance.now();
      await quick.untilAt(await appended(url, JSON.stringify([n, part])));
      return performance.now() - began;
    };
    // The first ones pay for what any append of this size needs.
    for (let n = 0; n < 10; n += 1) await append(n);
    const before = watchMemory(host).stop();
    const memory = watchMemory(host);
    for (let n = 10; n < 50; n += 1) expect(await append(n), "ms").toBeLessThan(2000);
    const grown = memory.stop() - before;
    console.log(`${READERS} strict readers: ${Math.round(grown / MIB)} MiB more`);
    // 960 MB, if what each of them may not have yet were kept for it.
    expect(grown, "bytes of memory").toBeLessThan(NOISE_BYTES);
    expect(quick.messages).toHaveLength(100);
    const expected = await readMessages(url);
    expect(expected).toHaveLength(100);
    for (const reader of strict) {
      expect(reader.dataFrames).toEqual([]);
      reader.grant(1000);
    }
    for (const reader of strict) {
      await reader.untilAt(await tail(url), 30_000);
      expect(reader.messages.length).toBe(expected.length);
      expect(reader.messages.every((message, at) => message === expected[at])).toBe(true);
      await reader.close();
    }
    expect((await read(url, "now")).status).toBe(200);
    await quick.close();
  });
});
