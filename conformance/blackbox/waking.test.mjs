// A stream of 100,000 small appends wakes up quickly, and knows everything.
//
// Waking reads a bounded number of row headers, however long the stream is; that bound itself is
// tested natively. Here it is wall-clock time, on a host that was killed.
import { afterAll, beforeAll, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  created,
  expectError,
  freshPath,
  nextOffset,
  producer,
  read,
  readPages,
  remove,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { open } from "./raw_socket.mjs";

const APPENDS = 100_000;
const CONNECTIONS = 64;
const EACH = Math.ceil(APPENDS / CONNECTIONS);
// Generous for a busy machine: the work is a few milliseconds.
const WAKING_MS = 1500;

let host;
beforeAll(async () => {
  host = await Host.start();
});
afterAll(() => host.stop());

/**
 * Appends one after the other over one connection, as a producer of its own. Written by hand: the
 * time should be the server's.
 */
async function appendMany(path, connection) {
  const socket = await open(host.url);
  socket.setNoDelay(true);
  const begin =
    `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: ${JSON_TYPE}\r\n` +
    `producer-id: p${connection}\r\nproducer-epoch: 0\r\n`;
  await new Promise((done, fail) => {
    let n = 0;
    let answer = "";
    const send = () => {
      const body = `[${connection},${n}]`;
      const length = body.length + 2;
      socket.write(`${begin}producer-seq: ${n}\r\ncontent-length: ${length}\r\n\r\n[${body}]`);
    };
    socket.on("error", fail);
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
      if (!answer.endsWith("\r\n\r\n")) return;
      if (!answer.startsWith("HTTP/1.1 200")) fail(new Error(answer));
      answer = "";
      n += 1;
      if (n === EACH) done();
      else send();
    });
    send();
  });
  socket.destroy();
}

async function timed(request) {
  const began = performance.now();
  const response = await request();
  await response.arrayBuffer();
  return { response, ms: performance.now() - began };
}

test("100,000 appends", { timeout: 180_000 }, async () => {
  const path = freshPath("waking");
  const url = host.url + path;
  await created(url, { type: JSON_TYPE });
  const began = performance.now();
  await Promise.all(Array.from({ length: CONNECTIONS }, (_, n) => appendMany(path, n)));
  const seconds = (performance.now() - began) / 1000;
  console.log(`${Math.round((EACH * CONNECTIONS) / seconds)} appends/s`);
  const end = await tail(url);

  // The first request after a kill is in turn a read, a read of the tail, and an append.
  const firsts = [
    () => read(url, "-1"),
    () => read(url, end),
    () => append(url, "[[64,0]]", producer("late", 0, 0)),
  ];
  for (const first of firsts) {
    await host.restart();
    // Wakes the Worker itself and an empty stream, which are not meant.
    await read(host.url + freshPath("waking"), "-1");
    const { response, ms } = await timed(first);
    expect([200, 204]).toContain(response.status);
    expect(ms, "first answer").toBeLessThan(WAKING_MS);
    const second = await timed(() => read(url, end));
    expect(second.ms, "second answer").toBeLessThan(WAKING_MS);
    console.log(`first answer ${ms.toFixed()} ms, second ${second.ms.toFixed()} ms`);
  }

  // It knows every producer.
  await host.restart();
  for (let n = 0; n < CONNECTIONS; n += 1) {
    const again = await append(url, "0", producer(`p${n}`, 0, EACH - 1));
    expect(again.status).toBe(204);
    expect(again.headers.get("producer-seq")).toBe(String(EACH - 1));
  }
  const gap = await append(url, "0", producer("p7", 0, EACH + 1));
  expect(gap.headers.get("producer-expected-seq")).toBe(String(EACH));
  await expectError(gap, 409, "PRODUCER_GAP");
  expect(nextOffset(await append(url, "0", producer("p0", 0, 5)))).toBe(await tail(url));

  // And every message, in each producer's order.
  const next = Array(CONNECTIONS + 1).fill(0);
  for (const { bytes } of await readPages(url)) {
    for (const [connection, n] of JSON.parse(bytes.toString())) {
      expect(n === next[connection], `${connection}: ${n} after ${next[connection]}`).toBe(true);
      next[connection] += 1;
    }
  }
  expect(next).toEqual([...Array(CONNECTIONS).fill(EACH), 1]);

  // Deleting it takes no longer than deleting any, and the path is free at once.
  const deleted = await timed(() => remove(url));
  expect(deleted.response.status).toBe(204);
  expect(deleted.ms, "deletion").toBeLessThan(WAKING_MS);
  await created(url, { type: JSON_TYPE, body: '["new"]' });
  expect(await (await read(url, "-1")).json()).toEqual(["new"]);
  await expectError(await read(url, end), 400, "STALE_OFFSET");
});
