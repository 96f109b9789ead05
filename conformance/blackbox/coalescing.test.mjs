// Readers of one position share one trip to the stream's object.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { appended, ask, close, created, freshStream, read, remove, sleep } from "./client.mjs";
import { Host } from "./host.mjs";
import { open, readAnswer, requestHead } from "./raw_socket.mjs";
import { Poller } from "./readers.mjs";

const TEXT = "text/plain";
const READERS = 1000;
const BATCHES = 10;
// A batch, and the trips that begin anew because a wait's time is over.
const TRIPS_PER_BATCH_MAX = 20;

let host;
let impatient;
beforeAll(async () => {
  [host, impatient] = await Promise.all([
    Host.start({ EDGE_CACHE_SECONDS: "0" }),
    Host.start({ LONG_POLL_TIMEOUT_MS: "1500" }),
  ]);
});
afterAll(() => Promise.all([host.stop(), impatient.stop()]));

async function stream(server = host) {
  const url = freshStream("coalescing", server.url);
  return { url, start: await created(url, { type: TEXT }) };
}

/** Waits at an offset over a raw socket of its own. */
async function waiter(url, offset, query = "") {
  const socket = await open(url);
  socket.on("error", () => {});
  const target = `${new URL(url).pathname}?offset=${offset}&live=long-poll${query}`;
  socket.write(requestHead("GET", target));
  return { socket, answer: () => readAnswer(socket, 30_000).finally(() => socket.destroy()) };
}

const count = (sources) =>
  sources.reduce((counts, word) => ({ ...counts, [word]: (counts[word] ?? 0) + 1 }), {});

async function followers(url, offset, number = 100) {
  const waiting = await Promise.all(Array.from({ length: number }, () => waiter(url, offset)));
  await sleep(500);
  return waiting.map(({ answer }) => answer());
}

describe("a hundred readers get the data when the one who began the trip", () => {
  for (const ending of ["closes", "resets"]) {
    test(`${ending} its connection`, async () => {
      const { url, start } = await stream();
      const { socket } = await waiter(url, start);
      await sleep(300);
      const answers = await followers(url, start);
      if (ending === "closes") socket.destroy();
      else socket.resetAndDestroy();
      await sleep(1000);
      const next = await appended(url, "data", { type: TEXT });
      const appendedAt = performance.now();
      for (const { status, headers, body } of await Promise.all(answers)) {
        expect([status, String(body), headers.get("stream-next-offset")]).toEqual([200, "data", next]);
        expect(headers.get("stream-cache")).toBe("coalesced");
      }
      expect(performance.now() - appendedAt).toBeLessThan(2000);
    });
  }

  test("runs out of time before them", async () => {
    const { url, start } = await stream(impatient);
    const first = await waiter(url, start);
    await sleep(1000);
    const answers = await followers(url, start);
    expect((await first.answer()).status).toBe(204);
    await appended(url, "data", { type: TEXT });
    for (const { status, body } of await Promise.all(answers)) {
      expect([status, String(body)]).toEqual([200, "data"]);
    }
  });

  test("loses the stream: they are told", async () => {
    const { url, start } = await stream();
    const answers = await followers(url, start);
    await remove(url);
    for (const { status } of await Promise.all(answers)) expect(status).toBe(404);
  });

  test("loses the object", async () => {
    const lost = await Host.start();
    const { url, start } = await stream(lost);
    // All connections are gone with the host; after it, all begin again.
    const ended = Promise.allSettled(await followers(url, start));
    await lost.restart();
    await ended;
    const again = await followers(url, start);
    await appended(url, "data", { type: TEXT });
    for (const { status } of await Promise.all(again)) expect(status).toBe(200);
    await lost.stop();
  });
});

test("all hear of the close, and a later one gets the end", async () => {
  const { url, start } = await stream();
  const answers = await followers(url, start);
  await close(url);
  for (const { status, headers } of await Promise.all(answers)) {
    expect([status, headers.get("stream-closed")]).toEqual([204, "true"]);
  }
  const end = await read(url, start, { live: "long-poll" });
  expect([end.status, end.headers.get("stream-closed")]).toEqual([204, "true"]);
});

test("nobody is given the cursor that it sent", async () => {
  const { url, start } = await stream();
  const now = Math.floor((Date.now() - Date.UTC(2024, 9, 9)) / 20_000);
  const sent = [now - 5, now, now + 1, now + 2].flatMap((cursor) => Array(10).fill(cursor));
  const waiting = await Promise.all(sent.map((cursor) => waiter(url, start, `&cursor=${cursor}`)));
  await sleep(300);
  const answers = waiting.map(({ answer }) => answer());
  await appended(url, "data", { type: TEXT });
  const given = (await Promise.all(answers)).map(({ headers }) => Number(headers.get("stream-cursor")));
  given.forEach((cursor, at) => {
    expect(cursor).not.toBe(sent[at]);
    expect(cursor).toBeGreaterThanOrEqual(Math.max(now, sent[at]));
  });
});

test("a reader answers on time, whoever leads", async () => {
  const { url, start } = await stream(impatient);
  const begins = Array.from({ length: 12 }, async (_, n) => {
    await sleep(n * 250);
    const began = performance.now();
    const { status, headers } = await (await waiter(url, start)).answer();
    expect([status, headers.get("stream-next-offset")]).toEqual([204, start]);
    expect(headers.get("stream-up-to-date")).toBe("true");
    const took = performance.now() - began;
    expect(took).toBeGreaterThan(1400);
    expect(took).toBeLessThan(2500);
  });
  await Promise.all(begins);
});

test("a wait in vain is 204 for all who began together", async () => {
  const { url, start } = await stream(impatient);
  for (let round = 0; round < 5; round += 1) {
    const waits = Array.from({ length: 50 }, () => read(url, start, { live: "long-poll" }));
    const statuses = (await Promise.all(waits)).map(({ status }) => status);
    expect(count(statuses)).toEqual({ 204: 50 });
  }
});

/** Requests that the stream's object has been sent since it woke. */
async function requestsAt(url) {
  return (await (await ask(`${url}?stats`)).json()).requests;
}

test(`${READERS} readers, ${BATCHES} batches, a few trips each`, async () => {
  const { url, start } = await stream();
  const before = await requestsAt(url);
  const pollers = Array.from({ length: READERS }, () => new Poller(url, start));
  const running = pollers.map((poller) => poller.run());
  let expected = "";
  for (let batch = 0; batch < BATCHES; batch += 1) {
    await sleep(1500);
    expected += `[batch ${batch}]`;
    await appended(url, `[batch ${batch}]`, { type: TEXT });
  }
  await sleep(1500);
  await close(url);
  await Promise.all(running);
  for (const poller of pollers) expect(poller.text).toBe(expected);
  const sources = count(pollers.flatMap((poller) => poller.sources));
  const requests = (await requestsAt(url)) - before;
  console.log("answers with data:", sources, "requests at the object:", requests);
  // Of each batch: the append, and the trips of those who wait for the next one. Then the close.
  expect(requests).toBeLessThanOrEqual(TRIPS_PER_BATCH_MAX * BATCHES);
  expect(sources.miss).toBeLessThanOrEqual(TRIPS_PER_BATCH_MAX * BATCHES);
  expect(sources.miss + sources.coalesced).toBe(READERS * BATCHES);
}, 120_000);
