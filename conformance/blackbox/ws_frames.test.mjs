// Bad frames: each ends its own socket with an error frame and a close code, and no other.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  MIB,
  SERVER,
  appended,
  created,
  freshStream,
  readMessages,
  sleep,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { SocketReader } from "./ws_client.mjs";
import { RawWebSocket, closeFrame, frame } from "./ws_raw.mjs";

const SMALL_MESSAGE_BYTES = 1000;
const DEEP = 100_000;

let small;
let unlimited;
beforeAll(async () => {
  [small, unlimited] = await Promise.all([
    Host.start({ WS_FRAMES_PER_MINUTE: "5", WS_MESSAGE_BYTES_MAX: String(SMALL_MESSAGE_BYTES) }),
    Host.start({ WS_FRAMES_PER_MINUTE: "0" }),
  ]);
});
afterAll(() => Promise.all([small.stop(), unlimited.stop()]));

async function stream(server = SERVER) {
  const url = freshStream("ws-frames", server);
  await created(url, { type: JSON_TYPE, body: "[0]" });
  return url;
}

/** Offends while another connection is attached, which must go on as if nothing had been. */
async function besideAWitness(url, offend) {
  const witness = await SocketReader.open(url, "-1");
  await witness.untilUpToDate();
  await offend(url);
  const end = await appended(url, '"by HTTP"');
  await witness.untilAt(end);
  const { streamNextOffset } = await witness.acked({ payload: "by the witness" });
  await witness.untilAt(streamNextOffset);
  expect(witness.messages.slice(-2)).toEqual(["by HTTP", "by the witness"]);
  await witness.close();
}

/** Sends a frame and expects the error and the close. */
async function expectOffence(url, send, code, closeCode) {
  await besideAWitness(url, async () => {
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    await send(reader);
    await reader.untilError(code, closeCode);
  });
}

/** An append whose frame has a length. */
function appendOfBytes(length) {
  const text = '{"append":{"id":1,"payload":""}}';
  return text.replace('""', `"${"x".repeat(length - text.length)}"`);
}

const NO_JSON = [
  " ",
  "x",
  "{",
  "{}{}",
  "{'credit':1}",
  '{"credit":1,}',
  '\ufeff{"credit":1}',
  '{"credit":01}',
];

const WRONG_SHAPES = [
  "null",
  "true",
  "1",
  '"credit"',
  "[]",
  '[{"credit":1}]',
  "{}",
  '{"Credit":1}',
  '{"ack":{"id":1}}',
  '{"type":"data"}',
  '{"append":null}',
  '{"append":1}',
  '{"append":"x"}',
  '{"append":[]}',
];

const UNKNOWN_KEYS = [
  '{"credit":1,"more":1}',
  '{"more":1,"credit":1}',
  '{"credit":1,"append":{"id":1,"payload":1}}',
  '{"append":{"id":1,"payload":1},"id":1}',
];

const UNUSABLE_IDS = [
  '{"append":{}}',
  '{"append":{"payload":1}}',
  '{"append":{"id":null,"payload":1}}',
  '{"append":{"id":"","payload":1}}',
  `{"append":{"id":"${"x".repeat(129)}","payload":1}}`,
  '{"append":{"id":-1,"payload":1}}',
  '{"append":{"id":1.5,"payload":1}}',
  '{"append":{"id":9007199254740992,"payload":1}}',
  '{"append":{"id":[1],"payload":1}}',
  '{"append":{"id":true,"payload":1}}',
  '{"append":{"id":1,"id":2,"payload":1}}',
];

describe("INVALID_FRAME and 1007:", () => {
  test.each(["", ...NO_JSON])("text that is no JSON: %j", async (text) => {
    await expectOffence(await stream(), (reader) => reader.send(text), "INVALID_FRAME", 1007);
  });

  test.each(WRONG_SHAPES)("JSON of a wrong shape: %s", async (text) => {
    await expectOffence(await stream(), (reader) => reader.send(text), "INVALID_FRAME", 1007);
  });

  test.each(UNKNOWN_KEYS)("unknown keys: %s", async (text) => {
    const url = await stream();
    await expectOffence(url, (reader) => reader.send(text), "INVALID_FRAME", 1007);
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });

  // Without an id there is nothing that a nack could answer.
  test.each(UNUSABLE_IDS)("an append without a usable id: %s", async (text) => {
    const url = await stream();
    await expectOffence(url, (reader) => reader.send(text), "INVALID_FRAME", 1007);
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });

  test.each([
    ["arrays", "[".repeat(DEEP)],
    ["whole arrays", `${"[".repeat(DEEP)}${"]".repeat(DEEP)}`],
    ["objects", `${'{"a":'.repeat(DEEP)}1${"}".repeat(DEEP)}`],
    ["credit", `{"credit":${"[".repeat(DEEP)}${"]".repeat(DEEP)}}`],
  ])("nesting of 100,000 levels: %s", async (name, text) => {
    const url = await stream();
    await besideAWitness(url, async () => {
      const reader = await SocketReader.open(url, "-1");
      await reader.untilUpToDate();
      reader.send(text);
      const isCredit = name === "credit";
      // Credit that is no integer may be told as that.
      await reader.until(({ end }) => end !== undefined, "the close");
      if (isCredit && reader.end.code === 1008) expect(reader.error.code).toBe("INVALID_CREDIT");
      else await reader.untilError("INVALID_FRAME", 1007);
    });
  });

  test.each([
    ["alone", Buffer.from([0xff])],
    ["in the key", Buffer.from([...Buffer.from('{"cred\xff', "latin1"), ...Buffer.from('it":1}')])],
    ["cut off", Buffer.from('{"credit":1}\xe2\x82', "latin1")],
  ])("text that is no UTF-8: %s", async (_, bytes) => {
    const url = await stream();
    await besideAWitness(url, async () => {
      const raw = await RawWebSocket.open(url);
      raw.write(frame("text", bytes));
      expect(await raw.untilEnd()).toMatchObject({ code: 1007 });
      expect(raw.error?.code).toBe("INVALID_FRAME");
      raw.destroy();
    });
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });
});

// RFC 6455 §8.1 wants such a connection closed. The platform puts U+FFFD in their place before
// anybody sees the frame, and that is a character as good as any.
test("bytes in a string that are no UTF-8 are stored as U+FFFD", async () => {
  const cases = [
    ['{"append":{"id":1,"payload":"\xff"}}', "\ufffd"],
    ['{"append":{"id":2,"payload":"\xed\xa0\x80"}}', "\ufffd\ufffd\ufffd"],
  ];
  const url = await stream();
  await besideAWitness(url, async () => {
    const raw = await RawWebSocket.open(url);
    for (const [text] of cases) raw.write(frame("text", Buffer.from(text, "latin1")));
    const isLast = ({ kind, id }) => kind === "ack" && id === 2;
    await raw.until(({ frames }) => frames.some(isLast));
    raw.destroy();
  });
  const expected = [0, ...cases.map(([, stored]) => stored), "by HTTP", "by the witness"];
  expect(await readMessages(url)).toEqual(expected);
});

test("a payload nested 100,000 deep is refused, and the service lives", async () => {
  const url = await stream();
  await besideAWitness(url, async () => {
    const reader = await SocketReader.open(url, "-1");
    await reader.untilUpToDate();
    const nested = `${"[".repeat(DEEP)}${"]".repeat(DEEP)}`;
    const { nack } = await reader.appendText(1, `{"append":{"id":1,"payload":${nested}}}`);
    // As a POST: the frame is fine, its body is not.
    expect(nack?.error.code).toBe("INVALID_JSON");
    await reader.acked({ payload: "goes on" });
    await reader.close();
  });
});

describe("INVALID_FRAME and 1003: binary frames", () => {
  test.each([
    ["bytes", Buffer.from([1, 2, 3])],
    ["nothing", Buffer.alloc(0)],
    ["JSON", Buffer.from('{"credit":1}')],
    ["an append", Buffer.from('{"append":{"id":1,"payload":1}}')],
  ])("of %s", async (_, bytes) => {
    const url = await stream();
    await expectOffence(url, (reader) => reader.send(bytes), "INVALID_FRAME", 1003);
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });
});

describe("the size of a message", () => {
  test.each([
    ["the default", () => SERVER, MIB],
    ["the variable's", () => small.url, SMALL_MESSAGE_BYTES],
  ])("may be exactly %s maximum", async (_, server, largest) => {
    const url = await stream(server());
    const reader = await SocketReader.open(url, "now");
    const text = appendOfBytes(largest);
    expect(Buffer.byteLength(text)).toBe(largest);
    expect(await reader.appendText(1, text)).toHaveProperty("ack");
    expect((await readMessages(url))[1]).toHaveLength(largest - 32);
    await reader.close();
  });

  test.each([
    ["the default, by one", () => SERVER, appendOfBytes(MIB + 1)],
    ["the variable's, by one", () => small.url, appendOfBytes(SMALL_MESSAGE_BYTES + 1)],
    ["in bytes, not characters", () => small.url, `"${"é".repeat(SMALL_MESSAGE_BYTES / 2)}"`],
    ["by a lot", () => SERVER, appendOfBytes(10 * MIB)],
    ["without being JSON, which nobody looks at", () => SERVER, "x".repeat(2 * MIB)],
  ])("over it gets MESSAGE_TOO_LARGE and 1009: %s", async (_, server, text) => {
    const url = await stream(server());
    await expectOffence(url, (reader) => reader.send(text), "MESSAGE_TOO_LARGE", 1009);
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });

  test("counts the fragments together", async () => {
    const url = await stream(small.url);
    await besideAWitness(url, async () => {
      const raw = await RawWebSocket.open(url);
      const text = appendOfBytes(SMALL_MESSAGE_BYTES + 1);
      raw.write(frame("text", text.slice(0, 600), { fin: false }));
      raw.write(frame("continuation", text.slice(600)));
      expect(await raw.untilEnd()).toMatchObject({ code: 1009 });
      expect(raw.error?.code).toBe("MESSAGE_TOO_LARGE");
      raw.destroy();
    });
  });
});

describe("what is unusual and fine:", () => {
  test("fragments, also inside a character and with a ping between them", async () => {
    const url = await stream();
    const raw = await RawWebSocket.open(url);
    const text = Buffer.from('{"append":{"id":"fragments","payload":"é€😀"}}');
    raw.write(frame("text", text.subarray(0, 1), { fin: false }));
    for (let at = 1; at < text.length - 1; at += 1) {
      raw.write(frame("continuation", text.subarray(at, at + 1), { fin: false }));
      if (at === 20) raw.write(frame("ping", "between"));
    }
    raw.write(frame("continuation", text.subarray(-1)));
    const isAcked = ({ kind, id }) => kind === "ack" && id === "fragments";
    await raw.until(({ frames }) => frames.some(isAcked));
    expect(raw.frames.find(({ kind }) => kind === "pong").bytes.toString()).toBe("between");
    expect(await readMessages(url)).toEqual([0, "é€😀"]);
    raw.destroy();
  });

  test("white space around and inside the JSON", async () => {
    const url = await stream();
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    reader.send(' \n{ "credit" :\t1 }\r\n');
    await reader.until(({ dataFrames }) => dataFrames.length === 1, "the data");
    const spaced = ' { "append" : { "payload" : [ 1 , 2 ] , "id" : 1 } } ';
    expect(await reader.appendText(1, spaced)).toHaveProperty("ack");
    expect(await readMessages(url)).toEqual([0, 1, 2]);
    await reader.close();
  });

  test("escapes in keys and strings", async () => {
    const url = await stream();
    const reader = await SocketReader.open(url, "now");
    const text = '{"\\u0061ppend":{"i\\u0064":"\\u0041","payload":"\\u00e9"}}';
    expect(await reader.appendText("A", text)).toHaveProperty("ack");
    expect(await readMessages(url)).toEqual([0, "é"]);
    await reader.close();
  });
});

describe("the end of a socket by its client", () => {
  test("is answered with a close", async () => {
    const url = await stream();
    const raw = await RawWebSocket.open(url);
    raw.write(closeFrame(1000, "done"));
    expect(await raw.untilEnd()).toMatchObject({ code: 1000 });
    raw.destroy();
  });

  test("lets nothing be read that comes after it", async () => {
    const url = await stream();
    await besideAWitness(url, async () => {
      const raw = await RawWebSocket.open(url);
      await raw.until(({ dataFrames }) => dataFrames.length === 1);
      const late = frame("text", '{"append":{"id":1,"payload":"late"}}');
      raw.write(closeFrame(1000, "done"), late, frame("text", "no JSON"));
      // What is unread when the server ends the connection resets it, maybe before the answer.
      const end = await raw.untilEnd();
      if (end !== undefined) expect(end).toMatchObject({ code: 1000 });
      expect(raw.error).toBeUndefined();
      raw.destroy();
    });
    expect(await readMessages(url)).toEqual([0, "by HTTP", "by the witness"]);
  });

  test.each([1001, 1011, 3000, 4999])("with code %i is answered as well", async (code) => {
    const url = await stream();
    await besideAWitness(url, async () => {
      const raw = await RawWebSocket.open(url);
      raw.write(closeFrame(code));
      expect(await raw.untilEnd()).toBeDefined();
      expect(raw.error).toBeUndefined();
      raw.destroy();
    });
  });

  test("leaves appends before it stored", async () => {
    const url = await stream();
    const reader = await SocketReader.open(url, "now");
    for (let n = 1; n <= 50; n += 1) reader.append({ payload: n });
    await reader.close();
    const stored = await readMessages(url);
    await sleep(200);
    // All that were acknowledged, and of the others the first ones.
    const acked = reader.frames.filter(({ kind }) => kind === "ack");
    const count = acked.reduce((sum, { count: answered = 1 }) => sum + answered, 0);
    expect(stored.length).toBeGreaterThanOrEqual(1 + count);
    expect(await readMessages(url)).toEqual([...Array((await readMessages(url)).length).keys()]);
  });
});

// RFC 6455 §5.1 wants such a connection closed with 1002. That is the platform's to do.
test("a frame without a mask disturbs nobody", async () => {
  const url = await stream();
  await besideAWitness(url, async () => {
    const raw = await RawWebSocket.open(url);
    await raw.until(({ dataFrames }) => dataFrames.length === 1);
    raw.write(frame("text", '{"append":{"id":1,"payload":1}}', { isMasked: false }));
    const isAnswered = ({ frames }) => frames.some(({ kind }) => kind === "ack");
    await raw.until((socket) => socket.end !== undefined || socket.isOver || isAnswered(socket));
    if (raw.end !== undefined) expect(raw.end.code).toBe(1002);
    raw.destroy();
  });
});

describe("WS_FRAMES_PER_MINUTE", () => {
  test("ends with RATE_LIMITED and 1008 whoever sends more", async () => {
    const url = await stream(small.url);
    await besideAWitness(url, async () => {
      const reader = await SocketReader.open(url, "-1", { credit: 0 });
      for (let n = 0; n < 5; n += 1) reader.grant(1);
      await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
      expect(reader.messages).toEqual([0]);
      reader.grant(1);
      await reader.untilError("RATE_LIMITED", 1008);
    });
  });

  test("counts no appends", async () => {
    const url = await stream(small.url);
    const reader = await SocketReader.open(url, "now");
    const answers = Array.from({ length: 100 }, (_, n) => reader.append({ payload: n + 1 }));
    for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    for (let n = 0; n < 5; n += 1) reader.grant(100);
    await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
    expect(await readMessages(url)).toEqual([...Array(101).keys()]);
    await reader.close();
  });

  test("counts each connection by itself", async () => {
    const url = await stream(small.url);
    const readers = [];
    for (let n = 0; n < 4; n += 1) readers.push(await SocketReader.open(url, "-1"));
    for (const reader of readers) for (let n = 0; n < 5; n += 1) reader.grant(5);
    const end = await appended(url, "1");
    for (const reader of readers) {
      await reader.untilAt(end);
      await reader.close();
    }
  });

  test("fills up continuously", async () => {
    const url = await stream(small.url);
    const reader = await SocketReader.open(url, "-1");
    for (let n = 0; n < 5; n += 1) reader.grant(5);
    // Five a minute: the next one is due after twelve seconds, and not two.
    await sleep(13_000);
    reader.grant(5);
    await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
    reader.grant(5);
    await reader.untilError("RATE_LIMITED", 1008);
  });

  test("of 0 is no limit", async () => {
    const url = await stream(unlimited.url);
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    for (let n = 0; n < 3000; n += 1) reader.grant(1);
    await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
    expect(reader.messages).toEqual([0]);
    await reader.close();
  });

  test("is 1,000 by default, all of them at once", async () => {
    const url = await stream();
    const reader = await SocketReader.open(url, "-1", { credit: 0 });
    for (let n = 0; n < 1000; n += 1) reader.grant(1);
    await reader.nacked({ payload: [] }, "EMPTY_ARRAY");
    // What has filled up meanwhile is far less than this.
    for (let n = 0; n < 500; n += 1) reader.grant(1);
    await reader.untilError("RATE_LIMITED", 1008);
  });
});
