// Request bodies: cut off, too large, large, and read back byte for byte.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  BODY_BYTES_MAX,
  JSON_TYPE,
  MIB,
  SERVER,
  append,
  appended,
  ask,
  create,
  created,
  expectError,
  expectSameBytes,
  freshPath,
  freshStream,
  head,
  nextOffset,
  producer,
  randomBuffer,
  read,
  readBytes,
  readMessages,
  readPages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { abandon, exchange, requestHead } from "./raw_socket.mjs";

// How long a cut-off request might still be at work in the server.
const SETTLE_MS = 300;

const declared = (length) => ({ "content-length": String(length) });
const CHUNKED = { "transfer-encoding": "chunked" };
const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;

describe("a body that ends early", () => {
  // Each body would be a complete append, if the server took what it got for the whole.
  const CUTS = {
    "half of a declared body": [declared(1000), ["x".repeat(500)]],
    "all but one byte of a declared body": [declared(10), ["123456789"]],
    "nothing of a declared body": [declared(10), []],
    "a declared body of 3 MB after 2 MB": [declared(3e6), ["x".repeat(2e6)]],
    "chunks without the last one": [CHUNKED, [chunk("hello"), chunk("world")]],
    "the middle of a chunk": [CHUNKED, [chunk("hello"), "10\r\nhalf"]],
    "the middle of a chunk's size": [CHUNKED, [chunk("hello"), "1"]],
    "3 MB of chunks without the last one": [CHUNKED, Array(30).fill(chunk("x".repeat(1e5)))],
  };
  const JSON_CUTS = {
    "a declared body cut behind a complete value": [declared(30), ['{"cut":true}']],
    "a declared body cut behind a complete array": [declared(30), ["[1,2,3]"]],
    "chunks that are a complete value": [CHUNKED, [chunk('{"cut":'), chunk("true}")]],
  };
  const cases = [
    ...Object.entries(CUTS).map((cut) => [BINARY_TYPE, ...cut]),
    ...Object.entries(JSON_CUTS).map((cut) => [JSON_TYPE, ...cut]),
  ].flatMap(([type, name, cut]) => ["fin", "rst"].map((ending) => ({ type, name, cut, ending })));

  test.concurrent.each(cases)("appends nothing: $name, $ending, $type", async (given) => {
    const { type, cut, ending } = given;
    const [framing, parts] = cut;
    const path = freshPath("cut");
    const url = SERVER + path;
    const before = await created(url, { type, body: type === JSON_TYPE ? "1" : "begin" });
    const headers = { "content-type": type, ...producer("p", 0, 0), "stream-closed": "true" };
    const request = requestHead("POST", path, { ...framing, ...headers });
    await abandon(SERVER, [request, ...parts], ending);
    await sleep(SETTLE_MS);
    const after = await head(url);
    expect(nextOffset(after)).toBe(before);
    expect(after.headers.get("stream-closed")).toBeNull();
    // The same tuple is still new.
    const body = type === JSON_TYPE ? "2" : "end";
    const repeated = await append(url, body, { type, ...producer("p", 0, 0) });
    expect(repeated.status).toBe(200);
    const expected = type === JSON_TYPE ? "[1,2]" : "beginend";
    expect((await readBytes(url)).toString().replace(/\s/g, "")).toBe(expected);
  });

  test.concurrent.each(cases)("creates nothing: $name, $ending, $type", async (given) => {
    const { type, cut, ending } = given;
    const [framing, parts] = cut;
    const path = freshPath("cut");
    const request = requestHead("PUT", path, { ...framing, "content-type": type });
    await abandon(SERVER, [request, ...parts], ending);
    await sleep(SETTLE_MS);
    expect((await head(SERVER + path)).status).toBe(404);
  });
});

describe("a body over the limit", () => {
  const tooLarge = Buffer.alloc(BODY_BYTES_MAX + 1, "x");

  // Repeated, because an answer that comes before the body is read may get lost: the connection
  // is cut, and the client has an error in writing before it has read anything.
  test.each(["POST", "PUT"])("%s with its length declared is 413", async (method) => {
    const url = freshStream("large");
    if (method === "POST") await created(url, { type: BINARY_TYPE });
    const headers = { "content-type": BINARY_TYPE };
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const response = await ask(url, { method, headers, body: tooLarge });
      const { details } = await expectError(response, 413, "BODY_TOO_LARGE");
      expect(details).toEqual({ bytesMax: BODY_BYTES_MAX });
    }
    await expectUntouched(method, url);
  });

  test.each(["POST", "PUT"])("%s in chunks is 413", async (method) => {
    const url = freshStream("large");
    if (method === "POST") await created(url, { type: BINARY_TYPE });
    const headers = { "content-type": BINARY_TYPE };
    const body = new Blob([tooLarge]).stream();
    const response = await ask(url, { method, headers, body, duplex: "half" });
    await expectError(response, 413, "BODY_TOO_LARGE");
    await expectUntouched(method, url);
  });

  test("is refused before all of it has come when it has no end in sight", async () => {
    const path = freshPath("large");
    await created(SERVER + path, { type: BINARY_TYPE });
    const headers = { ...declared(1e15), "content-type": BINARY_TYPE };
    const part = Buffer.alloc(MIB);
    const parts = [requestHead("POST", path, headers), ...Array(80).fill(part)];
    const answer = await exchange(SERVER, parts);
    await expectError(new Response(answer.body, answer), 413, "BODY_TOO_LARGE");
  });

  async function expectUntouched(method, url) {
    const response = await head(url);
    if (method === "PUT") expect(response.status).toBe(404);
    else expect(nextOffset(response)).toMatch(/_0{16}$/);
  }
});

describe("a refusal that needs no body", () => {
  const body = Buffer.alloc(BODY_BYTES_MAX);
  const refusals = {
    "a missing stream": [404, freshPath("missing"), {}],
    "a reserved path": [403, "/v1/p/stream/session/x", {}],
    "an illegal path": [400, "/v1/p/stream/a//b", {}],
    "no resource": [404, "/v1/p", {}],
    "malformed headers": [400, undefined, { "producer-id": "p" }],
  };

  // The same as above: the answer must not get lost because nobody reads the body.
  test.each(Object.entries(refusals))("arrives: %s", async (_, [status, path, headers]) => {
    const url = SERVER + (path ?? freshPath("refused"));
    if (path === undefined) await created(url, { type: JSON_TYPE });
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const response = await append(url, body, headers);
      expect(response.status).toBe(status);
    }
  });
});

describe("a large body", () => {
  const random = seeded(1);
  const largest = randomBuffer(BODY_BYTES_MAX, random);

  test("of exactly the limit is appended, its length declared or not", async () => {
    const url = freshStream("largest");
    await created(url, { type: BINARY_TYPE });
    await appended(url, largest, { type: BINARY_TYPE });
    const headers = { "content-type": BINARY_TYPE };
    const body = new Blob([largest]).stream();
    const chunked = await ask(url, { method: "POST", headers, body, duplex: "half" });
    expect(chunked.status).toBe(204);
    expectSameBytes(await readBytes(url), Buffer.concat([largest, largest]));
  });

  test("of exactly the limit creates a stream", async () => {
    const url = freshStream("largest");
    await created(url, { type: BINARY_TYPE, body: largest });
    expectSameBytes(await readBytes(url), largest);
  });

  test("of exactly the limit is appended as JSON", async () => {
    const url = freshStream("largest");
    await created(url, { type: JSON_TYPE });
    const messages = Array(80).fill(JSON.stringify("j".repeat(100_000)));
    const body = `[${messages.join(",")}]`.padEnd(BODY_BYTES_MAX, " ");
    await appended(url, body);
    const values = await readMessages(url);
    expect(values.length).toBe(messages.length);
    expect(values.every((value, at) => JSON.stringify(value) === messages[at])).toBe(true);
  });

  test("of 5 MB reads back byte for byte", async () => {
    const url = freshStream("five");
    await created(url, { type: BINARY_TYPE });
    const body = randomBuffer(5_000_000, random);
    await appended(url, body, { type: BINARY_TYPE });
    const pages = await readPages(url);
    expect(pages.length).toBeGreaterThan(1);
    expectSameBytes(Buffer.concat(pages.map((page) => page.bytes)), body);
  });

  test("of one JSON message of 3 MB reads back as it was, in one page", async () => {
    const url = freshStream("three");
    await created(url, { type: JSON_TYPE });
    // Keeps what a parser would change: digits, escapes, order and repetition of keys.
    const filler = `"\\u0041\\/é€😀${"m".repeat(3_000_000)}"`;
    const text = `{"b": 1.0, "a": 1e+2,"a":  -0, "big": 12345678901234567890, "text":${filler}}`;
    const offset = await appended(url, text);
    const response = await read(url, "-1");
    expect(nextOffset(response)).toBe(offset);
    expect(response.headers.get("stream-up-to-date")).toBe("true");
    expectSameBytes(Buffer.from(await response.arrayBuffer()), Buffer.from(`[${text}]`));
  });
});

describe("a stream of many pages", () => {
  test("of 20 MB of JSON pages through whole messages", async () => {
    const url = freshStream("pages");
    await created(url, { type: JSON_TYPE });
    const random = seeded(2);
    const texts = [];
    // Offset behind an append, and how many messages stand before it.
    const boundaries = [];
    for (let bytes = 0; bytes < 20 * MIB; ) {
      const batch = [];
      const count = 1 + Math.floor(random() * 40);
      for (let at = 0; at < count; at += 1) batch.push(message(texts.length + at, random));
      const body = `[${batch.join(",\n ")}]`;
      if (body.length > BODY_BYTES_MAX) continue;
      texts.push(...batch);
      bytes += body.length;
      boundaries.push([await appended(url, body), texts.length]);
    }
    expect(texts.filter((text) => text.length > MIB).length).toBeGreaterThan(3);

    const pages = await readPages(url);
    expect(pages.length).toBeGreaterThan(10);
    const values = pages.flatMap((page) => JSON.parse(page.bytes.toString()));
    expect(values.length).toBe(texts.length);
    const wrong = values.findIndex((value, at) => JSON.stringify(value) !== texts[at]);
    expect(wrong, "first message that differs").toBe(-1);
    for (const { from, next, bytes: page, response } of pages) {
      expect(page.length, `an empty page at ${from}`).toBeGreaterThan(2);
      expect(response.headers.get("etag")).toBeTruthy();
      expect(next > from || from === "-1").toBe(true);
    }
    for (const [offset, before] of boundaries) {
      const [first] = await (await read(url, offset)).json();
      expect(first?.n ?? texts.length).toBe(before);
    }
  });

  // Sizes from a few bytes to almost 2 MiB, most of them small.
  function message(n, random) {
    const size = Math.floor(10 ** (random() * 4));
    const isHuge = random() < 0.02;
    const length = isHuge ? MIB + Math.floor(random() * 900_000) : size;
    return JSON.stringify({ n, text: "t".repeat(length) });
  }

  test("of all byte values reads back from any offset", async () => {
    const url = freshStream("bytes");
    await created(url, { type: BINARY_TYPE });
    const random = seeded(3);
    const parts = [Buffer.from(Array.from({ length: 256 }, (_, value) => value))];
    for (let length = 256; length < 3.5 * MIB; ) {
      const part = randomBuffer(1 + Math.floor(random() * 300_000), random);
      parts.push(part);
      length += part.length;
    }
    const offsets = [];
    for (const part of parts) offsets.push(await appended(url, part, { type: BINARY_TYPE }));
    const whole = Buffer.concat(parts);
    const pages = await readPages(url);
    expect(pages.length).toBeGreaterThan(3);
    expect(new Set(whole).size).toBe(256);
    expectSameBytes(Buffer.concat(pages.map((page) => page.bytes)), whole);
    let end = 0;
    for (const [at, offset] of offsets.entries()) {
      end += parts[at].length;
      if (at % 5 === 0) expectSameBytes(await readBytes(url, offset), whole.subarray(end));
    }
    expect(await tail(url)).toBe(offsets.at(-1));
  });

  test("of text reads back though pages cut characters", async () => {
    const url = freshStream("text");
    await created(url, { type: "text/plain; charset=utf-8" });
    const text = "a€😀é".repeat(300_000);
    await appended(url, text, { type: "text/plain" });
    expectSameBytes(await readBytes(url), Buffer.from(text));
  });
});

describe("an empty or odd body", () => {
  test("creates an empty stream, whatever the framing", async () => {
    for (const body of [undefined, "", Buffer.alloc(0), new Blob([]).stream()]) {
      const url = freshStream("empty");
      const response = await ask(url, { method: "PUT", body, duplex: "half" });
      expect(response.status).toBe(201);
      expect((await readBytes(url)).length).toBe(0);
    }
  });

  test("with chunks of one byte is one append", async () => {
    const path = freshPath("chunks");
    await created(SERVER + path, { type: JSON_TYPE });
    const text = '{"one":"message","n":1}';
    const headers = { ...CHUNKED, "content-type": JSON_TYPE };
    const parts = [requestHead("POST", path, headers), ...[...text].map(chunk), "0\r\n\r\n"];
    const { status } = await exchange(SERVER, parts);
    expect(status).toBe(204);
    expect((await readBytes(SERVER + path)).toString()).toBe(`[${text}]`);
  });

  test("of a repeated PUT is ignored", async () => {
    const url = freshStream("again");
    const offset = await created(url, { type: "text/plain", body: "first" });
    const again = await create(url, { type: "text/plain", body: "second" });
    expect(again.status).toBe(200);
    expect(nextOffset(again)).toBe(offset);
    expect((await readBytes(url)).toString()).toBe("first");
  });
});
