// Objects sleep between writes while their readers stay connected, in all three modes.
//
// The platform evicts an object from memory after about ten seconds without work. That it did is
// seen from outside: the runtime has closed the object's database.
import { afterAll, beforeAll, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  close,
  created,
  expectError,
  freshStream,
  read,
  readMessages,
  remove,
  sleep,
  tail,
} from "./client.mjs";
import { EventReader } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { asleep, objectsInMemory } from "./machine.mjs";
import { SocketReader, expectOrderlySocket } from "./ws_client.mjs";

// The time after which the platform evicts an object, and some to spare.
const EVICTION_MS = 30_000;

let host;
const streams = {};

async function stream(name, body = "[0]", type = JSON_TYPE) {
  const url = freshStream("sleeping", host.url);
  const start = await created(url, { type, body });
  streams[name] = { url, start };
  return streams[name];
}

const longPolls = (url, start, count) =>
  Array.from({ length: count }, () => read(url, start, { live: "long-poll" }));

async function sockets(url, count, options) {
  const opened = [];
  for (let n = 0; n < count; n += 1) opened.push(await SocketReader.open(url, "-1", options));
  for (const reader of opened) await reader.until(({ frames }) => frames.length > 0, "a frame");
  return opened;
}

async function events(url, count) {
  const opened = [];
  for (let n = 0; n < count; n += 1) opened.push(await EventReader.open(url, "-1"));
  for (const reader of opened) await reader.untilUpToDate();
  return opened;
}

/** All that is to sleep, attached; then the time in which it falls asleep. */
async function prepare() {
  for (const [name, type, body] of [
    ["json", JSON_TYPE, "[0]"],
    ["binary", BINARY_TYPE, "0"],
  ]) {
    const { url, start } = await stream(name, body, type);
    Object.assign(streams[name], {
      type,
      sockets: await sockets(url, 3),
      strict: await sockets(url, 1, { credit: 2 }),
      events: await events(url, 3),
      waiting: longPolls(url, start, 3),
    });
  }
  for (const name of ["granting", "appending", "deleted", "closed", "leaving", "pending"]) {
    const { url, start } = await stream(name);
    const credit = name === "granting" || name === "pending" ? 0 : undefined;
    streams[name].sockets = await sockets(url, 2, { credit });
    if (name === "deleted" || name === "closed") {
      streams[name].events = await events(url, 1);
      streams[name].waiting = longPolls(url, start, 1);
    }
  }
  for (const { sockets: opened } of Object.values(streams)) {
    for (const reader of opened) {
      await reader.until(({ dataFrames, upToDate }) => upToDate || dataFrames.length === 0, "rest");
    }
  }
}

beforeAll(async () => {
  host = await Host.start({ LONG_POLL_TIMEOUT_MS: "90000", SSE_LIFETIME_MS: "300000" });
  await prepare();
  // They were in memory, or what follows would prove nothing.
  expect(objectsInMemory(host)).toHaveLength(Object.keys(streams).length);
  await asleep(host, EVICTION_MS);
}, 60_000);
afterAll(() => host.stop());

test.each(["json", "binary"])("readers of all modes get the next writes (%s)", async (name) => {
  const { url, type, sockets: paced, strict, events: sse, waiting } = streams[name];
  const isJson = type === JSON_TYPE;
  const first = await appended(url, "1", { type });
  for (const reader of [...paced, ...strict, ...sse]) {
    await reader.until(({ offset }) => offset === first, "the first write");
  }
  for (const response of await Promise.all(waiting)) {
    expect(response.status).toBe(200);
    expect(await response.text()).toBe(isJson ? "[1]" : "1");
  }
  const second = await appended(url, "2", { type });
  for (const reader of [...paced, ...sse]) {
    await reader.until(({ offset }) => offset === second, "the second write");
    if (isJson) expect(reader.messages).toEqual([0, 1, 2]);
    else expect(reader.text).toBe("012");
  }
  // Two frames were granted before it fell asleep, and no more were sent since.
  await sleep(300);
  expect(strict[0].dataFrames).toHaveLength(2);
  strict[0].grant(1);
  await strict[0].untilAt(second);
  for (const reader of [...paced, ...strict]) {
    expectOrderlySocket(reader);
    await reader.close();
  }
  for (const reader of sse) reader.close();
});

test("a grant wakes the object and gets what was there", async () => {
  const { url, start, sockets: [first, second] } = streams.granting;
  expect(first.dataFrames).toEqual([]);
  first.grant(1);
  await first.untilAt(start);
  expect(first.messages).toEqual([0]);
  expect(second.dataFrames).toEqual([]);
  const end = await appended(url, "1");
  second.grant(5);
  await second.untilAt(end);
  expect(second.messages).toEqual([0, 1]);
  await sleep(200);
  expect(first.messages).toEqual([0]);
  for (const reader of [first, second]) await reader.close();
});

test("an append of a socket wakes the object and is stored once", async () => {
  const { url, sockets: [first, second] } = streams.appending;
  const answers = Array.from({ length: 100 }, (_, n) => first.append({ payload: n + 1 }));
  for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
  const end = await tail(url);
  for (const reader of [first, second]) {
    await reader.untilAt(end);
    expect(reader.messages).toEqual([...Array(101).keys()]);
    await reader.close();
  }
  expect(await readMessages(url)).toHaveLength(101);
});

test("a deletion ends readers of all modes", async () => {
  const { url, sockets: opened, events: sse, waiting } = streams.deleted;
  await remove(url);
  for (const reader of opened) await reader.untilError("STREAM_NOT_FOUND", 4404);
  for (const reader of sse) await reader.untilEnd(5000);
  for (const response of await Promise.all(waiting)) {
    await expectError(response, 404, "STREAM_NOT_FOUND");
  }
});

test("a close ends readers of all modes", async () => {
  const { url, sockets: opened, events: sse, waiting } = streams.closed;
  await close(url);
  for (const reader of [...opened, ...sse]) {
    await reader.untilEnd();
    expect(reader.closed).toBe(true);
    expect(reader.messages).toEqual([0]);
  }
  for (const response of await Promise.all(waiting)) {
    expect(response.headers.get("stream-closed")).toBe("true");
  }
});

test("a reader that leaves is forgotten, and the other stays", async () => {
  const { url, sockets: [first, second] } = streams.leaving;
  await first.abandon("rst");
  await second.untilAt(await appended(url, "1"));
  expect(second.messages).toEqual([0, 1]);
  await second.close();
});

test("strict readers that wait for credit do not keep the object awake", async () => {
  const { url, sockets: [first, second] } = streams.pending;
  await appended(url, "1");
  await asleep(host, EVICTION_MS);
  first.grant(1);
  second.grant(1);
  for (const reader of [first, second]) {
    await reader.untilAt(await tail(url));
    expect(reader.messages).toEqual([0, 1]);
    await reader.close();
  }
});
