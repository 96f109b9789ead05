// Offsets as a published server of the Yjs protocol computes them: the end of an append plus one.
//
// In streams that are not JSON such an offset reads as that end, unless it is itself the end of
// an append. Everywhere else an offset is taken at its word.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  create,
  created,
  expectError,
  freshStream,
  moved,
  nextOffset,
  read,
  readBytes,
  sleep,
} from "./client.mjs";

const BINARY = { type: BINARY_TYPE };

/** A stream of the bodies, with the offset behind each. */
async function stream(type, ...bodies) {
  const url = freshStream("yjs");
  const ends = [await created(url, { type })];
  for (const body of bodies) ends.push(await appended(url, body, { type }));
  return { url, ends };
}

const text = async (url, offset) => (await readBytes(url, offset)).toString();

describe("one past the end of an append", () => {
  test("reads as that end", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first", "second", "third");
    expect(await text(url, moved(ends[1], 1))).toBe("secondthird");
    expect(await text(url, moved(ends[2], 1))).toBe("third");
    const response = await read(url, moved(ends[1], 1));
    expect(nextOffset(response)).toBe(ends[3]);
  });

  test("is taken at its word when it is an end as well", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first", "x", "third");
    expect(moved(ends[1], 1)).toBe(ends[2]);
    expect(await text(url, moved(ends[1], 1))).toBe("third");
    expect(await text(url, moved(ends[2], 1))).toBe("third");
  });

  test("differs from two past, and from one before", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first", "second");
    expect(await text(url, moved(ends[1], 2))).toBe("cond");
    expect(await text(url, moved(ends[1], -1))).toBe("tsecond");
  });

  test("that is large, over several rows", async () => {
    const large = Buffer.alloc(2_500_000, "L");
    const { url, ends } = await stream(BINARY_TYPE, large, large, "end");
    expect((await readBytes(url, moved(ends[1], 1))).length).toBe(2_500_003);
    expect(await text(url, moved(ends[2], 1))).toBe("end");
    // A row ends here, but no append does.
    expect((await readBytes(url, moved(ends[0], 1048577))).length).toBe(5_000_003 - 1048577);
  });

  test("that shared a commit with others", async () => {
    const url = freshStream("yjs");
    const start = await created(url, BINARY);
    const bodies = Array.from({ length: 64 }, () => "group ");
    await Promise.all(bodies.map((body) => appended(url, body, BINARY)));
    for (let count = 1; count < 64; count += 1) {
      const rest = await readBytes(url, moved(start, count * 6 + 1));
      expect(rest.length).toBe((64 - count) * 6);
    }
  });

  test("is the end of the body of the PUT", async () => {
    const url = freshStream("yjs");
    const end = await created(url, { ...BINARY, body: "snapshot" });
    await appended(url, "update", BINARY);
    expect(await text(url, moved(end, 1))).toBe("update");
  });

  test("works for text as well, and after a close", async () => {
    const { url, ends } = await stream("text/plain", "first", "second");
    await appended(url, "!", { type: "text/plain", "stream-closed": "true" });
    expect(await text(url, moved(ends[1], 1))).toBe("second!");
    const response = await read(url, moved(ends[2], 2));
    expect(await response.text()).toBe("");
    expect(response.headers.get("stream-closed")).toBe("true");
  });
});

describe("one past the tail", () => {
  test("reads as the tail", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first");
    const response = await read(url, moved(ends[1], 1));
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
    expect(nextOffset(response)).toBe(ends[1]);
    expect(response.headers.get("stream-up-to-date")).toBe("true");
    await expectError(await read(url, moved(ends[1], 2)), 400, "OFFSET_BEYOND_TAIL");
  });

  test("of an empty stream reads as the tail", async () => {
    const { url, ends } = await stream(BINARY_TYPE);
    const response = await read(url, moved(ends[0], 1));
    expect(response.status).toBe(200);
    expect(nextOffset(response)).toBe(ends[0]);
  });

  test("waits for what comes next, whole", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first");
    const waiting = read(url, moved(ends[1], 1), { live: "long-poll" });
    await sleep(200);
    await appended(url, "second", BINARY);
    const response = await waiting;
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("second");
  });

  test("follows over SSE from what comes next, whole", async () => {
    const { url, ends } = await stream("text/plain", "first");
    const response = await read(url, moved(ends[1], 1), { live: "sse" });
    await sleep(200);
    await appended(url, "second", { type: "text/plain", "stream-closed": "true" });
    const events = await response.text();
    expect(events).toMatch(/data: ?second\n/);
    expect(events).not.toContain("first");
  });

  test("keeps meaning the same after more appends", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first");
    const offset = moved(ends[1], 1);
    expect(await text(url, offset)).toBe("");
    await appended(url, "second", BINARY);
    expect(await text(url, offset)).toBe("second");
    await appended(url, "third", BINARY);
    expect(await text(url, offset)).toBe("secondthird");
  });
});

describe("a fork", () => {
  test("inherits the ends of appends", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first", "second", "third");
    const copy = freshStream("yjs");
    await created(copy, { "stream-forked-from": new URL(url).pathname });
    await appended(copy, "own", BINARY);
    expect(await text(copy, moved(ends[1], 1))).toBe("secondthirdown");
    expect(await text(copy, moved(ends[3], 1))).toBe("own");
  });

  test("begins at the end that is meant", async () => {
    const { url, ends } = await stream(BINARY_TYPE, "first", "second");
    for (const [end, expected] of [[ends[1], "first"], [ends[2], "firstsecond"]]) {
      const copy = freshStream("yjs");
      const response = await create(copy, {
        "stream-forked-from": new URL(url).pathname,
        "stream-fork-offset": moved(end, 1),
      });
      expect(response.status).toBe(201);
      expect(await text(copy)).toBe(expected);
    }
  });
});

test("a JSON stream takes every offset at its word", async () => {
  const { url, ends } = await stream(JSON_TYPE, "[1]", "[2]");
  await expectError(await read(url, moved(ends[1], 1)), 400, "INVALID_OFFSET");
  await expectError(await read(url, moved(ends[2], 1)), 400, "OFFSET_BEYOND_TAIL");
});
