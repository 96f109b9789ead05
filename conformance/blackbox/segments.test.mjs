// Segments are a matter of the service alone: whoever reads sees one log, wherever its bytes lie.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  appended,
  close,
  create,
  created,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  moved,
  nextOffset,
  positionOf,
  read,
  readBytes,
  readPages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import {
  COLD,
  KINDS,
  TEXT_TYPE,
  coldEnd,
  cooled,
  each,
  markMore,
  markedStream,
  randomStream,
  segmentsOf,
} from "./cold.mjs";
import { EventReader, expectOrderly } from "./event_reader.mjs";
import { Host } from "./host.mjs";

const LINE_END = 10;
const START = "0000000000000000_0000000000000000";

const HOSTS = {
  "segments of bytes, small pages": { ...COLD, READ_CHUNK_BYTES: "16" },
  "segments of bytes, pages of some appends": { ...COLD, READ_CHUNK_BYTES: "100" },
  "segments of bytes, large pages": COLD,
  "segments of three appends": { ...COLD, SEGMENT_BYTES: "1000000", SEGMENT_APPENDS: "3" },
  "segments of one append": { ...COLD, SEGMENT_BYTES: "1", READ_CHUNK_BYTES: "40" },
};

let host;
function hostWith(vars) {
  beforeAll(async () => {
    host = await Host.start(vars);
  });
  afterAll(() => host.stop());
}

/** The offset of a position, as a stream that is no fork would hand it out. */
const at = (offsets, position) => moved(offsets[0], position);

/** Where a read of a position begins; `undefined` where there is no boundary. */
function beginning(kind, whole, offsets, position) {
  if (position === 0 || position === whole.length) return position;
  if (kind.type === JSON_TYPE) return whole[position - 1] === LINE_END ? position : undefined;
  // One past the end of an append reads as that end.
  const isEnd = (wanted) => offsets.slice(1).some((offset) => positionOf(offset) === wanted);
  return !isEnd(position) && isEnd(position - 1) ? position - 1 : position;
}

/** Waits until the stream is as cold as it gets without a further append. */
async function settled(url) {
  for (let before = -1; before !== coldEnd(host, url); ) {
    before = coldEnd(host, url);
    await sleep(300);
  }
  return segmentsOf(host, url);
}

const kinds = Object.entries(KINDS);

describe.each(Object.entries(HOSTS))("with %s", (_, vars) => {
  hostWith(vars);

  test.each(kinds)("a %s stream reads the same from every position", async (_, kind) => {
    const { url, whole, offsets } = await randomStream(host, kind, seeded(11), 24);
    const segments = await settled(url);
    expect(segments.length).toBeGreaterThan(1);
    const all = await readPages(url);
    expectSameBytes(Buffer.concat(all.map(({ bytes }) => kind.got(bytes))), whole);
    await each([...Array(whole.length + 1).keys()], async (position) => {
      const response = await read(url, at(offsets, position));
      const from = beginning(kind, whole, offsets, position);
      if (from === undefined) {
        await expectError(response, 400, "INVALID_OFFSET");
        return;
      }
      expect(response.status, `at ${position}`).toBe(200);
      const bytes = kind.got(Buffer.from(await response.arrayBuffer()));
      const next = positionOf(nextOffset(response));
      expectSameBytes(bytes, whole.subarray(from, next));
      expect(next > from || next === whole.length, `${position} goes on`).toBe(true);
      expect(response.headers.get("stream-up-to-date") === "true").toBe(next === whole.length);
    });
  });

  test.each(kinds)("a %s stream is followed from cold bytes on", async (_, kind) => {
    const { url, whole, offsets } = await randomStream(host, kind, seeded(12), 30);
    await settled(url);
    const later = kind.body(seeded(13));
    await each([...offsets, START], async (offset) => {
      const reader = await EventReader.open(url, offset);
      await reader.untilUpToDate();
      expectOrderly(reader);
      expectSameBytes(kind.followed(reader), whole.subarray(positionOf(offset)));
      reader.close();
    });
    const readers = await Promise.all(
      [offsets[0], offsets[10], offsets[29]].map((offset) => EventReader.open(url, offset)),
    );
    await appended(url, later, { type: kind.type });
    await close(url);
    for (const reader of readers) await reader.untilEnd();
    const more = Buffer.concat([whole, kind.wire(later)]);
    for (const [n, from] of [0, 10, 29].entries()) {
      expectSameBytes(kind.followed(readers[n]), more.subarray(positionOf(offsets[from])));
    }
    // Closed, it is cold to its end.
    await cooled(host, url, await tail(url), 0);
    const last = await readPages(url, offsets[15]);
    expectSameBytes(
      Buffer.concat(last.map(({ bytes }) => kind.got(bytes))),
      more.subarray(positionOf(offsets[15])),
    );
    expect(last.at(-1).response.headers.get("stream-closed")).toBe("true");
  });
});

describe("while appends land", () => {
  hostWith({ ...COLD, READ_CHUNK_BYTES: "500" });

  /** Appends for a while, then closes; resolves with the bytes of the log. */
  async function write(url, kind, random, offsets) {
    const parts = [];
    for (let n = 0; n < 150; n += 1) {
      const body = kind.body(random);
      parts.push(kind.wire(body));
      offsets.push(await appended(url, body, { type: kind.type }));
      if (n % 10 === 0) await sleep(20);
    }
    await close(url);
    return Buffer.concat(parts);
  }

  async function pollToEnd(url, kind, offset) {
    const parts = [];
    for (let from = offset; ; ) {
      const response = await read(url, from, { live: "long-poll" });
      expect([200, 204]).toContain(response.status);
      const bytes = Buffer.from(await response.arrayBuffer());
      if (response.status === 200) parts.push(kind.got(bytes));
      if (response.headers.get("stream-closed") === "true") return Buffer.concat(parts);
      const next = nextOffset(response);
      expect(from === "-1" || next >= from).toBe(true);
      from = next;
    }
  }

  async function catchUpToEnd(url, kind) {
    const parts = [];
    for (let from = "-1"; ; ) {
      const response = await read(url, from);
      expect(response.status).toBe(200);
      parts.push(kind.got(Buffer.from(await response.arrayBuffer())));
      if (response.headers.get("stream-closed") === "true") return Buffer.concat(parts);
      from = nextOffset(response);
    }
  }

  const names = Object.keys(KINDS);
  test.each(names)("readers of a %s stream miss nothing and see nothing twice", async (name) => {
    const kind = KINDS[name];
    const { url, whole, offsets } = await randomStream(host, kind, seeded(21), 40);
    const starts = [0, 7, 20, 33, 40];
    const opening = starts.map((n) => EventReader.open(url, offsets[n]));
    const polls = starts.map((n) => pollToEnd(url, kind, offsets[n]));
    const pages = catchUpToEnd(url, kind);
    const later = await write(url, kind, seeded(22), offsets);
    const late = await EventReader.open(url, "-1");
    const all = Buffer.concat([whole, later]);
    for (const [at, opened] of opening.entries()) {
      const reader = await opened;
      await reader.untilEnd();
      expectOrderly(reader);
      const rest = all.subarray(positionOf(offsets[starts[at]]));
      expectSameBytes(kind.followed(reader), rest);
      expectSameBytes(await polls[at], rest);
    }
    expectSameBytes(kind.followed(await late.untilEnd()), all);
    expectSameBytes(await pages, all);
    expect(segmentsOf(host, url).length).toBeGreaterThan(5);
  });

  test("characters that appends share, across segments", async () => {
    const url = freshStream("segments", host.url);
    await created(url, { type: TEXT_TYPE });
    const text = "a😀€é".repeat(200);
    const bytes = Buffer.from(text);
    const offsets = [];
    for (let from = 0; from < bytes.length; from += 99) {
      const part = bytes.subarray(from, from + 99);
      offsets.push(await appended(url, part, { type: TEXT_TYPE }));
    }
    await cooled(host, url, offsets.at(-1));
    expectSameBytes(await readBytes(url), bytes);
    const reader = await EventReader.open(url, "-1");
    await reader.untilUpToDate();
    expect(reader.text === text).toBe(true);
    reader.close();
  });
});

describe("a cold page", () => {
  hostWith({ ...COLD, READ_CHUNK_BYTES: "1000" });

  test("has a tag, by which it is not sent again", async () => {
    const { url, offsets } = await markedStream(host, 20);
    await cooled(host, url, offsets.at(-1));
    for (const from of ["-1", offsets[0], offsets[3], offsets[10]]) {
      const response = await read(url, from);
      expect(response.status).toBe(200);
      const etag = response.headers.get("etag");
      expect(etag).toMatch(/^".+"$/);
      const again = await read(url, from, { "if-none-match": etag });
      expect(again.status).toBe(304);
      expect(await again.text()).toBe("");
      expect(again.headers.get("etag")).toBe(etag);
      expect(nextOffset(again)).toBe(nextOffset(response));
      expect((await read(url, from, { "if-none-match": `"x", ${etag}` })).status).toBe(304);
      expect((await read(url, from, { "if-none-match": "*" })).status).toBe(304);
      const other = await read(url, from, { "if-none-match": '"x"' });
      expect(other.status).toBe(200);
      expectSameBytes(
        Buffer.from(await other.arrayBuffer()),
        Buffer.from(await response.arrayBuffer()),
      );
    }
  });

  test("may be kept by caches like any page before the tail", async () => {
    const { url, offsets } = await markedStream(host, 20);
    await cooled(host, url, offsets.at(-1));
    const kept = await read(url, offsets[3]);
    expect(kept.headers.get("cache-control")).toContain("public");
    const unnamed = await read(url, "-1");
    expect(unnamed.headers.get("cache-control")).toBe("no-cache");
    const mortal = await markedStream(host, 20, { "stream-ttl": "1000" });
    await cooled(host, mortal.url, mortal.offsets.at(-1));
    const response = await read(mortal.url, mortal.offsets[3]);
    expect(response.headers.get("cache-control")).toBe("no-cache");
  });

  test("that had another end while it was hot has another tag", async () => {
    const url = freshStream("segments", host.url);
    await created(url, { type: TEXT_TYPE });
    const tags = new Map();
    for (let n = 0; n < 30; n += 1) {
      await appended(url, `${n}.`.padEnd(50, "t"), { type: TEXT_TYPE });
      const response = await read(url, "-1");
      const text = await response.text();
      const what = `${text}${response.headers.get("stream-up-to-date")}`;
      const etag = response.headers.get("etag");
      expect(tags.get(etag) ?? what).toBe(what);
      tags.set(etag, what);
    }
    await cooled(host, url, await tail(url));
    const response = await read(url, "-1");
    const what = `${await response.text()}${response.headers.get("stream-up-to-date")}`;
    expect(tags.get(response.headers.get("etag")) ?? what).toBe(what);
  });

  test("does not change what HEAD tells", async () => {
    const { url, offsets } = await markedStream(host, 20);
    await cooled(host, url, offsets.at(-1));
    const metadata = await head(url);
    expect(metadata.status).toBe(200);
    expect(nextOffset(metadata)).toBe(offsets.at(-1));
  });
});

describe("a position in cold JSON", () => {
  hostWith({ ...COLD, LONG_POLL_TIMEOUT_MS: "300" });

  const forkAt = (url, offset, options = {}) =>
    create(freshStream("segments", host.url), {
      "stream-forked-from": new URL(url).pathname,
      "stream-fork-offset": offset,
      ...options,
    });

  test("that is no message boundary is refused by every read and by forks", async () => {
    const { url, whole, offsets } = await randomStream(host, KINDS.json, seeded(31), 40);
    await cooled(host, url, offsets.at(-1));
    const end = coldEnd(host, url);
    const inside = [...Array(end).keys()].filter((n) => n > 0 && whole[n - 1] !== LINE_END);
    await each(inside.filter((n) => n % 7 === 0), async (position) => {
      const offset = at(offsets, position);
      await expectError(await read(url, offset), 400, "INVALID_OFFSET");
      await expectError(await read(url, offset, { live: "sse" }), 400, "INVALID_OFFSET");
      await expectError(await read(url, offset, { live: "long-poll" }), 400, "INVALID_OFFSET");
      await expectError(await forkAt(url, offset), 400, "INVALID_OFFSET");
      const sub = { "stream-fork-sub-offset": "1" };
      await expectError(await forkAt(url, offset, sub), 400, "INVALID_OFFSET");
    });
  });

  test("that lies between messages of a batch is as good as any", async () => {
    const { url, whole, offsets } = await randomStream(host, KINDS.json, seeded(32), 30);
    await cooled(host, url, offsets.at(-1));
    const end = coldEnd(host, url);
    const ends = new Set(offsets.map(positionOf));
    const between = [...Array(end).keys()].filter(
      (n) => n > 0 && whole[n - 1] === LINE_END && !ends.has(n),
    );
    expect(between.length).toBeGreaterThan(5);
    await each(between, async (position) => {
      const offset = at(offsets, position);
      const rest = whole.subarray(position);
      const pages = await readPages(url, offset);
      expectSameBytes(Buffer.concat(pages.map(({ bytes }) => KINDS.json.got(bytes))), rest);
      const reader = await EventReader.open(url, offset);
      await reader.untilUpToDate();
      expectSameBytes(KINDS.json.followed(reader), rest);
      reader.close();
      const polled = await read(url, offset, { live: "long-poll" });
      expect(polled.status).toBe(200);
      const got = KINDS.json.got(Buffer.from(await polled.arrayBuffer()));
      expectSameBytes(got, rest.subarray(0, got.length));
      const copy = await forkAt(url, offset);
      expect(copy.status, await copy.text()).toBe(201);
      expect(nextOffset(copy)).toBe(offset);
      const copied = await readPages(copy.headers.get("location"));
      const bytes = Buffer.concat(copied.map((page) => KINDS.json.got(page.bytes)));
      expectSameBytes(bytes, whole.subarray(0, position));
    }, 4);
  });
});

describe("a segment of several blocks", () => {
  hostWith({ SEGMENT_BYTES: "300000", READ_CHUNK_BYTES: "100000", SEGMENT_GRACE_MS: "200" });

  test.each(["binary", "json"])("of a %s stream reads whole and from anywhere", async (name) => {
    const kind = KINDS[name];
    const url = freshStream("segments", host.url);
    const offsets = [await created(url, { type: kind.type })];
    const parts = [];
    for (let n = 0; n < 60; n += 1) {
      const text = `${n}.`.padEnd(1000 + 257 * (n % 40), "abcdefghij");
      const body = Buffer.from(name === "json" ? JSON.stringify([text, n]) : text);
      parts.push(kind.wire(body));
      offsets.push(await appended(url, body, { type: kind.type }));
    }
    const whole = Buffer.concat(parts);
    await cooled(host, url, offsets.at(-1), 299_999);
    const block = 65_536;
    const borders = [1, 2, 3, 4].flatMap((n) => [n * block - 1, n * block, n * block + 1]);
    const positions = name === "json" ? offsets.map(positionOf) : borders;
    await each([0, ...positions], async (position) => {
      const pages = await readPages(url, at(offsets, position));
      const bytes = Buffer.concat(pages.map((page) => kind.got(page.bytes)));
      expectSameBytes(bytes, whole.subarray(position));
    }, 4);
    const reader = await EventReader.open(url, "-1");
    await reader.untilUpToDate();
    expectSameBytes(kind.followed(reader), whole);
    reader.close();
  });

  test("may hold one large message, or many appends", async () => {
    const url = freshStream("segments", host.url);
    const texts = ["small", "L".repeat(2_000_000), "small again"];
    await created(url, { type: JSON_TYPE });
    for (const text of texts) await appended(url, JSON.stringify([text]));
    const offset = await tail(url);
    await cooled(host, url, offset, 299_999);
    const pages = await readPages(url);
    expect(pages.flatMap(({ bytes }) => JSON.parse(bytes.toString()))).toEqual(texts);
    const more = await markMore(url, 400, JSON_TYPE);
    expectSameBytes(
      Buffer.concat((await readPages(url, offset)).map(({ bytes }) => KINDS.json.got(bytes))),
      more.whole,
    );
  });
});
