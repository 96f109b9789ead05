// Slow readers of WebSockets: they cost their high-water mark, hold up nobody, and come back.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  appended,
  close,
  created,
  eventually,
  expectSameBytes,
  freshStream,
  positionOf,
  randomBuffer,
  readMessages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { logged } from "./cold.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { watchMemory } from "./machine.mjs";
import { SocketReader } from "./ws_client.mjs";
import { RawWebSocket, frame } from "./ws_raw.mjs";

const TIMEOUT_MS = 2000;
const PART_BYTES = 500_000;
// Of what is kept for a slow reader, and twice as much for what the runtime does with it.
const SLOW_READER_BYTES = 6 * MIB;

let host;
beforeAll(async () => {
  host = await Host.start({ SLOW_READER_TIMEOUT_MS: String(TIMEOUT_MS) });
});
afterAll(() => host.stop());

async function stream() {
  const url = freshStream("ws-slow", host.url);
  await created(url, { type: BINARY_TYPE });
  return url;
}

/** Appends `count` parts, each of which the quick readers have before the next; the bytes. */
async function write(url, count, quick, random) {
  const parts = [];
  for (let n = 0; n < count; n += 1) {
    parts.push(randomBuffer(PART_BYTES, random));
    const began = performance.now();
    const end = await appended(url, parts.at(-1), { type: BINARY_TYPE });
    for (const reader of quick) await reader.until(({ offset }) => offset === end, "the append");
    expect(performance.now() - began, "ms of an append").toBeLessThan(2000);
  }
  return Buffer.concat(parts);
}

/** Bytes before the last offset that a raw reader was told, and that offset. */
function confirmed({ frames }) {
  const last = frames.findLastIndex(({ kind }) => kind === "control");
  const bytes = frames.slice(0, last).filter(({ kind }) => kind === "bytes");
  return {
    bytes: Buffer.concat(bytes.map((frame) => frame.bytes)),
    offset: frames[last].streamNextOffset,
  };
}

/** `ws_close` events of a stream. */
const closesOf = (url) =>
  logged(host, "ws_close").filter((line) => JSON.stringify(line).includes(url.split("/").at(-1)));

async function resumesWithEveryByte(url, raw, whole) {
  const { bytes, offset } = confirmed(raw);
  expectSameBytes(bytes, whole.subarray(0, positionOf(offset)));
  const again = await SocketReader.open(url, offset);
  await again.untilAt(await tail(url));
  expectSameBytes(Buffer.concat([bytes, again.bytes]), whole);
  await again.close();
}

test("a reader that stops is closed with 1013, others go on, and it comes back", async () => {
  const url = await stream();
  const slow = await RawWebSocket.open(url);
  await slow.until(({ frames }) => frames.length === 1);
  slow.pause();
  const quick = [await SocketReader.open(url, "-1"), await EventReader.open(url, "-1")];
  for (const reader of quick) await reader.untilUpToDate();
  const whole = await write(url, 42, quick, seeded(81));
  await eventually(async () => closesOf(url).length, (count) => count === 1, TIMEOUT_MS + 10_000);
  for (const reader of quick) expectSameBytes(reader.bytes, whole);

  slow.resume();
  expect(await slow.untilEnd(10_000)).toMatchObject({ code: 1013 });
  expect(slow.error).toBeUndefined();
  slow.destroy();
  await resumesWithEveryByte(url, slow, whole);
  await quick[0].close();
  quick[1].close();
});

test("16 readers that stop in a catch-up cost no more than their buffers", async () => {
  const READERS = 16;
  const url = await stream();
  const quick = [await SocketReader.open(url, "-1")];
  await quick[0].untilUpToDate();
  const random = seeded(82);
  // Pays for what a first reader and these appends need.
  const first = await write(url, 42, quick, random);
  const before = watchMemory(host).stop();
  const memory = watchMemory(host);
  const slow = [];
  for (let n = 0; n < READERS; n += 1) {
    const raw = await RawWebSocket.open(url);
    raw.pause();
    slow.push(raw);
  }
  const second = await write(url, 42, quick, random);
  const grown = memory.stop() - before;
  console.log(`${READERS} slow readers: ${Math.round(grown / MIB)} MiB more`);
  expect(grown, "bytes of memory").toBeLessThan(READERS * SLOW_READER_BYTES);
  const whole = Buffer.concat([first, second]);
  await eventually(async () => closesOf(url).length, (count) => count === READERS, 20_000);
  for (const raw of slow) {
    raw.resume();
    expect(await raw.untilEnd(10_000)).toMatchObject({ code: 1013 });
    raw.destroy();
  }
  await resumesWithEveryByte(url, slow[0], whole);
  await quick[0].close();
});

test("a reader that is slow and reads is not closed", async () => {
  const url = await stream();
  const whole = randomBuffer(6 * MIB, seeded(83));
  for (let n = 0; n < 4; n += 1) await appended(url, whole, { type: BINARY_TYPE });
  await close(url);
  const raw = await RawWebSocket.open(url);
  // About 4 MiB a second, for longer than the time in which nothing may be read.
  const began = performance.now();
  const bytesOf = () => raw.dataFrames.reduce((sum, { bytes }) => sum + bytes.length, 0);
  while (raw.end === undefined && !raw.isOver) {
    const isAhead = bytesOf() > ((performance.now() - began) / 1000) * 4 * MIB;
    if (isAhead) raw.pause();
    else raw.resume();
    await sleep(5);
  }
  expect(raw.end).toMatchObject({ code: 1000 });
  expect(performance.now() - began).toBeGreaterThan(2 * TIMEOUT_MS);
  const { bytes } = confirmed(raw);
  expectSameBytes(bytes, Buffer.concat([whole, whole, whole, whole]));
  raw.destroy();
});

describe("a strict reader", () => {
  test("is not slow because it grants nothing", async () => {
    const url = await stream();
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    const whole = await write(url, 10, [], seeded(84));
    await sleep(2 * TIMEOUT_MS);
    expect(reader.end).toBeUndefined();
    reader.grant(100);
    await reader.untilAt(await tail(url));
    expectSameBytes(reader.bytes, whole);
    await reader.close();
  });

  test("with plenty of credit that stops reading is closed as well", async () => {
    const url = await stream();
    const raw = await RawWebSocket.open(url, { query: "&credit=1000000" });
    await raw.until(({ frames }) => frames.length === 1);
    raw.pause();
    const whole = await write(url, 42, [], seeded(85));
    await eventually(async () => closesOf(url).length, (count) => count === 1, TIMEOUT_MS + 10_000);
    raw.resume();
    expect(await raw.untilEnd(10_000)).toMatchObject({ code: 1013 });
    raw.destroy();
    await resumesWithEveryByte(url, raw, whole);
  });
});

test("a slow reader of a stream that is deleted gets no byte of the next life", async () => {
  const url = await stream();
  await appended(url, Buffer.alloc(8 * MIB, "o"), { type: BINARY_TYPE });
  await appended(url, Buffer.alloc(8 * MIB, "o"), { type: BINARY_TYPE });
  const raw = await RawWebSocket.open(url);
  raw.pause();
  await remove(url);
  await created(url, { type: BINARY_TYPE, body: Buffer.alloc(8 * MIB, "n") });
  raw.resume();
  await raw.untilEnd(10_000);
  expect(raw.end?.code).toBe(4404);
  expect(raw.error?.code).toBe("STREAM_NOT_FOUND");
  for (const { bytes } of raw.dataFrames) expect(bytes.every((byte) => byte === 0x6f)).toBe(true);
  raw.destroy();
});

test("who appends and reads no answer is stopped, and a prefix is stored", async () => {
  const url = freshStream("ws-slow", host.url);
  await created(url, { type: JSON_TYPE });
  const witness = await SocketReader.open(url, "-1");
  const before = watchMemory(host).stop();
  const memory = watchMemory(host);
  const raw = await RawWebSocket.open(url, { offset: "now", query: "&credit=0" });
  raw.pause();
  // Ids make the answers large: about 40 MB of them, in batches that fit what may be unanswered.
  const id = (n) => String(n).padStart(120, "0");
  const isClosed = () => raw.isOver || closesOf(url).length > 0;
  let sent = 0;
  for (; sent < 100_000 && !isClosed(); sent += 500) {
    const frames = Array.from({ length: 500 }, (_, at) => {
      const n = sent + at;
      // A refusal has an answer of its own, whose message is longer than the append.
      const bad = JSON.stringify({ append: { id: id(n), payload: [] } });
      const good = JSON.stringify({ append: { id: id(n), payload: n } });
      return frame("text", n % 10 === 0 ? good : bad);
    });
    raw.write(Buffer.concat(frames));
    await sleep(5);
  }
  await eventually(async () => isClosed(), (is) => is, TIMEOUT_MS + 20_000);
  const grown = memory.stop() - before;
  console.log(`${sent} appends without a reader: ${Math.round(grown / MIB)} MiB more`);
  expect(grown, "bytes of memory").toBeLessThan(120 * MIB);
  raw.destroy();
  const end = await appended(url, '"end"');
  await witness.untilAt(end, 20_000);
  const numbers = (await readMessages(url)).slice(0, -1);
  expect(numbers).toEqual(numbers.map((_, at) => 10 * at));
  expect(witness.messages).toHaveLength(numbers.length + 1);
  await witness.close();
});
