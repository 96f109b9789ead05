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
  nextOffset,
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
    body: (random) => Buffer.from([...letters(random)].map((_, at) => WIDTHS[at % 4]).join("")),
    join: (parts) => Buffer.concat(parts).toString("latin1"),
  },
  json: {
    type: JSON_TYPE,
    body: (random) => Buffer.from(JSON.stringify([letters(random), letters(random).length])),
    join: (parts) => JSON.stringify(parts.flatMap((part) => JSON.parse(part.toString()))),
  },
};

const WIDTHS = ["a", "é", "€", "😀"];

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

/** Reads over SSE in several connections, each of which counts for a few events only. */
async function followInPieces(url, random) {
  const readers = [];
  for (let offset = "-1"; ; ) {
    const reader = await EventReader.open(url, offset);
    const most = 1 + Math.floor(random() * 4);
    await reader.until(({ controls, closed }) => closed || controls.length >= most, "events");
    reader.close();
    // Forgets what came later, so that it comes again.
    const control = reader.controls[Math.min(most, reader.controls.length) - 1];
    reader.events.length = 1 + reader.events.indexOf(control);
    expectOrderly(reader);
    readers.push(reader);
    if (reader.closed) return readers;
    offset = reader.offset;
  }
}

/** Compares texts, and shows a little of what differs. */
function expectSame(got, expected, what = "what was read") {
  let at = 0;
  while (at < expected.length && got[at] === expected[at]) at += 1;
  const shown = (text) => `${text.length} long, at ${at}: ${text.slice(at, at + 30)}`;
  const differs = at < expected.length || got.length !== expected.length;
  expect(differs ? `${what}: ${shown(got)}` : "").toBe(differs ? shown(expected) : "");
}

const withoutEnd = (whole, end) => whole.slice(0, whole.length - end.length);

const bytesOf = (pages) => pages.map(({ bytes }) => bytes);

const kinds = Object.entries(KINDS);
const seeds = [1, 2, 3];

describe.each(kinds)("a %s stream", (name, kind) => {
  const isJson = name === "json";

  test.each(seeds)("reads whole, from any offset (seed %i)", async (seed) => {
    const { url, bodies, offsets } = await randomStream(kind, seeded(seed), 25);
    const pages = await readPages(url);
    expectSame(kind.join(bytesOf(pages)), kind.join(bodies));
    expect(pages.length).toBeGreaterThan(10);
    // Where one page ended, the next begins, now and later.
    for (const [at, { from }] of pages.entries()) {
      const again = kind.join(bytesOf(await readPages(url, from)));
      expectSame(again, kind.join(bytesOf(pages.slice(at))), `from ${from}`);
    }
    for (const [at, offset] of offsets.entries()) {
      const rest = kind.join(bytesOf(await readPages(url, offset)));
      expectSame(rest, kind.join(bodies.slice(at)), `from ${offset}`);
    }
  });

  test.each(seeds)("reads whole by long-poll (seed %i)", async (seed) => {
    const { url, bodies } = await randomStream(kind, seeded(seed + 10), 25);
    const parts = [];
    for (let offset = "-1"; ; ) {
      const response = await read(url, offset, { live: "long-poll" });
      parts.push(Buffer.from(await response.arrayBuffer()));
      offset = nextOffset(response);
      if (response.headers.get("stream-up-to-date") === "true") break;
    }
    expectSame(kind.join(parts), kind.join(bodies));
  });

  test.each(seeds)("reads whole over SSE, however often it is left (seed %i)", async (seed) => {
    const random = seeded(seed + 20);
    const { url, bodies } = await randomStream(kind, random, 25);
    await close(url);
    const readers = await followInPieces(url, random);
    expect(readers.length).toBeGreaterThan(3);
    const got = isJson
      ? JSON.stringify(readers.flatMap(({ messages }) => messages))
      : kind.join(readers.map(({ bytes }) => bytes));
    expectSame(got, kind.join(bodies));
  });

  test.each(seeds)("forks at every offset that it hands out (seed %i)", async (seed) => {
    const { url, offsets } = await randomStream(kind, seeded(seed + 30), 9);
    const pages = await readPages(url);
    for (const at of new Set([...offsets, ...pages.map(({ next }) => next)])) {
      const copy = freshStream("pages", host.url);
      const headers = { "stream-forked-from": new URL(url).pathname, "stream-fork-offset": at };
      expect(await created(copy, headers), "the fork's tail").toBe(at);
      // What stands before the offset, as the source's pages have it.
      const behind = kind.join(bytesOf(await readPages(url, at)));
      const whole = kind.join(bytesOf(pages));
      const before = isJson
        ? JSON.stringify(withoutEnd(JSON.parse(whole), JSON.parse(behind)))
        : withoutEnd(whole, behind);
      const copied = await readPages(copy);
      expectSame(kind.join(bytesOf(copied)), before, `the fork at ${at}`);
      // It reads whole from wherever its own pages end, with what is appended to it.
      const own = kind.body(seeded(seed));
      await appended(copy, own, { type: kind.type });
      for (const [n, { from }] of copied.entries()) {
        const rest = kind.join(bytesOf(await readPages(copy, from)));
        const expected = kind.join([...bytesOf(copied.slice(n)), own]);
        expectSame(rest, expected, `the fork at ${at} from ${from}`);
      }
    }
  });
});
