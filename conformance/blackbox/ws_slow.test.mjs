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
// The high-water mark, one frame beyond it, the page that is waiting, and what the object has sent.
const SLOW_READER_BYTES = 4 * MIB;
// What a runtime that was idle takes for appends and one reader, until it collects its garbage.
const NOISE_BYTES = 180 * MIB;

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

/** What was logged of a stream's sockets. */
const eventsOf = (url, event) =>
  logged(host, event).filter((line) => JSON.stringify(line).includes(url.split("/").at(-1)));
const closesOf = (url) => eventsOf(url, "ws_close");

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

test("48 readers that stop in a catch-up cost no more than their buffers", async () => {
  const READERS = 48;
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
  // 2 GB, if all that they have not read were kept for them.
  expect(grown, "bytes of memory").toBeLessThan(NOISE_BYTES + READERS * SLOW_READER_BYTES);
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

describe("appends of a reader that has stopped reading", () => {
  /** A stream with more than all buffers hold, and a reader that has filled them. */
  async function stopped() {
    const url = freshStream("ws-slow", host.url);
    await created(url, { type: JSON_TYPE });
    for (let n = 0; n < 40; n += 1) await appended(url, JSON.stringify("m".repeat(600_000)));
    const raw = await RawWebSocket.open(url);
    raw.pause();
    const pressed = () => eventsOf(url, "ws_backpressure");
    await eventually(async () => pressed().length, (count) => count === 1, 10_000);
    return { url, raw };
  }

  const own = async (url) => (await readMessages(url)).filter((message) => message.length < 100);

  test("wait, and are stored as far as they were acknowledged", async () => {
    const { url, raw } = await stopped();
    const witness = await SocketReader.open(url, "now");
    for (let n = 0; n < 200; n += 1) {
      raw.write(frame("text", JSON.stringify({ append: { id: n, payload: `a${n}` } })));
    }
    await eventually(async () => closesOf(url).length, (count) => count === 1, TIMEOUT_MS + 10_000);
    raw.resume();
    expect(await raw.untilEnd(10_000)).toMatchObject({ code: 1013 });
    const acks = raw.frames.filter(({ kind }) => kind === "ack");
    const acked = acks.reduce((sum, { count = 1 }) => sum + count, 0);
    raw.destroy();
    await witness.untilAt(await appended(url, '"end"'));
    const messages = (await own(url)).slice(0, -1);
    expect(messages.length).toBeGreaterThanOrEqual(acked);
    expect(messages).toEqual(messages.map((_, n) => `a${n}`));
    expect(witness.messages).toHaveLength(messages.length + 1);
    await witness.close();
  });

  test("are not kept without bounds", async () => {
    const { url, raw } = await stopped();
    const part = "x".repeat(500_000);
    for (let n = 0; n < 20; n += 1) {
      raw.write(frame("text", JSON.stringify({ append: { id: n, payload: part } })));
    }
    await eventually(async () => closesOf(url).length, (count) => count === 1, TIMEOUT_MS + 10_000);
    // Whichever is first: what waits is too much, or it was not read for too long.
    expect(["TOO_MANY_UNACKED", "SLOW_READER"]).toContain(closesOf(url)[0].reason);
    raw.destroy();
    await appended(url, '"end"');
    expect((await own(url)).at(-1)).toBe("end");
  });
});
