// Segments and what becomes of a stream: forks, restarts, deletion, lifetimes, quotas.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  append,
  appended,
  close,
  create,
  created,
  eventually,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  moved,
  nextOffset,
  positionOf,
  producer,
  read,
  readBytes,
  readMessages,
  readPages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import {
  COLD,
  KINDS,
  SEGMENT_BYTES,
  TEXT_TYPE,
  blobFiles,
  blobsWith,
  cooled,
  each,
  markMore,
  markedStream,
  markerOf,
  randomStream,
  segmentsOf,
  swept,
} from "./cold.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";

// Releases of forks that met nobody are repeated after seconds.
const GONE_MS = 15_000;

let host;
beforeAll(async () => {
  host = await Host.start({ ...COLD, READ_CHUNK_BYTES: "150" });
});
afterAll(() => host.stop());

function fork(source, { at, sub } = {}) {
  const headers = { "stream-forked-from": new URL(source).pathname };
  if (at !== undefined) headers["stream-fork-offset"] = at;
  if (sub !== undefined) headers["stream-fork-sub-offset"] = String(sub);
  return create(freshStream("segments", host.url), headers);
}

/** Makes a fork and returns its URL. */
async function forked(source, options) {
  const response = await fork(source, options);
  expect(response.status, await response.text()).toBe(201);
  return response.headers.get("location");
}

const becomes404 = (url) =>
  eventually(async () => (await head(url)).status, (status) => status === 404, GONE_MS);

async function expectLog(kind, url, expected, offset) {
  const pages = await readPages(url, offset);
  expectSameBytes(Buffer.concat(pages.map(({ bytes }) => kind.got(bytes))), expected);
}

describe("a fork of a cold stream", () => {
  test.each(Object.entries(KINDS))("begins at every offset (%s)", async (_, kind) => {
    const { url, whole, offsets } = await randomStream(host, kind, seeded(41), 30);
    const segments = await cooled(host, url, offsets.at(-1));
    const ends = segments.map(({ to }) => moved(offsets[0], to));
    expect(ends.length).toBeGreaterThan(1);
    await each([...new Set([...offsets, ...ends])], async (at) => {
      const copy = await forked(url, { at });
      expect(await tail(copy)).toBe(at);
      const inherited = whole.subarray(0, positionOf(at));
      await expectLog(kind, copy, inherited);
      const own = kind.body(seeded(42));
      await appended(copy, own, { type: kind.type });
      const all = Buffer.concat([inherited, kind.wire(own)]);
      await expectLog(kind, copy, all);
      // From the source's offsets, its own pages and the fork point.
      await expectLog(kind, copy, all.subarray(positionOf(at)), at);
      const early = offsets.filter((offset) => offset < at).at(-3) ?? offsets[0];
      await expectLog(kind, copy, all.subarray(positionOf(early)), early);
      const reader = await EventReader.open(copy, "-1");
      await reader.untilUpToDate();
      expectSameBytes(kind.followed(reader), all);
      reader.close();
    }, 4);
    await expectLog(kind, url, whole);
  });

  test("counts messages in cold bytes, and across their end", async () => {
    const { url, whole, offsets } = await randomStream(host, KINDS.json, seeded(43), 30);
    await cooled(host, url, offsets.at(-1));
    const ends = [...whole.keys()].filter((n) => whole[n] === 10).map((n) => n + 1);
    await each([...ends.keys()].filter((n) => n % 3 === 0 || n > ends.length - 4), async (n) => {
      const copy = await forked(url, { at: "-1", sub: n + 1 });
      await expectLog(KINDS.json, copy, whole.subarray(0, ends[n]));
      const from = offsets[5];
      const past = ends.filter((end) => end > positionOf(from));
      if (past[n] === undefined) return;
      const later = await forked(url, { at: from, sub: n + 1 });
      await expectLog(KINDS.json, later, whole.subarray(0, past[n]));
    }, 4);
    const beyond = await fork(url, { at: "-1", sub: ends.length + 1 });
    await expectError(beyond, 400, "FORK_SUB_OFFSET");
  });

  test("counts the bytes of one cold append", async () => {
    const { url, whole, offsets } = await randomStream(host, KINDS.binary, seeded(44), 30);
    await cooled(host, url, offsets.at(-1));
    await each([0, 3, 8, 12], async (n) => {
      const [from, to] = [positionOf(offsets[n]), positionOf(offsets[n + 1])];
      for (const sub of new Set([1, Math.ceil((to - from) / 2), to - from])) {
        const copy = await forked(url, { at: offsets[n], sub });
        await expectLog(KINDS.binary, copy, whole.subarray(0, from + sub));
        await appended(copy, "own", { type: BINARY_TYPE });
        const all = Buffer.concat([whole.subarray(0, from + sub), Buffer.from("own")]);
        await expectLog(KINDS.binary, copy, all);
        // What was cut can be forked in turn, up to its cut and no further.
        const again = await forked(copy, { at: offsets[n], sub });
        await expectLog(KINDS.binary, again, whole.subarray(0, from + sub));
        const further = await fork(copy, { at: offsets[n], sub: sub + 1 });
        await expectError(further, 400, "FORK_SUB_OFFSET");
      }
      const beyond = await fork(url, { at: offsets[n], sub: to - from + 1 });
      await expectError(beyond, 400, "FORK_SUB_OFFSET");
    }, 2);
  });

  test("goes on, rotates, and is forked, while its sources are deleted", async () => {
    const { url, whole, offsets } = await markedStream(host, 12, { type: TEXT_TYPE });
    await cooled(host, url, offsets.at(-1));
    let expected = whole;
    const chain = [url];
    for (let depth = 1; depth <= 3; depth += 1) {
      const next = await forked(chain.at(-1));
      const more = await markMore(next, 8, TEXT_TYPE, `d${depth}.`);
      expected = Buffer.concat([expected, more.whole]);
      await cooled(host, next, more.offsets.at(-1));
      chain.push(next);
    }
    const last = chain.pop();
    for (const source of chain) expect((await remove(source)).status).toBe(204);
    // Longer than the objects of a deleted stream stay.
    await sleep(1000);
    for (const source of chain) expect((await head(source)).status).toBe(410);
    await expectLog(KINDS.text, last, expected);
    await host.restart();
    await expectLog(KINDS.text, last, expected);
    for (const offset of offsets) {
      await expectLog(KINDS.text, last, expected.subarray(positionOf(offset)), offset);
    }
    // A fork of the fork, inside of what the first source wrote.
    const early = await forked(last, { at: offsets[4] });
    await expectLog(KINDS.text, early, expected.subarray(0, positionOf(offsets[4])));
    expect((await remove(last)).status).toBe(204);
    await sleep(1000);
    await expectLog(KINDS.text, early, expected.subarray(0, positionOf(offsets[4])));
    expect((await remove(early)).status).toBe(204);
    for (const source of [...chain, last, early]) await becomes404(source);
    for (const source of [...chain, last, early]) await swept(host, source);
  });

  test("survives its own deletion and that of a sibling", async () => {
    const { url, whole, offsets } = await markedStream(host, 12);
    await cooled(host, url, offsets.at(-1));
    const [one, two] = [await forked(url), await forked(url, { at: offsets[7] })];
    await remove(one);
    await sleep(1000);
    await expectLog(KINDS.binary, url, whole);
    await expectLog(KINDS.binary, two, whole.subarray(0, positionOf(offsets[7])));
    expect(blobsWith(host, markerOf(url)).length).toBe(segmentsOf(host, url).length);
    await remove(two);
    await eventually(async () => (await remove(url)).status, (status) => status !== 410, GONE_MS);
    await swept(host, url);
  });
});

describe("rotation and a restart keep", () => {
  test("producers", async () => {
    const url = freshStream("segments", host.url);
    await created(url, { type: JSON_TYPE });
    const send = (id, epoch, seq) => {
      const message = `${id}.${epoch}.${seq}`.padEnd(90, "p");
      return append(url, JSON.stringify([message]), producer(id, epoch, seq));
    };
    for (let seq = 0; seq < 10; seq += 1) {
      for (const id of ["a", "b"]) expect((await send(id, 1, seq)).status).toBe(200);
    }
    for (let round = 0; round < 2; round += 1) {
      await cooled(host, url, await tail(url));
      await host.restart();
      for (const id of ["a", "b"]) {
        for (const seq of [0, 5, 9]) expect((await send(id, 1, seq)).status).toBe(204);
        await expectError(await send(id, 1, 11), 409, "PRODUCER_GAP");
        await expectError(await send(id, 0, 10), 403, "STALE_EPOCH");
        await expectError(await send(id, 2, 1), 400, "EPOCH_START");
      }
    }
    expect((await send("a", 1, 10)).status).toBe(200);
    expect((await send("b", 2, 0)).status).toBe(200);
    const messages = await readMessages(url);
    expect(messages.length).toBe(22);
    expect(new Set(messages).size).toBe(22);
  });

  test("Stream-Seq", async () => {
    const { url, offsets } = await markedStream(host, 3);
    await appended(url, "x".repeat(SEGMENT_BYTES), { type: BINARY_TYPE, "stream-seq": "m" });
    await cooled(host, url, await tail(url), 0);
    await host.restart();
    const seq = (value) => append(url, "y", { type: BINARY_TYPE, "stream-seq": value });
    await expectError(await seq("m"), 409, "STREAM_SEQ_CONFLICT");
    await expectError(await seq("a"), 409, "STREAM_SEQ_CONFLICT");
    expect((await seq("n")).status).toBe(204);
    expect(positionOf(await tail(url))).toBe(positionOf(offsets.at(-1)) + SEGMENT_BYTES + 1);
  });

  const withBytes = { type: BINARY_TYPE, "stream-closed": "true" };
  test.each([
    ["a close with bytes", (url) => appended(url, "end", withBytes)],
    ["a close without bytes", async (url) => nextOffset(await close(url))],
  ])("%s", async (_, end) => {
    const { url, offsets } = await markedStream(host, 8);
    const last = await end(url);
    // Closing rotates what is left.
    await cooled(host, url, last, 0);
    const before = await readBytes(url);
    await host.restart();
    const metadata = await head(url);
    expect(metadata.headers.get("stream-closed")).toBe("true");
    expect(nextOffset(metadata)).toBe(last);
    expectSameBytes(await readBytes(url), before);
    expect((await close(url)).status).toBe(204);
    await expectError(await append(url, "x", { type: BINARY_TYPE }), 409, "STREAM_CLOSED");
    const reader = await EventReader.open(url, offsets[3]);
    await reader.untilEnd();
    expect(reader.closed).toBe(true);
    expectSameBytes(reader.bytes, before.subarray(positionOf(offsets[3])));
    const waiting = await read(url, last, { live: "long-poll" });
    expect(waiting.status).toBe(204);
    expect(waiting.headers.get("stream-closed")).toBe("true");
  });

  test("the producer that closed", async () => {
    const { url } = await markedStream(host, 8);
    const closing = () =>
      append(url, "end", { type: BINARY_TYPE, "stream-closed": "true", ...producer("p", 0, 0) });
    expect((await closing()).status).toBe(200);
    await cooled(host, url, await tail(url), 0);
    await host.restart();
    const again = await closing();
    expect(again.status).toBe(204);
    expect(again.headers.get("stream-closed")).toBe("true");
    const other = await append(url, "x", { type: BINARY_TYPE, ...producer("p", 0, 1) });
    await expectError(other, 409, "STREAM_CLOSED");
  });
});

describe("a stream that is deleted while it is cold", () => {
  test("and created again shows nothing of its earlier life", async () => {
    const first = await markedStream(host, 12);
    const { url } = first;
    await cooled(host, url, first.offsets.at(-1));
    const tagged = await read(url, first.offsets[2]);
    const etag = tagged.headers.get("etag");
    expect((await remove(url)).status).toBe(204);
    await created(url, { type: BINARY_TYPE });
    expect((await readBytes(url)).length).toBe(0);
    const second = await markMore(url, 16, BINARY_TYPE, "second.");
    await cooled(host, url, second.offsets.at(-1));
    expectSameBytes(await readBytes(url), second.whole);
    for (const offset of first.offsets) {
      await expectError(await read(url, offset), 400, "STALE_OFFSET");
      await expectError(await read(url, offset, { live: "sse" }), 400, "STALE_OFFSET");
      await expectError(await read(url, offset, { live: "long-poll" }), 400, "STALE_OFFSET");
      await expectError(await fork(url, { at: offset }), 400, "STALE_OFFSET");
    }
    const page = await read(url, second.offsets[2], { "if-none-match": etag });
    expect(page.status).toBe(200);
    // The first life's objects go, the second's stay.
    const left = () => blobsWith(host, `${markerOf(url)}.0`).length;
    await eventually(async () => left(), (count) => count === 0, 10_000);
    await host.restart();
    expectSameBytes(await readBytes(url), second.whole);
    await remove(url);
    await swept(host, url);
  });

  test("in turns, with uploads under way, leaves nothing behind", async () => {
    const url = freshStream("segments", host.url);
    for (let life = 0; life < 10; life += 1) {
      await created(url, { type: BINARY_TYPE });
      const { whole } = await markMore(url, 6 + life, BINARY_TYPE, `${life}.`);
      expectSameBytes(await readBytes(url), whole);
      expect((await remove(url)).status).toBe(204);
    }
    expect((await head(url)).status).toBe(404);
    await swept(host, url);
  });
});

describe("a lifetime", () => {
  const inSeconds = (seconds) => new Date(Date.now() + 1000 * seconds).toISOString();
  test.each([
    ["Stream-TTL", () => ({ "stream-ttl": "2" })],
    ["Stream-Expires-At", () => ({ "stream-expires-at": inSeconds(3) })],
  ])("of %s ends cold bytes as well", async (_, options) => {
    const { url, offsets } = await markedStream(host, 12, options());
    await cooled(host, url, offsets.at(-1));
    expect(blobsWith(host, markerOf(url)).length).toBeGreaterThan(2);
    // Nobody asks for it again: the alarm sees to it.
    await swept(host, url);
    expect((await head(url)).status).toBe(404);
  });

  test("of a source does not end what its fork shares", async () => {
    const { url, whole, offsets } = await markedStream(host, 12, { "stream-ttl": "2" });
    await cooled(host, url, offsets.at(-1));
    const copy = freshStream("segments", host.url);
    const headers = { "stream-forked-from": new URL(url).pathname, "stream-ttl": "1000" };
    await created(copy, headers);
    await sleep(4000);
    expect([404, 410]).toContain((await head(url)).status);
    await expectLog(KINDS.binary, copy, whole);
    await remove(copy);
    await swept(host, url);
  });
});

describe("the quota", () => {
  let small;
  beforeAll(async () => {
    small = await Host.start({ ...COLD, STREAM_BYTES_MAX: "2000" });
  });
  afterAll(() => small.stop());

  test("counts hot bytes only", async () => {
    const { url, whole, offsets } = await markedStream(small, 200);
    expect(positionOf(offsets.at(-1))).toBe(20_000);
    expectSameBytes(await readBytes(url), whole);
    const large = await append(url, "x".repeat(2001), { type: BINARY_TYPE });
    await expectError(large, 507, "STREAM_FULL");
    const copy = freshStream("segments", small.url);
    await created(copy, { "stream-forked-from": new URL(url).pathname });
    const more = await markMore(copy, 40);
    expectSameBytes(await readBytes(copy), Buffer.concat([whole, more.whole]));
    await cooled(small, url, offsets.at(-1));
    expect((await remove(url)).status).toBe(204);
    expect((await remove(copy)).status).toBe(204);
    await eventually(async () => blobFiles(small).length, (count) => count === 0, GONE_MS);
  });
});
