// How live readers end, in all three modes: with their stream, and no byte of the next life.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  SERVER,
  appended,
  close,
  created,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  read,
  remove,
  sleep,
  tail,
} from "./client.mjs";
import { KINDS } from "./cold.mjs";
import { EventReader, expectOrderly } from "./event_reader.mjs";
import { Host } from "./host.mjs";
import { open, requestHead } from "./raw_socket.mjs";
import { SocketReader, expectOrderlySocket } from "./ws_client.mjs";

const longPoll = (url, offset) => read(url, offset, { live: "long-poll" });

async function stream(body, { server = SERVER, type = JSON_TYPE, ...headers } = {}) {
  const url = freshStream("live-ends", server);
  return { url, start: await created(url, { type, body, ...headers }) };
}

let brief;
beforeAll(async () => {
  brief = await Host.start({ SSE_LIFETIME_MS: "1500", LONG_POLL_TIMEOUT_MS: "1000" });
});
afterAll(() => brief.stop());

/** Some readers of each mode, all at the tail. */
async function attachAll(url, count = 4) {
  const sockets = [];
  const events = [];
  for (let n = 0; n < count; n += 1) {
    sockets.push(await SocketReader.open(url, "-1", { credit: n % 2 === 0 ? 100 : undefined }));
    events.push(await EventReader.open(url, "-1"));
  }
  for (const reader of [...sockets, ...events]) await reader.untilUpToDate();
  const waiting = Array.from({ length: count }, () => longPoll(url, "now"));
  // A wait has no sign of having begun; its socket is opened within a few milliseconds.
  await sleep(200);
  return { sockets, events, waiting };
}

/** Each mode ends in its own way, with the messages of its own life. */
async function expectEnds({ sockets, events, waiting }, messages, timeoutMs = 5000) {
  for (const socket of sockets) {
    await socket.untilError("STREAM_NOT_FOUND", 4404, timeoutMs);
    expect(socket.messages).toEqual(messages);
    expect(socket.closed).toBe(false);
  }
  for (const reader of events) {
    await reader.untilEnd(timeoutMs);
    expect(reader.messages).toEqual(messages);
    expect(reader.closed).toBe(false);
  }
  for (const response of await Promise.all(waiting)) {
    await expectError(response, 404, "STREAM_NOT_FOUND");
  }
}

describe("readers of all modes end", () => {
  test("when their stream is deleted", async () => {
    const { url } = await stream("[1]");
    const readers = await attachAll(url);
    await remove(url);
    await expectEnds(readers, [1]);
  });

  test("when their stream is deleted and forks hold it", async () => {
    const { url } = await stream("[1]");
    const fork = freshStream("live-ends");
    await created(fork, { "stream-forked-from": new URL(url).pathname });
    const { sockets, events, waiting } = await attachAll(url);
    const own = await SocketReader.open(fork, "-1");
    await remove(url);
    for (const socket of sockets) await socket.untilEnd(4404);
    for (const reader of events) await reader.untilEnd(5000);
    for (const response of await Promise.all(waiting)) {
      expect([404, 410]).toContain(response.status);
    }
    // The fork's readers stay.
    await own.untilAt(await appended(fork, "2"));
    expect(own.messages).toEqual([1, 2]);
    await own.close();
  });

  test("when their stream's fixed end has come", async () => {
    const expires = new Date(Date.now() + 4000).toISOString();
    const { url } = await stream("[1]", { "stream-expires-at": expires });
    const readers = await attachAll(url);
    await expectEnds(readers, [1], 10_000);
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(expires));
  });

  test("when their stream is deleted before they have read it", async () => {
    const { url } = await stream(JSON.stringify(Array(100).fill("m".repeat(10_000))));
    const strict = await SocketReader.open(url, "-1", { credit: 0 });
    await remove(url);
    await strict.untilError("STREAM_NOT_FOUND", 4404);
    expect(strict.dataFrames).toEqual([]);
  });

  test("when it is closed: with what it says, or with an answer", async () => {
    const { url, start } = await stream("[1]");
    const { sockets, events, waiting } = await attachAll(url);
    await close(url);
    for (const reader of [...sockets, ...events]) {
      await reader.untilEnd();
      expect(reader.closed).toBe(true);
      expect(reader.offset).toBe(start);
    }
    for (const response of await Promise.all(waiting)) {
      expect(response.status).toBe(204);
      expect(response.headers.get("stream-closed")).toBe("true");
    }
  });
});

test("no reader of an old life sees a byte of the new one", async () => {
  const url = freshStream("live-ends");
  for (let life = 0; life < 15; life += 1) {
    await created(url, { type: JSON_TYPE, body: String(life) });
    const readers = await attachAll(url, 2);
    await remove(url);
    await created(url, { type: JSON_TYPE, body: '"new"' });
    await appended(url, '"more"');
    await expectEnds(readers, [life]);
    await remove(url);
  }
});

test("a reader that appends at the end of a life appends to no other", async () => {
  const url = freshStream("live-ends");
  for (let life = 0; life < 10; life += 1) {
    await created(url, { type: JSON_TYPE });
    const socket = await SocketReader.open(url, "now");
    const answers = Array.from({ length: 20 }, () => socket.append({ payload: "old" }));
    await remove(url);
    const late = Array.from({ length: 20 }, () => socket.append({ payload: "late" }));
    await created(url, { type: JSON_TYPE, body: '["new"]' });
    await socket.untilEnd(4404);
    await Promise.all([...answers, ...late]);
    expect(await (await read(url, "-1")).json()).toEqual(["new"]);
    await remove(url);
  }
});

test("a sliding lifetime slides while a socket is attached", { timeout: 30_000 }, async () => {
  const { url } = await stream("[1]", { "stream-ttl": "3" });
  const socket = await SocketReader.open(url, "-1");
  await socket.untilUpToDate();
  await sleep(7000);
  expect((await head(url)).status).toBe(200);
  await socket.untilAt(await appended(url, "2"));
  expect(socket.messages).toEqual([1, 2]);
  await socket.close();
});

describe("an SSE response that is recycled", () => {
  test("in the middle of a catch-up that is read slowly ends in good order", async () => {
    const message = JSON.stringify("m".repeat(99_000));
    const { url } = await stream(`[${Array(40).fill(message)}]`, { server: brief.url });
    for (let n = 0; n < 9; n += 1) await appended(url, `[${Array(40).fill(message)}]`);
    const socket = await open(brief.url);
    const target = `${new URL(url).pathname}?offset=-1&live=sse`;
    socket.write(requestHead("GET", target, { connection: "close" }));
    const began = performance.now();
    const chunks = [];
    for await (const chunk of socket) {
      chunks.push(chunk);
      await sleep(25);
    }
    expect(performance.now() - began, "until its end").toBeLessThan(15_000);
    const answer = Buffer.concat(chunks).toString("latin1");
    expect(answer.endsWith("\r\n0\r\n\r\n"), "the body is whole").toBe(true);
    expect(answer.length, "ended at its time, not at the tail").toBeLessThan(300 * message.length);
    const last = answer.slice(answer.lastIndexOf("event: "));
    expect(last).toMatch(/^event: control\ndata: ?\{"streamNextOffset":"\d{16}_\d{16}"/);
  });

  test.each(Object.keys(KINDS))("of %s ends with a control event that resumes", async (name) => {
    const kind = KINDS[name];
    const { url } = await stream(undefined, { server: brief.url, type: kind.type });
    const parts = [];
    let isWriting = true;
    const writing = (async () => {
      for (let n = 0; isWriting; n += 1) {
        const body = kind.type === JSON_TYPE ? `[[${n},"é€😀"]]` : `${n}é€😀;`;
        parts.push(kind.wire(Buffer.from(body)));
        await appended(url, body, { type: kind.type });
        if (n % 5 === 0) await sleep(10);
      }
      await close(url);
    })();
    const got = [];
    let offset = "-1";
    let isClosed = false;
    for (let round = 0; !isClosed; round += 1) {
      const reader = await EventReader.open(url, offset);
      await reader.untilEnd();
      expectOrderly(reader);
      expect(reader.events.at(-1).kind).toBe("control");
      expect(reader.offset).toMatch(/^\d{16}_\d{16}$/);
      got.push(kind.followed(reader));
      offset = reader.offset;
      isClosed = reader.closed;
      if (round === 1) isWriting = false;
    }
    await writing;
    expectSameBytes(Buffer.concat(got), Buffer.concat(parts));
    expect(parts.length).toBeGreaterThan(20);
  });

  test("without news has said where it stands", async () => {
    const { url, start } = await stream("[1]", { server: brief.url });
    const reader = await EventReader.open(url, "now");
    await reader.untilEnd();
    expect(reader.events.at(-1)).toMatchObject({ kind: "control", streamNextOffset: start });
    expect(reader.messages).toEqual([]);
  });
});

test("a WebSocket outlives the time of SSE responses and of long-polls", async () => {
  const { url } = await stream("abc", { server: brief.url, type: BINARY_TYPE });
  const socket = await SocketReader.open(url, "-1");
  const strict = await SocketReader.open(url, "-1", { credit: 1 });
  await sleep(4000);
  const end = await appended(url, "def", { type: BINARY_TYPE });
  await socket.untilAt(end);
  expect(socket.text).toBe("abcdef");
  expect(strict.text).toBe("abc");
  strict.grant(1);
  await strict.untilAt(await tail(url));
  for (const reader of [socket, strict]) {
    expectOrderlySocket(reader);
    await reader.close();
  }
});
