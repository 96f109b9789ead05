// Forks: what they inherit, where they may begin, and who holds whom.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  append,
  appended,
  ask,
  close,
  create,
  created,
  eventually,
  expectError,
  expectSameBytes,
  freshStream,
  generationOf,
  head,
  moved,
  nextOffset,
  positionOf,
  randomBuffer,
  read,
  readBytes,
  readMessages,
  readPages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";

const TEXT = "text/plain";
const pathOf = (url) => new URL(url).pathname;

function fork(source, { url = freshStream("forks"), at, sub, ...options } = {}) {
  const headers = { "stream-forked-from": pathOf(source), ...options };
  if (at !== undefined) headers["stream-fork-offset"] = at;
  if (sub !== undefined) headers["stream-fork-sub-offset"] = String(sub);
  return create(url, headers);
}

/** Makes a fork, which must not exist yet, and returns its URL. */
async function forked(source, { url = freshStream("forks"), ...options } = {}) {
  const response = await fork(source, { url, ...options });
  expect(response.status, await response.text()).toBe(201);
  return url;
}

async function stream(type, ...bodies) {
  const url = freshStream("forks");
  const offsets = [await created(url, { type })];
  for (const body of bodies) offsets.push(await appended(url, body, { type }));
  return { url, offsets };
}

const status = async (url) => (await head(url)).status;

/** Waits until a held source is gone: the last fork's release may come a little later. */
const becomes404 = (url) => eventually(() => status(url), (now) => now === 404);

describe("a fork inherits", () => {
  test("10 MB byte for byte, and goes its own way", async () => {
    const random = seeded(7);
    const parts = Array.from({ length: 5 }, () => randomBuffer(2 * MIB, random));
    const { url, offsets } = await stream(BINARY_TYPE, ...parts);
    const copy = await forked(url);
    const whole = Buffer.concat(parts);
    expect(await tail(copy)).toBe(offsets.at(-1));
    expectSameBytes(await readBytes(copy), whole);
    await appended(copy, "own", { type: BINARY_TYPE });
    await appended(url, "theirs", { type: BINARY_TYPE });
    expectSameBytes(await readBytes(copy), Buffer.concat([whole, Buffer.from("own")]));
    expectSameBytes(await readBytes(url), Buffer.concat([whole, Buffer.from("theirs")]));
    const half = await forked(url, { at: offsets[2] });
    expectSameBytes(await readBytes(half), whole.subarray(0, 4 * MIB));
  });

  test("10 MB of JSON messages of all sizes, in pages as bounded as the source's", async () => {
    const large = [1, 10, 2 * MIB, 100, 3 * MIB, 70_000, 1000, 2 * MIB, 1];
    const sizes = [...large, ...Array(3000).fill(1000)];
    const messages = sizes.map((size, n) => JSON.stringify({ n, text: "j".repeat(size) }));
    const bodies = messages.slice(0, large.length);
    for (let at = large.length; at < messages.length; at += 100) {
      bodies.push(`[${messages.slice(at, at + 100).join(",")}]`);
    }
    const { url } = await stream(JSON_TYPE, ...bodies);
    const copy = await forked(url);
    await appended(copy, '{"n":"own"}');
    const pages = await readPages(copy);
    const got = pages.flatMap((page) => JSON.parse(page.bytes.toString()));
    expect(got.map(({ n }) => n)).toEqual([...sizes.keys(), "own"]);
    expect(got.slice(0, -1).every(({ text }, n) => text.length === sizes[n])).toBe(true);
    // Only a message that is larger makes a page larger than about 1 MiB.
    for (const { bytes, from } of pages) {
      const texts = JSON.parse(bytes.toString()).map(({ text }) => text?.length ?? 0);
      const allowed = Math.max(...texts) + 1.2 * MIB;
      expect(bytes.length, `length of the page at ${from}`).toBeLessThan(allowed);
    }
    expect(pages.length).toBeGreaterThan(4);
  });

  test("many small appends with their boundaries", async () => {
    const bodies = Array.from({ length: 300 }, (_, n) => `<${n}>`);
    const { url, offsets } = await stream(TEXT, ...bodies);
    const copy = await forked(url);
    // Sub-offsets count within one append: the ends came along.
    const second = await forked(copy, { at: offsets[100], sub: bodies[100].length });
    expect((await readBytes(second)).toString()).toBe(bodies.slice(0, 101).join(""));
    const beyond = await fork(copy, { at: offsets[100], sub: bodies[100].length + 1 });
    await expectError(beyond, 400, "FORK_SUB_OFFSET");
  });

  test("neither closure nor Stream-Seq", async () => {
    const { url } = await stream(TEXT, "body");
    await appended(url, "!", { type: TEXT, "stream-seq": "z", "stream-closed": "true" });
    const copy = await forked(url);
    const metadata = await head(copy);
    expect(metadata.headers.get("stream-closed")).toBeNull();
    await appended(copy, "?", { type: TEXT, "stream-seq": "a" });
    expect((await readBytes(copy)).toString()).toBe("body!?");
    expect((await head(url)).headers.get("stream-closed")).toBe("true");
  });

  test("the content type, which it may repeat", async () => {
    const { url } = await stream("text/plain; charset=utf-8", "x");
    const copy = await forked(url);
    expect((await head(copy)).headers.get("content-type")).toBe("text/plain; charset=utf-8");
    await forked(url, { type: "TEXT/plain" });
  });

  test("an empty stream", async () => {
    const { url } = await stream(JSON_TYPE);
    const copy = await forked(url);
    expect(await readMessages(copy)).toEqual([]);
    await appended(copy, "1");
    expect(await readMessages(copy)).toEqual([1]);
  });

  test("and adds the body of its own PUT, and may be closed from the start", async () => {
    const { url } = await stream(JSON_TYPE, "[1,2]");
    const copy = await forked(url, { type: JSON_TYPE, body: "[3,4]", "stream-closed": "true" });
    expect(await readMessages(copy)).toEqual([1, 2, 3, 4]);
    await expectError(await append(copy, "5"), 409, "STREAM_CLOSED");
  });
});

describe("a fork begins", () => {
  test("at every offset that the source has handed out", async () => {
    const bodies = Array.from({ length: 12 }, (_, n) => "abcdefghijkl".slice(0, n + 1));
    const { url, offsets } = await stream(TEXT, ...bodies);
    for (const [count, at] of offsets.entries()) {
      const copy = await forked(url, { at });
      expect((await readBytes(copy)).toString()).toBe(bodies.slice(0, count).join(""));
      expect(await tail(copy)).toBe(at);
      await appended(copy, "own", { type: TEXT });
      expect((await readBytes(copy, at)).toString()).toBe("own");
    }
  });

  test("at every message of a JSON stream", async () => {
    const batches = [[0, 1, 2], ["a"], [{ b: [3] }, [4], [[]], null], [5]];
    const bodies = batches.map((batch) => JSON.stringify(batch));
    const { url, offsets } = await stream(JSON_TYPE, ...bodies);
    const all = batches.flat();
    for (let count = 0; count <= all.length; count += 1) {
      const copy = await forked(url, { at: "-1", sub: count });
      expect(await readMessages(copy)).toEqual(all.slice(0, count));
      await appended(copy, '"own"');
      expect(await readMessages(copy)).toEqual([...all.slice(0, count), "own"]);
    }
    const inside = await forked(url, { at: offsets[1], sub: 3 });
    expect(await readMessages(inside)).toEqual(all.slice(0, 6));
  });

  test("at every byte of the next append of a binary stream", async () => {
    const { url, offsets } = await stream(BINARY_TYPE, "12345", "67", "89");
    for (let sub = 0; sub <= 2; sub += 1) {
      const copy = await forked(url, { at: offsets[1], sub });
      expect((await readBytes(copy)).toString()).toBe("1234567".slice(0, 5 + sub));
    }
    await expectError(await fork(url, { at: offsets[1], sub: 3 }), 400, "FORK_SUB_OFFSET");
  });

  test("at the start and at the tail, by their names", async () => {
    const { url, offsets } = await stream(TEXT, "body");
    expect((await readBytes(await forked(url, { at: "-1" }))).toString()).toBe("");
    const zero = "0000000000000000_0000000000000000";
    expect((await readBytes(await forked(url, { at: zero }))).toString()).toBe("");
    expect(await tail(await forked(url, { at: "now" }))).toBe(offsets.at(-1));
  });

  test("not past the tail, nor at a stranger's offset", async () => {
    const { url, offsets } = await stream(JSON_TYPE, "[1]");
    const [other] = [await stream(JSON_TYPE, "[1]")];
    const end = offsets.at(-1);
    await expectError(await fork(url, { at: moved(end, 3) }), 400, "FORK_BEYOND_TAIL");
    await expectError(await fork(url, { at: moved(end, -1) }), 400, "INVALID_OFFSET");
    const stranger = await fork(url, { at: other.offsets.at(-1) });
    expect(stranger.status).toBe(400);
  });

  test("in one offset space with its source", async () => {
    const { url, offsets } = await stream(TEXT, "one", "two");
    const copy = await forked(url);
    // The source's offsets are good for the fork up to the fork point.
    for (const offset of offsets) {
      expectSameBytes(await readBytes(copy, offset), await readBytes(url, offset));
    }
    const own = await appended(copy, "own", { type: TEXT });
    const theirs = await appended(url, "own", { type: TEXT });
    expect(own > offsets.at(-1)).toBe(true);
    expect(positionOf(own)).toBe(positionOf(theirs));
    expect(own).not.toBe(theirs);
    await expectError(await read(copy, theirs), 400, "STALE_OFFSET");
    expect((await read(url, own)).status).toBe(400);
  });

  test("with tags of its own", async () => {
    const { url } = await stream(TEXT, "body");
    const copy = await forked(url);
    const [one, two] = await Promise.all([read(url, "-1"), read(copy, "-1")]);
    expect(one.headers.get("etag")).not.toBe(two.headers.get("etag"));
  });
});

describe("a fork of a fork", () => {
  test("carries every part of its ancestry", async () => {
    const { url: root } = await stream(TEXT, "root ");
    const generations = [root];
    let expected = "root ";
    for (let depth = 1; depth <= 8; depth += 1) {
      const next = await forked(generations.at(-1));
      expected += `d${depth} `;
      await appended(next, `d${depth} `, { type: TEXT });
      generations.push(next);
    }
    expect((await readBytes(generations.at(-1))).toString()).toBe(expected);
    // Each stretch keeps the generation in which it was written, and they only rise.
    const offsets = [];
    for (const url of generations) offsets.push(await tail(url));
    expect(offsets).toEqual([...offsets].sort());
    for (const [at, offset] of offsets.entries()) {
      const rest = (await readBytes(generations.at(-1), offset)).toString();
      expect(rest).toBe(expected.split(" ").slice(at + 1).join(" "));
    }
    // From the middle of an inherited stretch.
    const early = await forked(generations.at(-1), { at: offsets[3] });
    expect((await readBytes(early)).toString()).toBe("root d1 d2 d3 ");
    expect(await tail(early)).toBe(offsets[3]);
  });

  test("outlives all of them, and lets them go in one cascade", async () => {
    const { url: root } = await stream(TEXT, "root ");
    const chain = [root];
    for (let depth = 1; depth <= 6; depth += 1) {
      const next = await forked(chain.at(-1));
      await appended(next, `${depth} `, { type: TEXT });
      chain.push(next);
    }
    const last = chain.pop();
    for (const url of chain) {
      expect((await remove(url)).status).toBe(204);
      expect(await status(url)).toBe(410);
    }
    expect((await readBytes(last)).toString()).toBe("root 1 2 3 4 5 6 ");
    expect((await remove(last)).status).toBe(204);
    for (const url of chain.reverse()) await becomes404(url);
    await created(root, { type: TEXT, body: "again" });
    expect((await readBytes(root)).toString()).toBe("again");
  });
});

describe("a source that is deleted", () => {
  test("answers 410 to everything and 409 to PUT until its last fork is gone", async () => {
    const { url, offsets } = await stream(TEXT, "body");
    const forks = [await forked(url), await forked(url, { at: offsets[0] }), await forked(url)];
    expect((await remove(url)).status).toBe(204);
    const held = async () => {
      await expectError(await read(url, "-1"), 410, "STREAM_GONE");
      await expectError(await read(url, offsets[1]), 410, "STREAM_GONE");
      await expectError(await read(url, "now", { live: "long-poll" }), 410, "STREAM_GONE");
      await expectError(await read(url, "-1", { live: "sse" }), 410, "STREAM_GONE");
      await expectError(await append(url, "x", { type: TEXT }), 410, "STREAM_GONE");
      await expectError(await close(url), 410, "STREAM_GONE");
      await expectError(await remove(url), 410, "STREAM_GONE");
      expect(await status(url)).toBe(410);
      await expectError(await create(url, { type: TEXT }), 409, "STREAM_EXISTS");
      await expectError(await fork(url), 409, "FORK_SOURCE_GONE");
    };
    await held();
    for (const one of forks.slice(1)) {
      expect((await remove(one)).status).toBe(204);
      await held();
      expect((await readBytes(forks[0])).toString()).toBe("body");
    }
    await remove(forks[0]);
    await becomes404(url);
    await created(url, { type: JSON_TYPE, body: "[1]" });
    expect(await readMessages(url)).toEqual([1]);
  });

  test("ends its live readers", async () => {
    const { url } = await stream(TEXT, "body");
    await forked(url);
    const waiting = read(url, "now", { live: "long-poll" });
    const events = await read(url, "-1", { live: "sse" });
    await sleep(200);
    await remove(url);
    const answer = await waiting;
    expect([404, 410]).toContain(answer.status);
    expect(await events.text()).toContain("body");
  });

  test("after its forks is gone at once", async () => {
    const { url } = await stream(TEXT, "body");
    await remove(await forked(url));
    await eventually(async () => (await remove(url)).status, (now) => now === 204);
    await becomes404(url);
  });

  test("frees a fork's path for another stream, which does not hold it", async () => {
    const { url } = await stream(TEXT, "body");
    const copy = await forked(url);
    await remove(copy);
    await created(copy, { type: TEXT, body: "no fork" });
    await remove(url);
    await becomes404(url);
    expect((await readBytes(copy)).toString()).toBe("no fork");
  });

  test("and created and forked in turns keeps every life apart", async () => {
    const url = freshStream("forks");
    const copies = [];
    for (let life = 0; life < 15; life += 1) {
      await created(url, { type: TEXT, body: `life ${life}` });
      const copy = await forked(url);
      expect((await readBytes(copy)).toString()).toBe(`life ${life}`);
      copies.push(copy);
      await remove(url);
      await remove(copy);
      await becomes404(url);
    }
    for (const copy of copies) expect(await status(copy)).toBe(404);
  });
});

describe("a repeated PUT of a fork", () => {
  test("is 200 when it says the same, and 409 when not", async () => {
    const { url, offsets } = await stream(TEXT, "one", "two");
    const other = await stream(TEXT, "one", "two");
    const copy = await forked(url, { at: offsets[1] });
    for (const same of [{ at: offsets[1] }, {}, { at: offsets[1], type: TEXT, body: "ignored" }]) {
      const response = await fork(url, { url: copy, ...same });
      expect(response.status).toBe(200);
      expect(nextOffset(response)).toBe(offsets[1]);
    }
    const different = [
      fork(url, { url: copy, at: offsets[2] }),
      fork(url, { url: copy, at: offsets[1], sub: 1 }),
      fork(other.url, { url: copy }),
      fork(url, { url: copy, at: offsets[1], "stream-ttl": "60" }),
      create(copy, { type: TEXT }),
    ];
    for (const response of await Promise.all(different)) {
      await expectError(response, 409, "STREAM_EXISTS");
    }
    expect((await readBytes(copy)).toString()).toBe("one");
  });

  test("is 200 even when the source has gone", async () => {
    const { url } = await stream(TEXT, "body");
    const copy = await forked(url);
    await remove(url);
    expect((await fork(url, { url: copy })).status).toBe(200);
  });

  test("many times at once makes one fork", async () => {
    const parts = Array.from({ length: 4 }, () => Buffer.alloc(2 * MIB, "p"));
    const { url } = await stream(BINARY_TYPE, ...parts);
    for (let round = 0; round < 3; round += 1) {
      const copy = freshStream("forks");
      const answers = await Promise.all(
        Array.from({ length: 12 }, () => fork(url, { url: copy, type: BINARY_TYPE, body: "own" })),
      );
      const statuses = answers.map((answer) => answer.status).sort();
      expect(statuses).toEqual([...Array(11).fill(200), 201]);
      expect((await fork(url, { url: copy })).status).toBe(200);
      expect((await readBytes(copy)).length).toBe(8 * MIB + 3);
      expect((await remove(copy)).status).toBe(204);
    }
    await remove(url);
    await becomes404(url);
  });
});

describe("a fork of itself", () => {
  test("has no source, or is another stream", async () => {
    const url = freshStream("forks");
    await expectError(await fork(url, { url }), 404, "FORK_SOURCE_NOT_FOUND");
    expect(await status(url)).toBe(404);
    await created(url, { type: TEXT, body: "body" });
    await expectError(await fork(url, { url }), 409, "STREAM_EXISTS");
    expect((await readBytes(url)).toString()).toBe("body");
    expect((await remove(url)).status).toBe(204);
    expect(await status(url)).toBe(404);
  });

  test("in a circle never hangs", async () => {
    const [a, b] = [freshStream("forks"), freshStream("forks")];
    const answers = await Promise.all([fork(a, { url: b }), fork(b, { url: a })]);
    for (const answer of answers) expect([404, 503]).toContain(answer.status);
    await created(a, { type: TEXT, body: "a" });
    await forked(a, { url: b });
    await expectError(await fork(b, { url: a }), 409, "STREAM_EXISTS");
    await remove(a);
    await expectError(await fork(b, { url: a }), 409, "STREAM_EXISTS");
    await remove(b);
    await becomes404(a);
  });
});

describe("while a fork is being made", () => {
  const big = () => stream(BINARY_TYPE, ...Array(6).fill(Buffer.alloc(2 * MIB, "s")));

  test("its source may be deleted: the fork is whole, or was never there", async () => {
    for (const pause of [0, 2, 5, 10, 20, 40, 80]) {
      const { url } = await big();
      const copy = freshStream("forks");
      const making = fork(url, { url: copy });
      await sleep(pause);
      expect((await remove(url)).status).toBe(204);
      const made = await making;
      if (made.status === 201) {
        expect((await readBytes(copy)).length).toBe(12 * MIB);
        expect(await status(url)).toBe(410);
        await remove(copy);
      } else {
        expect([404, 409], await made.text()).toContain(made.status);
        expect(await status(copy)).toBe(404);
      }
      await becomes404(url);
    }
  });

  test("its source may grow: the fork ends where the source's tail was", async () => {
    const { url, offsets } = await big();
    const copy = freshStream("forks");
    const making = fork(url, { url: copy });
    for (let n = 0; n < 20; n += 1) await appended(url, "grown", { type: BINARY_TYPE });
    expect((await making).status).toBe(201);
    const length = (await readBytes(copy)).length;
    expect(length).toBeGreaterThanOrEqual(12 * MIB);
    expect((length - 12 * MIB) % 5).toBe(0);
    expect(positionOf(await tail(copy))).toBe(length);
    expect(generationOf(await tail(copy))).toBe(generationOf(offsets[0]));
  });

  test("nobody sees a part of it", async () => {
    const { url } = await big();
    const copy = freshStream("forks");
    let made = false;
    const making = fork(url, { url: copy }).then((response) => {
      made = true;
      return response;
    });
    while (!made) {
      const response = await head(copy);
      expect([200, 404]).toContain(response.status);
      if (response.status === 200) expect(positionOf(nextOffset(response))).toBe(12 * MIB);
    }
    expect((await making).status).toBe(201);
  });

  test("a client that leaves does not leave half a fork", async () => {
    const { url } = await big();
    const copy = freshStream("forks");
    const aborter = new AbortController();
    const headers = { "stream-forked-from": pathOf(url) };
    const making = ask(copy, { method: "PUT", headers, signal: aborter.signal });
    await sleep(15);
    aborter.abort();
    await making.catch(() => {});
    const again = await eventually(() => fork(url, { url: copy }), (answer) => answer.status < 300);
    expect([200, 201]).toContain(again.status);
    expect((await readBytes(copy)).length).toBe(12 * MIB);
    await remove(copy);
    await remove(url);
    await becomes404(url);
  });
});

describe("a fork's lifetime", () => {
  const TTL = { "stream-ttl": "3600" };
  const EXPIRES = { "stream-expires-at": "2099-01-01T00:00:00Z" };
  const OTHER = { "stream-ttl": "60" };
  const OTHER_END = { "stream-expires-at": "2098-01-01T00:00:00Z" };

  // PROTOCOL §4.2: the source's, the request's, and what the fork gets.
  test.each([
    ["nothing", {}, {}, {}],
    ["its own TTL", {}, OTHER, OTHER],
    ["its own end", {}, OTHER_END, OTHER_END],
    ["the source's TTL", TTL, {}, TTL],
    ["its own TTL instead", TTL, OTHER, OTHER],
    ["its own end instead of a TTL", TTL, OTHER_END, OTHER_END],
    ["the source's end", EXPIRES, {}, EXPIRES],
    ["its own TTL instead of an end", EXPIRES, OTHER, OTHER],
    ["its own end instead", EXPIRES, OTHER_END, OTHER_END],
  ])("is %s", async (_, source, request, expected) => {
    const url = freshStream("forks");
    await created(url, { type: TEXT, body: "x", ...source });
    const copy = await forked(url, request);
    const { headers } = await head(copy);
    expect(headers.get("stream-ttl")).toBe(expected["stream-ttl"] ?? null);
    const expires = headers.get("stream-expires-at");
    const wanted = expected["stream-expires-at"];
    expect(expires && Date.parse(expires)).toBe(wanted ? Date.parse(wanted) : null);
    // Saying nothing again is the same fork.
    expect((await fork(url, { url: copy, ...request })).status).toBe(200);
  });

  test("runs independently of the source's", async () => {
    const url = freshStream("forks");
    await created(url, { type: TEXT, body: "x", "stream-ttl": "1" });
    const copy = await forked(url, { "stream-ttl": "3600" });
    await eventually(() => status(url), (now) => now === 410, 5000);
    expect((await readBytes(copy)).toString()).toBe("x");
    await expectError(await create(url, { type: TEXT }), 409, "STREAM_EXISTS");
    await remove(copy);
    await becomes404(url);
  });

  test("that has ended lets the source go", async () => {
    const { url } = await stream(TEXT, "x");
    const copy = await forked(url, { "stream-ttl": "1" });
    await remove(url);
    expect(await status(url)).toBe(410);
    await eventually(() => status(url), (now) => now === 404, 10_000);
    expect(await status(copy)).toBe(404);
  });
});

describe("a killed host", () => {
  test("leaves no half fork and no source that is held for nothing", async () => {
    const host = await Host.start();
    try {
      for (const pause of [10, 50]) {
        const url = freshStream("forks", host.url);
        await created(url, { type: BINARY_TYPE });
        for (let n = 0; n < 6; n += 1) {
          await appended(url, Buffer.alloc(2 * MIB, "k"), { type: BINARY_TYPE });
        }
        const copy = freshStream("forks", host.url);
        const making = fork(url, { url: copy }).catch(() => {});
        await sleep(pause);
        await host.restart();
        await making;
        expect([200, 404]).toContain(await status(copy));
        // Whatever was left of it is in nobody's way.
        const again = await eventually(
          () => fork(url, { url: copy }),
          (answer) => answer.status < 300,
        );
        expect([200, 201]).toContain(again.status);
        expect((await readBytes(copy)).length).toBe(12 * MIB);
        await remove(url);
        expect(await status(url)).toBe(410);
        await host.restart();
        expect(await status(url)).toBe(410);
        expect((await remove(copy)).status).toBe(204);
        await becomes404(url);
      }
    } finally {
      await host.stop();
    }
  });
});
