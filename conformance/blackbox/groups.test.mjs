// Appends that arrive together share a commit; each is still judged and answered on its own.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  MIB,
  SERVER,
  append,
  appended,
  close,
  created,
  expectError,
  freshPath,
  freshStream,
  head,
  moved,
  nextOffset,
  positionOf,
  producer,
  readBytes,
  readMessages,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { open, readAnswer, requestHead } from "./raw_socket.mjs";

const TEXT = "text/plain";

/** Starts all requests at once, in an order that is not theirs. */
function together(requests, random) {
  const answer = async (request) => ({ ...request, response: await request.ask() });
  return Promise.all([...requests].sort(() => random() - 0.5).map(answer));
}

describe("appends of many clients at once", () => {
  test("are each stored whole, at the place that the answer names", async () => {
    const url = freshStream("groups");
    await created(url, { type: TEXT });
    const random = seeded(21);
    // Some share rows with others, some fill rows of their own; all fit the object's memory.
    const requests = Array.from({ length: 200 }, (_, n) => {
      const body = `<${n}:${"x".repeat(Math.floor(random() ** 8 * MIB))}>`;
      return { body, ask: () => append(url, body, { type: TEXT }) };
    });
    const answers = await together(requests, random);
    const whole = await readBytes(url);
    let total = 0;
    for (const { body, response } of answers) {
      expect(response.status).toBe(204);
      const end = positionOf(nextOffset(response));
      expect(whole.subarray(end - body.length, end).toString() === body, `at ${end}`).toBe(true);
      total += body.length;
    }
    expect(whole.length).toBe(total);
    expect(new Set(answers.map(({ response }) => nextOffset(response))).size).toBe(200);
  });

  test("that are more than memory holds are each stored whole or refused", async () => {
    const url = freshStream("groups");
    await created(url, { type: BINARY_TYPE });
    const requests = Array.from({ length: 16 }, (_, n) => ({
      n,
      ask: () => append(url, Buffer.alloc(6 * MIB, n + 1), { type: BINARY_TYPE }),
    }));
    const answers = await together(requests, seeded(20));
    const whole = await readBytes(url);
    let stored = 0;
    for (const { n, response } of answers) {
      if (response.status === 503) {
        expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
        await expectError(response, 503, "UNAVAILABLE");
        expect(whole.includes(n + 1)).toBe(false);
        continue;
      }
      expect(response.status).toBe(204);
      stored += 1;
      const end = positionOf(nextOffset(response));
      expect(whole.subarray(end - 6 * MIB, end).every((byte) => byte === n + 1)).toBe(true);
    }
    expect(whole.length).toBe(stored * 6 * MIB);
    expect(stored).toBeGreaterThanOrEqual(4);
    // What was refused is welcome once there is room again.
    for (const { response, ask } of answers) {
      if (response.status === 503) expect((await ask()).status).toBe(204);
    }
  });

  test("do not suffer from bad ones among them", async () => {
    const url = freshStream("groups");
    await created(url, { type: JSON_TYPE });
    const random = seeded(22);
    const kinds = {
      good: [204, (n) => append(url, JSON.stringify({ n }))],
      batch: [204, (n) => append(url, JSON.stringify([{ n }, { n, second: true }]))],
      brokenJson: [400, (n) => append(url, `{"n":${n}`)],
      half: [400, (n) => append(url, `[{"n":${n}},`)],
      empty: [400, () => append(url, undefined)],
      emptyArray: [400, () => append(url, "[]")],
      otherType: [409, (n) => append(url, String(n), { type: TEXT })],
      gap: [409, (n) => append(url, String(n), producer(`gap${n}`, 0, 3))],
      producer: [200, (n) => append(url, JSON.stringify({ n }), producer(`p${n}`, 0, 0))],
      headers: [400, (n) => append(url, String(n), { "producer-id": "x" })],
    };
    const names = Object.keys(kinds);
    const requests = Array.from({ length: 400 }, (_, n) => {
      const [status, ask] = kinds[names[n % names.length]];
      return { n, status, name: names[n % names.length], ask: () => ask(n) };
    });
    const answers = await together(requests, random);
    const expected = new Set();
    for (const { n, status, name, response } of answers) {
      expect(response.status, name).toBe(status);
      if (status < 300) expected.add(n);
    }
    const messages = await readMessages(url);
    expect(new Set(messages.map(({ n }) => n))).toEqual(expected);
    expect(messages).toHaveLength(expected.size + expected.size / 3);
    // The messages of a batch stand together.
    for (const [at, message] of messages.entries()) {
      if (message.second) expect(messages[at - 1]).toEqual({ n: message.n });
    }
  });

  test("keep the order of Stream-Seq", async () => {
    const url = freshStream("groups");
    await created(url, { type: JSON_TYPE });
    const seqs = Array.from({ length: 100 }, (_, n) => String(n).padStart(3, "0"));
    const requests = seqs.map((seq) => ({
      seq,
      ask: () => append(url, JSON.stringify(seq), { "stream-seq": seq }),
    }));
    const answers = await together(requests, seeded(23));
    const accepted = answers.filter(({ response }) => response.status === 204);
    const refused = answers.filter(({ response }) => response.status === 409);
    expect(accepted.length + refused.length).toBe(100);
    accepted.sort((a, b) => (nextOffset(a.response) < nextOffset(b.response) ? -1 : 1));
    const order = accepted.map(({ seq }) => seq);
    expect(order).toEqual([...order].sort());
    expect(await readMessages(url)).toEqual(order);
    expect(order.at(-1)).toBe("099");
  });

  test("end with the one that closes", async () => {
    for (let round = 0; round < 5; round += 1) {
      const url = freshStream("groups");
      await created(url, { type: TEXT });
      const requests = Array.from({ length: 60 }, (_, n) => {
        const closes = n === 30;
        const headers = closes ? { "stream-closed": "true" } : {};
        const body = `<${n}>`;
        return { body, closes, ask: () => append(url, body, { type: TEXT, ...headers }) };
      });
      const answers = await together(requests, seeded(24 + round));
      const closing = answers.find(({ closes }) => closes);
      expect(closing.response.status).toBe(204);
      const end = nextOffset(closing.response);
      const whole = (await readBytes(url)).toString();
      expect(await tail(url)).toBe(end);
      expect(whole.endsWith(closing.body)).toBe(true);
      for (const { body, closes, response } of answers) {
        if (closes) continue;
        expect(whole.includes(body)).toBe(response.status === 204);
        if (response.status === 204) {
          expect(nextOffset(response) < end).toBe(true);
          expect(response.headers.get("stream-closed")).toBeNull();
        } else {
          expect(nextOffset(response)).toBe(end);
          expect(response.headers.get("stream-closed")).toBe("true");
          await expectError(response, 409, "STREAM_CLOSED");
        }
      }
    }
  });

  test("that all close: one does", async () => {
    const url = freshStream("groups");
    await created(url, { type: TEXT });
    const requests = Array.from({ length: 30 }, (_, n) => ({
      body: `<${n}>`,
      ask: () => append(url, `<${n}>`, { type: TEXT, "stream-closed": "true" }),
    }));
    const answers = await together(requests, seeded(30));
    const winners = answers.filter(({ response }) => response.status === 204);
    expect(winners).toHaveLength(1);
    expect((await readBytes(url)).toString()).toBe(winners[0].body);
    const closes = await Promise.all(Array.from({ length: 10 }, () => close(url)));
    expect(closes.map((response) => response.status)).toEqual(Array(10).fill(204));
  });
});

describe("large appends", () => {
  test("close with their last byte", async () => {
    const body = Buffer.alloc(3 * MIB, "c");
    const whole = freshStream("groups");
    await created(whole, { type: BINARY_TYPE, body, "stream-closed": "true" });
    const later = freshStream("groups");
    await created(later, { type: BINARY_TYPE });
    await appended(later, body, { type: BINARY_TYPE, "stream-closed": "true" });
    for (const url of [whole, later]) {
      expect((await readBytes(url)).length).toBe(3 * MIB);
      const metadata = await head(url);
      expect(metadata.headers.get("stream-closed")).toBe("true");
      expect(positionOf(nextOffset(metadata))).toBe(3 * MIB);
    }
  });

  test("of exactly a row, one byte less and one more", async () => {
    const url = freshStream("groups");
    await created(url, { type: BINARY_TYPE });
    const lengths = [MIB, MIB - 1, MIB + 1, 2 * MIB, 2 * MIB + 1, 1, 65536, 65537, 65535];
    const ends = [];
    for (const length of lengths) {
      const body = Buffer.alloc(length, String(ends.length));
      ends.push(await appended(url, body, { type: BINARY_TYPE }));
    }
    const whole = await readBytes(url);
    let at = 0;
    for (const [n, length] of lengths.entries()) {
      at += length;
      expect(positionOf(ends[n])).toBe(at);
      expect(whole[at - 1]).toBe("0".charCodeAt(0) + n);
      expect(whole[at - length]).toBe("0".charCodeAt(0) + n);
      expect((await readBytes(url, moved(ends[n], -1))).length).toBe(whole.length - at + 1);
    }
  });
});

describe("a slow upload", () => {
  test("makes nobody wait, and lands when it is complete", async () => {
    const path = freshPath("groups");
    const url = SERVER + path;
    await created(url, { type: TEXT });
    const slow = await open(SERVER);
    const answer = readAnswer(slow);
    const length = { "content-length": "20", "content-type": TEXT, connection: "close" };
    slow.write(requestHead("POST", path, length));
    for (let n = 0; n < 20; n += 1) {
      slow.write("s");
      const began = performance.now();
      await Promise.all([appended(url, "a", { type: TEXT }), appended(url, "b", { type: TEXT })]);
      expect(performance.now() - began).toBeLessThan(1500);
      await sleep(20);
    }
    const { status, headers } = await answer;
    expect(status).toBe(204);
    expect(positionOf(headers.get("stream-next-offset"))).toBeGreaterThanOrEqual(20 + 38);
    const text = (await readBytes(url)).toString();
    expect(text).toContain("s".repeat(20));
    expect(text.length).toBe(60);
  });

  test("that has not begun holds up nobody, however many there are", async () => {
    const path = freshPath("groups");
    const url = SERVER + path;
    await created(url, { type: TEXT });
    const framings = [{ "content-length": "8388608" }, { "transfer-encoding": "chunked" }];
    const sockets = [];
    for (let n = 0; n < 10; n += 1) {
      const socket = await open(SERVER);
      socket.on("error", () => {});
      socket.write(requestHead("POST", path, { ...framings[n % 2], "content-type": TEXT }));
      sockets.push(socket);
    }
    await sleep(200);
    for (let n = 0; n < 5; n += 1) await appended(url, "x", { type: TEXT });
    await appended(url, "y".repeat(2 * MIB), { type: TEXT });
    for (const socket of sockets) socket.destroy();
    expect((await readBytes(url)).length).toBe(2 * MIB + 5);
  });

  test("in chunks of one of many clients at once is like any other", async () => {
    const path = freshPath("groups");
    const url = SERVER + path;
    await created(url, { type: TEXT });
    const upload = async (n) => {
      const socket = await open(SERVER);
      const answer = readAnswer(socket);
      const headers = { "transfer-encoding": "chunked", "content-type": TEXT };
      socket.write(requestHead("POST", path, headers));
      for (const text of [`<${n}`, ".", ">"]) {
        await sleep(30);
        socket.write(`${text.length.toString(16)}\r\n${text}\r\n`);
      }
      socket.write("0\r\n\r\n");
      const { status } = await answer;
      socket.destroy();
      return status;
    };
    const statuses = await Promise.all(Array.from({ length: 30 }, (_, n) => upload(n)));
    expect(statuses).toEqual(Array(30).fill(204));
    const tokens = (await readBytes(url)).toString().split(/(?<=>)/);
    expect(new Set(tokens)).toEqual(new Set(statuses.map((_, n) => `<${n}.>`)));
  });

  test("that never ends holds up neither close nor delete", async () => {
    const path = freshPath("groups");
    const url = SERVER + path;
    await created(url, { type: TEXT });
    const slow = await open(SERVER);
    slow.on("error", () => {});
    slow.write(requestHead("POST", path, { "content-length": "20", "content-type": TEXT }));
    slow.write("half");
    await sleep(100);
    await appended(url, "x", { type: TEXT });
    expect((await close(url)).status).toBe(204);
    expect((await readBytes(url)).toString()).toBe("x");
    slow.destroy();
    await sleep(100);
    expect((await readBytes(url)).toString()).toBe("x");
  });
});

describe("a connection that is kept", () => {
  test("stays in step after refusals with bodies", async () => {
    const path = freshPath("groups");
    await created(SERVER + path, { type: TEXT });
    const body = "x".repeat(20_000);
    const post = (target, headers = {}) =>
      Buffer.concat([
        requestHead("POST", target, { "content-length": body.length, ...headers }),
        Buffer.from(body),
      ]);
    const requests = [
      [post(freshPath("nowhere"), { "content-type": TEXT }), 404],
      [post(path, { "content-type": TEXT }), 204],
      [post("/v1/p/stream/a//b", { "content-type": TEXT }), 400],
      [post(path), 400],
      [post("/v1/p/stream/session/x"), 403],
      [post(path, { "content-type": TEXT, "producer-id": "p" }), 400],
      [requestHead("GET", "/health"), 200],
      [post(path, { "content-type": JSON_TYPE }), 409],
      [post(path, { "content-type": TEXT }), 204],
    ];
    const socket = await open(SERVER);
    for (const [request, expected] of requests) {
      const answer = readAnswer(socket);
      socket.write(request);
      expect((await answer).status).toBe(expected);
      socket.removeAllListeners("data");
      socket.removeAllListeners("close");
    }
    socket.destroy();
    expect((await readBytes(SERVER + path)).length).toBe(40_000);
  });
});

describe("a quota", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start({ STREAM_BYTES_MAX: "10000" });
  });
  afterAll(() => host.stop());

  test("is never exceeded, and refuses only what does not fit", async () => {
    const url = freshStream("groups", host.url);
    await created(url, { type: BINARY_TYPE });
    const requests = Array.from({ length: 40 }, (_, n) => ({
      ask: () => append(url, Buffer.alloc(300 + n, "q"), { type: BINARY_TYPE }),
    }));
    const answers = await together(requests, seeded(31));
    const statuses = answers.map(({ response }) => response.status);
    expect(new Set(statuses)).toEqual(new Set([204, 507]));
    const length = (await readBytes(url)).length;
    expect(length).toBeLessThanOrEqual(10_000);
    expect(length).toBeGreaterThan(10_000 - 340);
    // What fits still does, to the last byte, and a close always does.
    await appended(url, Buffer.alloc(10_000 - length, "r"), { type: BINARY_TYPE });
    await expectError(await append(url, "x", { type: BINARY_TYPE }), 507, "STREAM_FULL");
    expect((await close(url)).status).toBe(204);
  });

  test("also holds for PUT and for forks", async () => {
    const tooLarge = freshStream("groups", host.url);
    const response = await fetch(tooLarge, { method: "PUT", body: Buffer.alloc(10_001) });
    expect(response.status).toBe(507);
    expect((await head(tooLarge)).status).toBe(404);
    const url = freshStream("groups", host.url);
    await created(url, { type: BINARY_TYPE, body: Buffer.alloc(9_000) });
    const copy = freshStream("groups", host.url);
    const from = { "stream-forked-from": new URL(url).pathname, "content-type": BINARY_TYPE };
    const forked = await fetch(copy, { method: "PUT", headers: from, body: Buffer.alloc(2_000) });
    expect(forked.status).toBe(507);
    expect((await head(copy)).status).toBe(404);
    await created(copy, { "stream-forked-from": new URL(url).pathname });
    const full = await append(copy, Buffer.alloc(1_001), { type: BINARY_TYPE });
    await expectError(full, 507, "STREAM_FULL");
    await appended(copy, Buffer.alloc(1_000), { type: BINARY_TYPE });
  });
});
