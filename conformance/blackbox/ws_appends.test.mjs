// Appends over a socket: judged like POSTs, in the order they came, and answered in that order.
import { describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  append,
  appended,
  close,
  created,
  expectError,
  expectSameBytes,
  freshStream,
  head,
  nextOffset,
  positionOf,
  randomBuffer,
  readBytes,
  readMessages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { TEXT_TYPE } from "./cold.mjs";
import { SAFE_INTEGER_MAX, SocketReader, attached, base64 } from "./ws_client.mjs";

async function stream(type = JSON_TYPE) {
  const url = freshStream("ws-appends");
  await created(url, { type });
  return url;
}

async function messagesOf(url, count) {
  const messages = await readMessages(url);
  expect(messages).toHaveLength(count);
  return messages;
}

describe("an ack", () => {
  test("names the offset that HEAD and a POST's answer name", async () => {
    const { url, socket } = await attached();
    for (let n = 0; n < 10; n += 1) {
      const { streamNextOffset, ...rest } = await socket.acked({ payload: { n } });
      expect(rest).toEqual({ id: n + 1 });
      expect(streamNextOffset).toBe(await tail(url));
      const posted = await appended(url, JSON.stringify({ n }));
      expect(positionOf(posted) - positionOf(streamNextOffset)).toBe(`{"n":${n}},\n`.length);
    }
    expect(await messagesOf(url, 20)).toEqual([...Array(20).keys()].map((n) => ({ n: n >> 1 })));
    await socket.close();
  });

  test("brings the id back as it was: strings, and integers up to 2^53 - 1", async () => {
    const { url, socket } = await attached();
    const texts = ["a", "0", "é€😀", 'quo"te\\\n', "x".repeat(128), "é".repeat(64)];
    const ids = [0, 1, SAFE_INTEGER_MAX, ...texts];
    for (const id of [...ids, ...ids]) {
      const ack = await socket.acked({ id, payload: 1 });
      expect(ack.id).toBe(id);
    }
    await messagesOf(url, 2 * ids.length);
    await socket.close();
  });

  test("comes after the bytes are readable", async () => {
    const { url, socket } = await attached();
    for (let n = 0; n < 20; n += 1) {
      await socket.acked({ payload: n });
      expect((await readMessages(url)).at(-1)).toBe(n);
    }
    await socket.close();
  });
});

describe("the body", () => {
  test("`payload` of a JSON stream is any JSON value, an array several messages", async () => {
    const { url, socket } = await attached();
    const values = [{ a: 1 }, "text", 0, -1.5, true, false, null];
    const payloads = [...values, [1, 2], [[3, 4]], [[]], { b: [] }];
    for (const payload of payloads) await socket.acked({ payload });
    const expected = [...values, 1, 2, [3, 4], [], { b: [] }];
    expect(await readMessages(url)).toEqual(expected);
    await socket.close();
  });

  test("`payload` of a JSON stream keeps its spelling where JSON.parse would lose it", async () => {
    const { url, socket } = await attached();
    const text = '{"big":12345678901234567890.10,"twice":1,"twice":2,"esc":"\\u0041\\ud800"}';
    const frame = `{ "append" : {"id" : 1, "payload" : ${text} } }`;
    expect(await socket.appendText(1, frame)).toHaveProperty("ack");
    const posted = await stream();
    await appended(posted, text);
    expectSameBytes(await readBytes(url), await readBytes(posted));
    await socket.close();
  });

  test("`payload` may be nested as deeply as a POST's body", async () => {
    const { url, socket } = await attached();
    const posted = await stream();
    for (const depth of [100, 128, 500, 1000]) {
      const nested = `${"[".repeat(depth)}${"]".repeat(depth)}`;
      expect((await append(posted, `[${nested}]`)).status).toBe(204);
      expect(await socket.append({ base64: base64(`[${nested}]`) })).toHaveProperty("ack");
      const text = `{"append":{"id":"by hand","payload":[${nested}]}}`;
      const answer = await socket.appendText("by hand", text);
      expect(answer, `depth ${depth}`).toHaveProperty("ack");
    }
    await messagesOf(url, 8);
    await socket.close();
  });

  test("`payload` of a text stream is a string", async () => {
    const { url, socket } = await attached(TEXT_TYPE);
    const texts = ["a", "é€😀\r\n", '{"not":"parsed"}', "\u0000", "[1,2]"];
    for (const payload of texts) await socket.acked({ payload });
    expect((await readBytes(url)).toString()).toBe(texts.join(""));
    for (const payload of [1, null, true, ["a"], { a: "b" }]) {
      await socket.nacked({ payload }, "INVALID_APPEND");
    }
    expect((await readBytes(url)).toString()).toBe(texts.join(""));
    await socket.close();
  });

  test("`payload` is not for other streams", async () => {
    for (const type of [BINARY_TYPE, "application/ndjson", "image/png"]) {
      const { url, socket } = await attached(type);
      for (const payload of ["text", 1, [1]]) await socket.nacked({ payload }, "INVALID_APPEND");
      expect(positionOf(await tail(url))).toBe(0);
      await socket.close();
    }
  });

  const types = [TEXT_TYPE, BINARY_TYPE, "application/ndjson"];
  test.each(types)("`base64` of %s is bytes", async (type) => {
    const { url, socket } = await attached(type);
    const random = seeded(61);
    const parts = [1, 2, 3, 4, 5, 1000, 700_000].map((length) => randomBuffer(length, random));
    for (const part of parts) await socket.acked({ base64: base64(part) });
    expectSameBytes(await readBytes(url), Buffer.concat(parts));
    await socket.close();
  });

  test("`base64` of a JSON stream is the body of a POST", async () => {
    const { url, socket } = await attached();
    for (const body of ['{"a":1}', ' [1, [2],\n"é"] ', "null"]) {
      await socket.acked({ base64: base64(body) });
    }
    expect(await readMessages(url)).toEqual([{ a: 1 }, 1, [2], "é", null]);
    for (const body of ["{", "[1,]", " ", "1 2", Buffer.from([0x22, 0xff, 0x22])]) {
      await socket.nacked({ base64: base64(body) }, "INVALID_JSON");
    }
    await socket.nacked({ base64: base64("[]") }, "EMPTY_ARRAY");
    await messagesOf(url, 5);
    await socket.close();
  });

  test("that is empty is refused as a POST's", async () => {
    const json = await attached();
    await json.socket.nacked({ payload: [] }, "EMPTY_ARRAY");
    await json.socket.nacked({ base64: "" }, "EMPTY_BODY");
    const text = await attached(TEXT_TYPE);
    await text.socket.nacked({ payload: "" }, "EMPTY_BODY");
    await text.socket.nacked({ base64: "" }, "EMPTY_BODY");
    for (const { url, socket } of [json, text]) {
      expect(positionOf(await tail(url))).toBe(0);
      await socket.close();
    }
  });

  test("in bad base64 is refused", async () => {
    const { url, socket } = await attached(BINARY_TYPE);
    const padding = ["YQ", "YQ=", "YQ===", "Y", "=", "YQ==YQ=="];
    const bits = ["YR==", "YWF="];
    const bad = [...padding, ...bits, "Y Q=", "YWE\n", "_-8=", "é", 1, null, ["YQ=="], {}];
    for (const value of bad) await socket.nacked({ base64: value }, "INVALID_APPEND");
    expect(positionOf(await tail(url))).toBe(0);
    await socket.acked({ base64: "YQ==" });
    expect((await readBytes(url)).toString()).toBe("a");
    await socket.close();
  });
});

describe("a pipeline", () => {
  test.each([1000, 5000])("of %i appends is stored and answered in order", async (count) => {
    const { url, socket } = await attached();
    const answers = Array.from({ length: count }, (_, n) => socket.append({ payload: n }));
    for (const answer of await Promise.all(answers)) expect(answer.ack).toBeDefined();
    const acks = socket.frames.filter(({ kind }) => kind === "ack");
    const sum = acks.reduce((total, { count: answered = 1 }) => total + answered, 0);
    expect(sum).toBe(count);
    const all = [...Array(count).keys()];
    expect(await readMessages(url)).toEqual(all);
    // The reader on the same socket sees them as well, in that order.
    await socket.untilAt(await tail(url));
    expect(socket.messages).toEqual(all);
    await socket.close();
  });

  test("of ten sockets keeps the order of each", async () => {
    const url = await stream();
    const sockets = [];
    for (let n = 0; n < 10; n += 1) sockets.push(await SocketReader.open(url, "now"));
    const answers = sockets.flatMap((socket, by) =>
      Array.from({ length: 300 }, (_, n) => socket.append({ payload: { by, n } })),
    );
    for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    const messages = await messagesOf(url, 3000);
    for (let by = 0; by < 10; by += 1) {
      const own = messages.filter((message) => message.by === by).map(({ n }) => n);
      expect(own).toEqual([...Array(300).keys()]);
    }
    const end = await tail(url);
    for (const socket of sockets) {
      await socket.untilAt(end);
      await socket.close();
    }
  });

  test("with refusals answers each in its turn", async () => {
    const { url, socket } = await attached();
    const codes = { 3: "EMPTY_ARRAY", 5: "INVALID_APPEND" };
    const answers = Array.from({ length: 700 }, (_, n) => {
      const bodies = { 3: { payload: [] }, 5: { payload: 1, base64: "MQ==" } };
      return socket.append(bodies[n % 7] ?? { payload: n });
    });
    const expected = [];
    for (const [n, answer] of (await Promise.all(answers)).entries()) {
      const code = codes[n % 7];
      if (code === undefined) expected.push(n);
      expect(answer.nack?.error.code, String(n)).toBe(code);
    }
    expect(await readMessages(url)).toEqual(expected);
    await socket.close();
  });

  test("of large appends is stored whole", async () => {
    const { url, socket } = await attached(BINARY_TYPE);
    const random = seeded(62);
    const parts = [];
    for (let n = 0; n < 12; n += 1) {
      parts.push(randomBuffer(700_000, random));
      await sleep(0);
    }
    // Some at a time: more than 8 MiB must not be unanswered.
    for (let n = 0; n < parts.length; n += 6) {
      const batch = parts.slice(n, n + 6);
      const answers = batch.map((part) => socket.append({ base64: base64(part) }));
      for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    }
    expectSameBytes(await readBytes(url), Buffer.concat(parts));
    await socket.untilAt(await tail(url));
    expectSameBytes(socket.bytes, Buffer.concat(parts));
    await socket.close();
  });
});

describe("closing", () => {
  test("with a body stores it in the same step, and the socket ends after the ack", async () => {
    const { url, socket } = await attached();
    const ack = await socket.acked({ payload: "last", close: true });
    expect(ack.streamClosed).toBe(true);
    await socket.untilEnd();
    expect(socket.messages).toEqual(["last"]);
    expect(socket.offset).toBe(ack.streamNextOffset);
    const response = await head(url);
    expect(response.headers.get("stream-closed")).toBe("true");
    expect(nextOffset(response)).toBe(ack.streamNextOffset);
  });

  test("without a body", async () => {
    const { url, socket } = await attached();
    const { streamNextOffset } = await socket.acked({ payload: 1 });
    const ack = await socket.acked({ close: true });
    expect(ack).toMatchObject({ streamClosed: true, streamNextOffset });
    await socket.untilEnd();
    await expectError(await append(url, "2"), 409, "STREAM_CLOSED");
  });

  test("by a producer can be repeated", async () => {
    const { url } = await attached();
    const fields = { payload: 1, close: true, producer: { id: "p", epoch: 0, seq: 0 } };
    // Strict readers that are not at the tail keep their sockets.
    const sockets = [];
    for (let n = 0; n < 2; n += 1) sockets.push(await SocketReader.open(url, "-1", { credit: 0 }));
    const first = await sockets[0].acked(fields);
    const second = await sockets[1].acked(fields);
    expect(first).toMatchObject({ streamClosed: true, producer: { epoch: 0, seq: 0 } });
    expect(second).toMatchObject({ duplicate: true, producer: { epoch: 0, seq: 0 } });
    expect(second.streamNextOffset).toBe(first.streamNextOffset);
    await messagesOf(url, 1);
    for (const socket of sockets) await socket.close();
  });

  test("refuses what comes later, also in the same pipeline", async () => {
    const url = await stream();
    await appended(url, '"unread"');
    // A strict reader with data before it keeps its socket, whatever is closed.
    const socket = await SocketReader.open(url, "-1", { credit: 0 });
    const answers = await Promise.all([
      socket.append({ payload: 1 }),
      socket.append({ payload: 2, close: true }),
      socket.append({ payload: 3 }),
      socket.append({ close: true, payload: 4 }),
    ]);
    expect(answers[0].ack).toBeDefined();
    expect(answers[1].ack).toMatchObject({ streamClosed: true });
    for (const { nack } of answers.slice(2)) expect(nack.error.code).toBe("STREAM_CLOSED");
    await socket.nacked({ payload: 5 }, "STREAM_CLOSED");
    expect(await readMessages(url)).toEqual(["unread", 1, 2]);
    socket.grant(10);
    await socket.untilEnd();
    expect(socket.messages).toEqual(["unread", 1, 2]);
  });

  test("answers what comes behind it before the socket ends", async () => {
    const { url, socket } = await attached();
    const fields = [{ payload: 1 }, { payload: 2, close: true }, { payload: 3 }, { payload: 4 }];
    const answers = await Promise.all(fields.map((each) => socket.append(each)));
    expect(answers[1].ack).toMatchObject({ streamClosed: true });
    for (const { nack } of answers.slice(2)) expect(nack?.error.code).toBe("STREAM_CLOSED");
    await socket.untilEnd();
    expect(socket.messages).toEqual([1, 2]);
    await messagesOf(url, 2);
  });

  test("by HTTP refuses appends of sockets", async () => {
    const url = await stream();
    await appended(url, "1");
    const socket = await SocketReader.open(url, "-1", { credit: 0 });
    await close(url);
    await socket.nacked({ payload: 2 }, "STREAM_CLOSED");
    socket.grant(1);
    await socket.untilEnd();
    expect(socket.messages).toEqual([1]);
  });
});

test("POSTs and appends of sockets are one total order", async () => {
  const LENGTH = 8;
  const url = await stream(TEXT_TYPE);
  const body = (by, n) => `${by}${String(n).padStart(LENGTH - 2, "0")}\n`;
  const placed = [];
  const place = (text, offset) => placed.push([text, positionOf(offset)]);
  const watching = await SocketReader.open(url, "-1");
  const posts = Array.from({ length: 4 }, async (_, by) => {
    for (let n = 0; n < 60; n += 1) {
      const text = body(by, n);
      place(text, await appended(url, text, { type: TEXT_TYPE }));
    }
  });
  const sockets = Array.from({ length: 4 }, async (_, at) => {
    const by = at + 4;
    const socket = await SocketReader.open(url, "now");
    const pending = [];
    for (let n = 0; n < 300; n += 1) {
      const text = body(by, n);
      const answered = socket.append({ payload: text }).then(({ ack }) => ({ text, ack, n }));
      pending.push(answered);
      if (n % 10 === 9) await sleep(1);
    }
    const got = await Promise.all(pending);
    // An ack names the offset of the last append that it answers.
    for (const [n, { text, ack }] of got.entries()) {
      const isLast = ack !== got[n + 1]?.ack;
      if (isLast) place(text, ack.streamNextOffset);
    }
    await socket.close();
  });
  await Promise.all([...posts, ...sockets]);
  const text = (await readBytes(url)).toString();
  expect(text).toHaveLength((4 * 60 + 4 * 300) * LENGTH);
  for (const [own, end] of placed) expect(text.slice(end - LENGTH, end)).toBe(own);
  for (let by = 0; by < 8; by += 1) {
    const own = text.split(/(?<=\n)/).filter((line) => line.startsWith(String(by)));
    expect(own).toEqual(Array.from({ length: by < 4 ? 60 : 300 }, (_, n) => body(by, n)));
  }
  await watching.untilAt(await tail(url));
  expect(watching.text).toBe(text);
  await watching.close();
});

test("an append to a stream that is deleted meanwhile is never stored in the next", async () => {
  const { url, socket } = await attached();
  const answers = Array.from({ length: 200 }, (_, n) => socket.append({ payload: n }));
  await remove(url);
  await created(url, { type: JSON_TYPE, body: '["new"]' });
  await socket.untilError("STREAM_NOT_FOUND", 4404);
  for (const answer of await Promise.all(answers)) {
    const { ack, nack, isLost = false } = answer;
    if (nack !== undefined) expect(["STREAM_NOT_FOUND", "UNAVAILABLE"]).toContain(nack.error.code);
    else expect(ack !== undefined || isLost).toBe(true);
  }
  expect(await readMessages(url)).toEqual(["new"]);
});

test("an append to a fork goes behind what it has inherited", async () => {
  const source = await stream();
  await appended(source, "[1,2]");
  const url = freshStream("ws-appends");
  await created(url, { "stream-forked-from": new URL(source).pathname });
  const socket = await SocketReader.open(url, "-1");
  const ack = await socket.acked({ payload: "own" });
  expect(ack.streamNextOffset).toBe(await tail(url));
  await socket.untilAt(ack.streamNextOffset);
  expect(socket.messages).toEqual([1, 2, "own"]);
  expect(await readMessages(source)).toEqual([1, 2]);
  await socket.close();
});
