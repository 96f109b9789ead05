// A path that is deleted and created again: no byte, offset or tag of an earlier life ever shows.
import { describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  appended,
  close,
  create,
  created,
  expectError,
  freshStream,
  generationOf,
  head,
  moved,
  nextOffset,
  positionOf,
  producer,
  read,
  readBytes,
  readMessages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";

const TEXT = "text/plain";

describe("delete and create again", () => {
  test("in a tight loop shows nothing of earlier lives", async () => {
    const url = freshStream("lives");
    const tags = [];
    const offsets = [];
    for (let life = 0; life < 200; life += 1) {
      const body = `life ${life}`;
      const offset = await created(url, { type: TEXT, body });
      const response = await read(url, "-1");
      expect(await response.text()).toBe(body);
      const tag = response.headers.get("etag");
      expect(tags).not.toContain(tag);
      const stale = tags.slice(-20).join(", ");
      expect((await read(url, "-1", { "if-none-match": stale })).status).toBe(200);
      if (life > 0) {
        const earlier = offsets.at(-1);
        expect(generationOf(offset)).toBeGreaterThan(generationOf(earlier));
        await expectError(await read(url, earlier), 400, "STALE_OFFSET");
        await expectError(await read(url, moved(earlier, -3)), 400, "STALE_OFFSET");
      }
      tags.push(tag);
      offsets.push(offset);
      expect((await remove(url)).status).toBe(204);
      expect((await head(url)).status).toBe(404);
    }
    expect(new Set(tags).size).toBe(200);
  });

  test("forgets producers, sequence, closure, lifetime and content type", async () => {
    const url = freshStream("lives");
    const state = { ...producer("p", 5, 0), "stream-seq": "z" };
    await created(url, { type: JSON_TYPE, "stream-ttl": "3600" });
    await appended(url, "1", { ...state, "stream-closed": "true" });
    await remove(url);
    await created(url, { type: TEXT });
    const metadata = await head(url);
    expect(metadata.headers.get("stream-closed")).toBeNull();
    expect(metadata.headers.get("stream-ttl")).toBeNull();
    expect(metadata.headers.get("content-type")).toBe(TEXT);
    const first = await append(url, "a", { type: TEXT, ...producer("p", 0, 0), "stream-seq": "a" });
    expect(first.status).toBe(200);
  });

  test("while many rows of the earlier life are still being erased", async () => {
    const url = freshStream("lives");
    for (let life = 0; life < 3; life += 1) {
      await created(url, { type: JSON_TYPE });
      // One after the other, so that each is a row; with producers, so that those are erased, too.
      for (let n = 0; n < 400; n += 1) {
        await appended(url, JSON.stringify({ life, n }), producer(`p${n}`, 0, 0));
      }
      if (life < 2) await remove(url);
    }
    const expected = Array.from({ length: 400 }, (_, n) => ({ life: 2, n }));
    for (let wait = 0; wait < 3; wait += 1) {
      expect(await readMessages(url)).toEqual(expected);
      await sleep(300);
    }
    await remove(url);
  });
});

// Everything that was read of a path, and whether one history explains it.
class History {
  tags = new Map();
  bodies = new Map();
  lives = new Map();

  /** Notes a whole read: text of tokens such as `7;`, each naming the life that it was sent to. */
  note(response, text) {
    const generation = generationOf(nextOffset(response));
    const tag = response.headers.get("etag");
    expect(this.tags.get(tag) ?? text, `${tag} names two bodies`).toBe(text);
    this.tags.set(tag, text);
    const known = this.bodies.get(generation) ?? "";
    const [shorter, longer] = known.length < text.length ? [known, text] : [text, known];
    expect(longer.startsWith(shorter), `generation ${generation}: ${known} | ${text}`).toBe(true);
    this.bodies.set(generation, longer);
    return generation;
  }
}

describe("several connections", () => {
  const DURATION_MS = 4000;

  test("read one life at a time while another deletes and creates", async () => {
    const url = freshStream("lives");
    const history = new History();
    const generations = [];
    let running = true;
    let life = 0;
    const write = async () => {
      for (; running; life += 1) {
        const token = `${life};`;
        generations.push(generationOf(await created(url, { type: TEXT, body: token })));
        for (let n = 0; n < life % 4; n += 1) await appended(url, token, { type: TEXT });
        await remove(url);
      }
    };
    let reads = 0;
    const follow = async () => {
      let offset = "-1";
      let tag = '"none"';
      while (running) {
        const response = await read(url, offset, { "if-none-match": tag });
        const text = await response.text();
        reads += 1;
        if (response.status === 404) continue;
        if (response.status === 400) {
          expect(JSON.parse(text).error.code).toBe("STALE_OFFSET");
          offset = "-1";
          continue;
        }
        expect([200, 304]).toContain(response.status);
        const next = nextOffset(response);
        if (response.status === 200) {
          const tokens = text.split(";").slice(0, -1);
          expect(new Set(tokens).size, `two lives in one answer: ${text}`).toBeLessThan(2);
          if (offset === "-1") history.note(response, text);
          // The generation of the answer is that of the life which the tokens name.
          for (const token of tokens) {
            const known = history.lives.get(token) ?? generationOf(next);
            expect(known, `life ${token} in two generations`).toBe(generationOf(next));
            history.lives.set(token, known);
          }
        } else {
          expect(history.tags.has(tag)).toBe(true);
        }
        if (offset === "-1") tag = response.headers.get("etag") ?? tag;
        offset = reads % 3 === 0 ? "-1" : next;
        if (offset !== "-1") tag = '"none"';
      }
    };
    const work = [write(), follow(), follow(), follow(), follow()];
    await sleep(DURATION_MS);
    running = false;
    await Promise.all(work);
    expect(life).toBeGreaterThan(20);
    expect(reads).toBeGreaterThan(100);
    expect(generations).toEqual([...new Set(generations)].sort((a, b) => a - b));
    for (const [token, generation] of history.lives) {
      expect(generations[Number(token)]).toBe(generation);
    }
  });

  test("all create, append, read and delete", async () => {
    const url = freshStream("lives");
    const history = new History();
    /** Acknowledged appends: `generation_position` of the end, and the token. */
    const acked = new Map();
    let running = true;
    let tokens = 0;
    const work = async (seed) => {
      const random = seeded(seed);
      for (let n = 0; running; n += 1) {
        const token = `${seed}.${n};`;
        const dice = random();
        if (dice < 0.2) {
          const response = await create(url, { type: TEXT, body: token });
          expect([200, 201]).toContain(response.status);
          if (response.status === 201) acked.set(nextOffset(response), token);
        } else if (dice < 0.35) {
          expect([204, 404]).toContain((await remove(url)).status);
        } else if (dice < 0.7) {
          const response = await append(url, token, { type: TEXT });
          expect([204, 404]).toContain(response.status);
          if (response.status === 204) {
            expect(acked.has(nextOffset(response)), "two appends with one offset").toBe(false);
            acked.set(nextOffset(response), token);
          }
        } else {
          const response = await read(url, "-1");
          const text = await response.text();
          expect([200, 404]).toContain(response.status);
          if (response.status === 200) history.note(response, text);
        }
        tokens += 1;
      }
    };
    const workers = [1, 2, 3, 4, 5, 6].map(work);
    await sleep(DURATION_MS);
    running = false;
    await Promise.all(workers);
    expect(tokens).toBeGreaterThan(200);
    // Each byte that was read stands where its append was acknowledged, and in one life only.
    const places = new Map();
    for (const [generation, text] of history.bodies) {
      let position = 0;
      for (const token of text.split(/(?<=;)/)) {
        position += token.length;
        const place = [generation, position].map((part) => String(part).padStart(16, "0")).join("_");
        expect(acked.get(place), `at ${place}`).toBe(token);
        expect(places.get(token) ?? place, `${token} twice`).toBe(place);
        places.set(token, place);
      }
    }
    expect(places.size).toBeGreaterThan(20);
  });
});

describe("a restart of the host", () => {
  test("brings no earlier life back", async () => {
    const host = await Host.start();
    try {
      const url = freshStream("lives", host.url);
      const kept = freshStream("lives", host.url);
      const keptAt = await created(kept, { type: TEXT, body: "kept" });
      const keptTag = (await read(kept, "-1")).headers.get("etag");
      let earlier = await created(url, { type: TEXT, body: "life 0" });
      for (let life = 1; life < 4; life += 1) {
        const tag = (await read(url, "-1")).headers.get("etag");
        await remove(url);
        await host.restart();
        expect((await head(url)).status).toBe(404);
        const offset = await created(url, { type: TEXT, body: `life ${life}` });
        expect(generationOf(offset)).toBeGreaterThan(generationOf(earlier));
        await expectError(await read(url, earlier), 400, "STALE_OFFSET");
        const response = await read(url, "-1", { "if-none-match": tag });
        expect(await response.text()).toBe(`life ${life}`);
        earlier = offset;
      }
      // A life goes on over restarts.
      expect(await tail(kept)).toBe(keptAt);
      expect((await read(kept, "-1", { "if-none-match": keptTag })).status).toBe(304);
      expect((await create(kept, { type: TEXT })).status).toBe(200);
    } finally {
      await host.stop();
    }
  });
});

describe("If-None-Match", () => {
  async function stream() {
    const url = freshStream("lives");
    await created(url, { type: TEXT, body: "body" });
    const tag = (await read(url, "-1")).headers.get("etag");
    expect(tag).toMatch(/^"[^"]+"$/);
    return [url, tag];
  }

  test("with the tag, alone or in a list, weak or not, or `*`, is 304", async () => {
    const [url, tag] = await stream();
    const same = [
      tag,
      "*",
      `W/${tag}`,
      `"a", ${tag}`,
      `"a",W/${tag} , "b"`,
      `"a,b", ${tag}`,
      `, ${tag},`,
      `"", ${tag}`,
    ];
    for (const value of same) {
      const response = await read(url, "-1", { "if-none-match": value });
      expect(response.status, value).toBe(304);
      expect((await response.arrayBuffer()).byteLength).toBe(0);
      expect(response.headers.get("etag")).toBe(tag);
      expect(nextOffset(response)).toBe(await tail(url));
      expect(response.headers.get("cache-control")).toBeTruthy();
    }
  });

  test("with anything else is 200", async () => {
    const [url, tag] = await stream();
    const others = ['"other"', tag.slice(1, -1), `${tag.slice(0, -1)}x"`, '"a", "b"', "W/", ","];
    for (const value of others) {
      const response = await read(url, "-1", { "if-none-match": value });
      expect(response.status, value).toBe(200);
      expect(await response.text()).toBe("body");
    }
  });

  test("no longer matches after an append or a close", async () => {
    const [url, tag] = await stream();
    await appended(url, "+", { type: TEXT });
    const grown = await read(url, "-1", { "if-none-match": tag });
    expect(grown.status).toBe(200);
    const second = grown.headers.get("etag");
    await close(url);
    const closed = await read(url, "-1", { "if-none-match": `${tag}, ${second}` });
    expect(closed.status).toBe(200);
    expect(closed.headers.get("stream-closed")).toBe("true");
    const third = closed.headers.get("etag");
    expect(new Set([tag, second, third]).size).toBe(3);
    const again = await read(url, "-1", { "if-none-match": third });
    expect(again.status).toBe(304);
    expect(again.headers.get("stream-closed")).toBe("true");
  });

  test("still matches a page in the middle, whatever follows", async () => {
    const url = freshStream("lives");
    await created(url, { type: TEXT, body: Buffer.alloc(3_000_000, "x") });
    const first = await read(url, "-1");
    // `-1` names no generation: after a re-creation it is another page.
    expect(first.headers.get("cache-control")).toBe("no-cache");
    const offset = nextOffset(first);
    const page = await read(url, offset);
    expect(page.headers.get("stream-up-to-date")).toBeNull();
    expect(page.headers.get("cache-control")).toContain("public");
    const tag = page.headers.get("etag");
    await appended(url, "y", { type: TEXT });
    await close(url);
    const again = await read(url, offset, { "if-none-match": tag });
    expect(again.status).toBe(304);
    expect(nextOffset(again)).toBe(nextOffset(page));
  });

  test("means nothing for `now`, which has no tag", async () => {
    const [url] = await stream();
    const response = await read(url, "now", { "if-none-match": "*" });
    expect(response.status).toBe(200);
    expect(response.headers.get("etag")).toBeNull();
    expect(response.headers.get("cache-control")).toBe("no-store");
  });

  test("differs for every page of a stream", async () => {
    const [url, tag] = await stream();
    const offset = await tail(url);
    const middle = moved(offset, -2);
    const tags = [tag];
    for (const from of [middle, offset]) tags.push((await read(url, from)).headers.get("etag"));
    expect(new Set(tags).size).toBe(3);
    expect(positionOf(offset)).toBe(4);
    expect((await readBytes(url, middle)).toString()).toBe("dy");
  });
});
