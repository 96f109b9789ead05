// Pages so small that their cuts fall everywhere: whoever follows the offsets that the server
// hands out reads every byte once.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  close,
  created,
  freshStream,
  read,
  readPages,
  seeded,
} from "./client.mjs";
import { EventReader, expectOrderly } from "./event_reader.mjs";
import { Host } from "./host.mjs";

const PAGE_BYTES = 16;
const TEXT = "text/plain";

let host;
beforeAll(async () => {
  host = await Host.start({ READ_CHUNK_BYTES: String(PAGE_BYTES) });
});
afterAll(() => host.stop());

// Kinds of streams: how a body is made, and how what was read compares with what was sent.
const KINDS = {
  binary: {
    type: BINARY_TYPE,
    body: (random) => Buffer.from(letters(random)),
    join: (parts) => Buffer.concat(parts).toString(),
  },
  text: {
    type: TEXT,
    // Characters of one to four bytes, so that cuts fall inside of them.
    body: (random) => Buffer.from([...letters(random)].map((_, at) => "aé€😀"[at % 4 | 0] ?? "b").join("")),
    join: (parts) => Buffer.concat(parts).toString("latin1"),
  },
  json: {
    type: JSON_TYPE,
    body: (random) => Buffer.from(JSON.stringify([letters(random), letters(random).length])),
    join: (parts) => JSON.stringify(parts.flatMap((part) => JSON.parse(part.toString()))),
  },
};

let count = 0;
function letters(random) {
  const length = 1 + Math.floor(random() ** 2 * 40);
  return Array.from({ length }, () => "abcdefghijklmnopqrstuvwxyz"[(count += 1) % 26]).join("");
}

/** A stream of some appends: its URL, the bodies, and the offset before each of them. */
async function randomStream({ type, body }, random, appends) {
  const url = freshStream("pages", host.url);
  const bodies = [];
  const offsets = [await created(url, { type })];
  for (let n = 0; n < appends; n += 1) {
    bodies.push(body(random));
    offsets.push(await appended(url, bodies.at(-1), { type }));
  }
  return { url, bodies, offsets };
}

/** Reads over SSE in several connections, each broken off after a few events. */
async function followInPieces(url, random) {
  const parts = [];
  for (let offset = "-1"; ; ) {
    const reader = await EventReader.open(url, offset);
    const most = 1 + Math.floor(random() * 4);
    await reader.until(({ controls, ended }) => ended || controls.length >= most, "events").catch(
      // The stream's end came before so many events.
      (error) => expect(reader.ended, error.message).toBe(true),
    );
    reader.close();
    await reader.done;
    expectOrderly(reader);
    // What came after the last control event is not confirmed: it comes again.
    const last = reader.events.findLastIndex(({ kind }) => kind === "control");
    reader.events.length = last + 1;
    parts.push(reader);
    if (reader.closed) return parts;
    offset = reader.offset;
  }
}

const kinds = Object.entries(KINDS);
const seeds = [1, 2, 3, 4];

describe.each(kinds)("a %s stream", (name, kind) => {
  test.each(seeds)("reads whole, from any offset (seed %i)", async (seed) => {
    const { url, bodies, offsets } = await randomStream(kind, seeded(seed), 25);
    const pages = await readPages(url);
    expect(kind.join(pages.map(({ bytes }) => bytes))).toBe(kind.join(bodies));
    expect(pages.length).toBeGreaterThan(10);
    // Where one page ended, the next begins, now and later.
    for (const [at, { from }] of pages.entries()) {
      const again = await readPages(url, from);
      const rest = pages.slice(at).map(({ bytes }) => bytes);
      expect(kind.join(again.map(({ bytes }) => bytes))).toBe(kind.join(rest));
    }
    for (const [at, offset] of offsets.entries()) {
      const rest = await readPages(url, offset);
      expect(kind.join(rest.map(({ bytes }) => bytes))).toBe(
        kind.join([...bodies.slice(at), ...(name === "json" && at === 25 ? ["[]"] : [])]),
      );
    }
  });

  test.each(seeds)("reads whole by long-poll (seed %i)", async (seed) => {
    const { url, bodies } = await randomStream(kind, seeded(seed + 10), 25);
    const parts = [];
    for (let offset = "-1"; ; ) {
      const response = await read(url, offset, { live: "long-poll" });
      parts.push(Buffer.from(await response.arrayBuffer()));
      offset = response.headers.get("stream-next-offset");
      if (response.headers.get("stream-up-to-date") === "true") break;
    }
    expect(kind.join(parts)).toBe(kind.join(bodies));
  });

  test.each(seeds)("reads whole over SSE, however often it breaks off (seed %i)", async (seed) => {
    const random = seeded(seed + 20);
    const { url, bodies } = await randomStream(kind, random, 25);
    await close(url);
    const readers = await followInPieces(url, random);
    expect(readers.length).toBeGreaterThan(3);
    const got =
      name === "json"
        ? JSON.stringify(readers.flatMap(({ messages }) => messages))
        : kind.join(readers.map(({ bytes }) => bytes));
    expect(got).toBe(kind.join(bodies));
  });

  test.each(seeds)("forks at every offset that it hands out (seed %i)", async (seed) => {
    const { url, offsets } = await randomStream(kind, seeded(seed + 30), 12);
    const pages = await readPages(url);
    const handedOut = new Set([...offsets, ...pages.map(({ next }) => next)]);
    for (const at of handedOut) {
      const copy = freshStream("pages", host.url);
      const headers = { "stream-forked-from": new URL(url).pathname, "stream-fork-offset": at };
      const tail = await created(copy, headers);
      expect(tail).toBe(at);
      await appended(copy, kind.body(seeded(seed)), { type: kind.type });
      const before = [];
      for (const page of pages.filter(({ from }) => from === "-1" || from < at)) before.push(page);
      const copied = await readPages(copy);
      const whole = kind.join(copied.map(({ bytes }) => bytes));
      const source = kind.join(pages.map(({ bytes }) => bytes));
      const own = (await readPages(copy, at)).map(({ bytes }) => bytes);
      // The fork is a beginning of the source and then its own.
      const tailText = kind.join(own);
      const begin = name === "json" ? whole.slice(1, -1) : whole;
      const end = name === "json" ? tailText.slice(1, -1) : tailText;
      expect(begin.endsWith(end)).toBe(true);
      const inherited = begin.slice(0, begin.length - end.length).replace(/,$/, "");
      expect((name === "json" ? source.slice(1) : source).startsWith(inherited)).toBe(true);
      if (name !== "json") expect(Buffer.byteLength(inherited, "latin1")).toBe(Number(at.split("_")[1]));
      // And it reads whole, from wherever its own pages end.
      for (const [n, { from }] of copied.entries()) {
        const rest = await readPages(copy, from);
        expect(kind.join(rest.map(({ bytes }) => bytes))).toBe(
          kind.join(copied.slice(n).map(({ bytes }) => bytes)),
        );
      }
    }
  });
});
