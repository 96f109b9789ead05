// A damaged disk: what is lost is lost, and nothing else.
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  ask,
  create,
  created,
  eventually,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  moved,
  positionOf,
  read,
  readBytes,
  remove,
  tail,
} from "./client.mjs";
import {
  COLD,
  blobFiles,
  blobsWith,
  cooled,
  logged,
  markMore,
  markedStream,
  markerOf,
  swept,
} from "./cold.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";

let host;
beforeAll(async () => {
  host = await Host.start(COLD);
});
afterAll(() => host.stop());

function flip(file, at) {
  const bytes = readFileSync(file);
  bytes[at] ^= 1;
  writeFileSync(file, bytes);
}

// What happens to the file of a segment, and which event says so.
const DAMAGES = {
  "a flipped bit": [(file) => flip(file, 150), ["segment_corrupt"]],
  "a flipped bit in the first byte": [(file) => flip(file, 0), ["segment_corrupt"]],
  "a file that is cut off": [(file) => truncateSync(file, 120), ["segment_corrupt"]],
  "an empty file": [(file) => truncateSync(file, 0), ["segment_corrupt"]],
  "a file that is gone": [(file) => rmSync(file), ["segment_missing", "segment_corrupt"]],
};

/** A cold stream whose second segment is damaged. */
async function damaged(damage, type = BINARY_TYPE) {
  const stream = await markedStream(host, 14, { type });
  const segments = await cooled(host, stream.url, stream.offsets.at(-1));
  expect(segments.length).toBeGreaterThan(3);
  const bytes = stream.whole.subarray(segments[1].from, segments[1].to);
  const [file, ...others] = blobsWith(host, bytes);
  expect(others).toEqual([]);
  damage(file);
  const at = (position) => moved(stream.offsets[0], position - positionOf(stream.offsets[0]));
  return { ...stream, segments, file, at, lost: segments[1] };
}

describe.each(Object.entries(DAMAGES))("%s", (_, [damage, events]) => {
  test("costs the range of its segment, and nothing else", async () => {
    const { url, whole, offsets, segments, lost, at } = await damaged(damage);
    const before = blobFiles(host).length;
    const isWithin = (position) => position > lost.from && position < lost.to;
    const within = offsets.filter((offset) => isWithin(positionOf(offset)));
    for (const offset of [at(lost.from), ...within]) {
      const error = await expectError(await read(url, offset), 500, "SEGMENT_CORRUPT");
      expect(error.details).toEqual({ segment: lost.name });
      const polled = await read(url, offset, { live: "long-poll" });
      await expectError(polled, 500, "SEGMENT_CORRUPT");
    }
    // Before it, behind it, and the hot tail.
    const first = await read(url, "-1");
    expect(first.status).toBe(200);
    expectSameBytes(Buffer.from(await first.arrayBuffer()), whole.subarray(0, lost.from));
    expectSameBytes(await readBytes(url, at(lost.to)), whole.subarray(lost.to));
    expect((await head(url)).status).toBe(200);
    const said = events.flatMap((event) => logged(host, event));
    expect(said.map(({ segment }) => segment)).toContain(lost.name);
    // Appends go on, and so does rotation.
    const more = await markMore(url, 8, BINARY_TYPE, "more.");
    const now = await cooled(host, url, more.offsets.at(-1));
    expect(now.length).toBeGreaterThan(segments.length);
    const rest = Buffer.concat([whole, more.whole]).subarray(lost.to);
    expectSameBytes(await readBytes(url, at(lost.to)), rest);
    expect(blobFiles(host).length - before).toBe(now.length - segments.length);
  });

  test("is the same after a restart", async () => {
    const { url, whole, lost, at } = await damaged(damage);
    await host.restart();
    await expectError(await read(url, at(lost.from)), 500, "SEGMENT_CORRUPT");
    expectSameBytes(await readBytes(url, at(lost.to)), whole.subarray(lost.to));
  });

  test("gives live readers no wrong byte", async () => {
    const { url, whole, lost, at } = await damaged(damage);
    const response = await read(url, at(lost.from), { live: "sse" });
    const text = await response.text();
    expect(text).not.toContain("event: data");
    const reader = await EventReader.open(url, "-1");
    await reader.done;
    const got = reader.bytes;
    expect(got.length).toBeLessThanOrEqual(lost.from);
    expectSameBytes(got, whole.subarray(0, got.length));
    const behind = await EventReader.open(url, at(lost.to));
    await behind.untilUpToDate();
    expectSameBytes(behind.bytes, whole.subarray(lost.to));
    behind.close();
  });

  test("of a JSON stream says so where it hides a boundary", async () => {
    const { url, offsets, whole, lost, at } = await damaged(damage, JSON_TYPE);
    const ends = new Set(offsets.map(positionOf));
    const inLost = [...Array(lost.to).keys()].filter((n) => n > lost.from && !ends.has(n));
    const between = inLost.find((n) => whole[n - 1] === 10);
    for (const options of [{}, { live: "sse" }, { live: "long-poll" }]) {
      await expectError(await read(url, at(between), options), 500, "SEGMENT_CORRUPT");
    }
    // The object that found it tells whose request it was.
    const traceId = randomBytes(16).toString("hex");
    const traceparent = `00-${traceId}-b7ad6b7169203331-01`;
    const traced = await ask(`${url}?offset=${at(between)}`, { headers: { traceparent } });
    await expectError(traced, 500, "SEGMENT_CORRUPT");
    const isMeant = (line) => line.traceId === traceId && line.code === "SEGMENT_CORRUPT";
    await eventually(async () => logged(host, "request_failed"), (lines) => lines.some(isMeant));
    const copy = freshStream("segments", host.url);
    const headers = { "stream-forked-from": new URL(url).pathname };
    // Whether a message ends there is not known, so no fork may begin there.
    for (const position of [between, between - 1]) {
      const refused = await create(copy, { ...headers, "stream-fork-offset": at(position) });
      await expectError(refused, 500, "SEGMENT_CORRUPT");
      expect((await head(copy)).status).toBe(404);
    }
    // A fork that begins behind it does not look at it.
    await created(copy, headers);
    expect(await tail(copy)).toBe(offsets.at(-1));
    await expectError(await read(copy, at(lost.from)), 500, "SEGMENT_CORRUPT");
    expect((await read(copy, at(lost.to))).status).toBe(200);
  });

  test("does not keep the stream from being deleted", async () => {
    const { url } = await damaged(damage);
    expect((await remove(url)).status).toBe(204);
    await created(url, { type: BINARY_TYPE, body: "new" });
    expect((await readBytes(url)).toString()).toBe("new");
    await swept(host, url);
  });
});

test("damage that is mended is forgotten", async () => {
  const { url, whole, lost, at, file } = await damaged((file) => flip(file, 10));
  await expectError(await read(url, at(lost.from)), 500, "SEGMENT_CORRUPT");
  flip(file, 10);
  expectSameBytes(await readBytes(url), whole);
});

test("of a large segment only the blocks that a read touches have to be whole", async () => {
  const large = await Host.start({ SEGMENT_BYTES: "300000", READ_CHUNK_BYTES: "20000" });
  try {
    const url = freshStream("segments", large.url);
    const first = await created(url, { type: BINARY_TYPE });
    const parts = Array.from({ length: 40 }, (_, n) => `${markerOf(url)}.${n}.`.padEnd(8000, "x"));
    for (const part of parts) await appended(url, part, { type: BINARY_TYPE });
    const whole = Buffer.from(parts.join(""));
    await cooled(large, url, await tail(url), 299_999);
    const [file] = blobsWith(large, parts[0]);
    const block = 65_536;
    flip(file, block * 2 + 5);
    const statusAt = async (position) => (await read(url, moved(first, position))).status;
    expect(await statusAt(0)).toBe(200);
    expect(await statusAt(block * 2 - 20_000)).toBe(200);
    expect(await statusAt(block * 2 - 19_000)).toBe(500);
    expect(await statusAt(block * 2)).toBe(500);
    expect(await statusAt(block * 3 - 1)).toBe(500);
    expect(await statusAt(block * 3)).toBe(200);
    const rest = await readBytes(url, moved(first, block * 3));
    expectSameBytes(rest, whole.subarray(block * 3));
  } finally {
    await large.stop();
  }
});

test("a bucket that lost everything leaves the hot tail", async () => {
  const alone = await Host.start(COLD);
  try {
    const { url, whole, offsets } = await markedStream(alone, 13);
    const segments = await cooled(alone, url, offsets.at(-1));
    for (const file of blobFiles(alone)) rmSync(file);
    const position = segments.at(-1).to;
    const offset = moved(offsets[0], position - positionOf(offsets[0]));
    expectSameBytes(await readBytes(url, offset), whole.subarray(position));
    await expectError(await read(url, "-1"), 500, "SEGMENT_CORRUPT");
    const more = await markMore(url, 8);
    const all = Buffer.concat([whole, more.whole]);
    expectSameBytes(await readBytes(url, offset), all.subarray(position));
    await eventually(
      async () => (await remove(url)).status,
      (status) => status === 204,
    );
  } finally {
    await alone.stop();
  }
});
