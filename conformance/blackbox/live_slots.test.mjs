// Places of live readers: whoever has left, in whatever way, takes none.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  appended,
  created,
  eventually,
  expectError,
  freshStream,
  read,
  sleep,
} from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { open, requestHead } from "./raw_socket.mjs";
import { SocketReader } from "./ws_client.mjs";
import { RawWebSocket, closeFrame, frame } from "./ws_raw.mjs";

const PLACES = 3;
const LONG_POLL_TIMEOUT_MS = 1500;
// The object lets the edge end a wait by itself before it takes the place back.
const OVERDUE_MS = 5000;
// Silent SSE responses get a comment every five seconds; the first one that meets a broken
// connection is lost in it.
const COMMENTS_MS = 12_000;

let host;
let waiters;
beforeAll(async () => {
  const readers = { READERS_MAX: String(PLACES), LONG_POLL_TIMEOUT_MS: "30000" };
  const waits = {
    WAITERS_MAX: String(PLACES),
    LONG_POLL_TIMEOUT_MS: String(LONG_POLL_TIMEOUT_MS),
  };
  [host, waiters] = await Promise.all([Host.start(readers), Host.start(waits)]);
});
afterAll(() => Promise.all([host.stop(), waiters.stop()]));

async function stream(server = host) {
  const url = freshStream("live-slots", server.url);
  return { url, start: await created(url, { type: JSON_TYPE, body: "[0]" }) };
}

/** Whether one more reader is refused. */
async function isFull(url) {
  const response = await read(url, "now", { live: "sse" });
  await response.body.cancel();
  return response.status === 429;
}

const TAKERS = { socket: SocketReader, sse: EventReader };

/**
 * Takes every place, which must be free within a time, and nothing beyond. `between` is done before
 * each attempt.
 */
async function expectAllPlacesFree(url, timeoutMs, options = {}) {
  const { by = "socket", between = async () => {} } = options;
  const taken = [];
  const take = async () => {
    await between();
    const reader = await TAKERS[by].open(url, "now").catch(() => undefined);
    if (reader !== undefined) taken.push(reader);
    return taken.length;
  };
  await eventually(take, (count) => count === PLACES, timeoutMs);
  expect(await isFull(url)).toBe(true);
  for (const reader of taken) await reader.close();
}

/** An SSE or long-poll request over a connection of its own, which can be broken off. */
async function rawRead(server, url, live) {
  const socket = await open(server.url);
  socket.on("error", () => {});
  let isAnswered = false;
  socket.on("data", () => (isAnswered = true));
  const target = `${new URL(url).pathname}?offset=now&live=${live}`;
  socket.write(requestHead("GET", target));
  if (live === "sse") await eventually(async () => isAnswered, (is) => is);
  // A wait has no sign of having begun; its socket is opened within a few milliseconds.
  else await sleep(100);
  return socket;
}

const breakOff = (socket, ending) =>
  ending === "rst" ? socket.resetAndDestroy() : socket.destroy();

describe("sockets that", () => {
  const departures = {
    "are closed": (raw) => raw.write(closeFrame(1000)),
    "end their connection": (raw) => raw.destroy("fin"),
    "reset their connection": (raw) => raw.destroy("rst"),
    "sent nonsense": (raw) => raw.write(frame("text", "nonsense")),
    "sent bytes": (raw) => raw.write(frame("binary", "nonsense")),
    "close and leave": (raw) => {
      raw.write(closeFrame(1000));
      raw.destroy("rst");
    },
  };

  test.each(Object.entries(departures))("%s free their places at once", async (_, leave) => {
    const { url } = await stream();
    for (let round = 0; round < 3; round += 1) {
      const sockets = [];
      for (let n = 0; n < PLACES; n += 1) sockets.push(await RawWebSocket.open(url));
      expect(await isFull(url)).toBe(true);
      for (const raw of sockets) leave(raw);
      await expectAllPlacesFree(url, 5000);
      for (const raw of sockets) raw.destroy();
    }
  });

  test("break in the middle of a frame free their places", async () => {
    const { url } = await stream();
    const half = frame("text", "x".repeat(1000)).subarray(0, 500);
    for (let n = 0; n < PLACES; n += 1) {
      const raw = await RawWebSocket.open(url);
      raw.write(half);
      raw.destroy("rst");
    }
    await expectAllPlacesFree(url, 5000);
  });

  test("leave during the handshake free their places", async () => {
    const { url } = await stream();
    for (let n = 0; n < 4 * PLACES; n += 1) {
      const opening = RawWebSocket.open(url).catch(() => undefined);
      await sleep(n);
      (await opening)?.destroy("rst");
    }
    await expectAllPlacesFree(url, 5000);
  });
});

describe.each(["fin", "rst"])("SSE readers that end (%s) free their places", (ending) => {
  test("at the latest at the next write", async () => {
    const { url } = await stream();
    const sockets = [];
    for (let n = 0; n < PLACES; n += 1) sockets.push(await rawRead(host, url, "sse"));
    expect(await isFull(url)).toBe(true);
    for (const socket of sockets) breakOff(socket, ending);
    await expectAllPlacesFree(url, 5000, { by: "sse", between: () => append(url, "1") });
  });

  test("at the latest with a comment, when nobody writes", { timeout: 30_000 }, async () => {
    const { url } = await stream();
    const sockets = [];
    for (let n = 0; n < PLACES; n += 1) sockets.push(await rawRead(host, url, "sse"));
    expect(await isFull(url)).toBe(true);
    for (const socket of sockets) breakOff(socket, ending);
    await expectAllPlacesFree(url, COMMENTS_MS, { by: "sse" });
  });
});

describe.each(["fin", "rst"])("long-polls that end (%s) free their places", (ending) => {
  test("at the latest at the next write", async () => {
    const { url } = await stream();
    const sockets = [];
    for (let n = 0; n < PLACES; n += 1) sockets.push(await rawRead(host, url, "long-poll"));
    expect(await isFull(url)).toBe(true);
    for (const socket of sockets) breakOff(socket, ending);
    await appended(url, "1");
    await expectAllPlacesFree(url, 5000, { by: "sse" });
  });

  test("of waiters at the latest at their timeout", async () => {
    const { url } = await stream(waiters);
    for (let n = 0; n < PLACES; n += 1) breakOff(await rawRead(waiters, url, "long-poll"), ending);
    // All places, by those who wait for the time to pass; at an offset they would share one.
    const wait = () => read(url, "now", { live: "long-poll" });
    const attempt = async () => {
      const responses = await Promise.all(Array.from({ length: PLACES }, wait));
      return responses.map(({ status }) => status);
    };
    const isServed = (statuses) => statuses.every((status) => status === 204);
    await eventually(attempt, isServed, LONG_POLL_TIMEOUT_MS + OVERDUE_MS);
    const waiting = Array.from({ length: PLACES }, wait);
    await sleep(200);
    await expectError(await wait(), 429, "TOO_MANY_READERS");
    await Promise.all(waiting);
  });

  test("of waiters at the latest at the next write", async () => {
    const { url } = await stream(waiters);
    for (let n = 0; n < PLACES; n += 1) breakOff(await rawRead(waiters, url, "long-poll"), ending);
    const end = await appended(url, "1");
    const waiting = Array.from({ length: PLACES }, () => read(url, end, { live: "long-poll" }));
    await sleep(200);
    await appended(url, "2");
    for (const response of await Promise.all(waiting)) expect(await response.json()).toEqual([2]);
  });
});

test("places of all modes are the same places", async () => {
  const { url } = await stream();
  const socket = await SocketReader.open(url, "now");
  const reader = await EventReader.open(url, "now");
  await reader.untilUpToDate();
  const wait = await rawRead(host, url, "long-poll");
  expect(await isFull(url)).toBe(true);
  wait.destroy();
  reader.close();
  await socket.close();
  await expectAllPlacesFree(url, COMMENTS_MS, { between: () => append(url, "1") });
});
