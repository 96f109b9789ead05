// Appends over a socket that are refused: malformed ones, producers out of step, and limits.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  MIB,
  append,
  appended,
  expectError,
  positionOf,
  producer,
  readMessages,
  tail,
} from "./client.mjs";
import { TEXT_TYPE } from "./cold.mjs";
import { Host } from "./host.mjs";
import { SocketReader, attached, base64 } from "./ws_client.mjs";

describe("an append that is none gets INVALID_APPEND, and the socket goes on:", () => {
  const cases = [
    ["both bodies", { payload: 1, base64: "MQ==" }],
    ["an unknown field", { payload: 1, more: true }],
    ["close that is no boolean", { payload: 1, close: "true" }],
    ["close that is null", { payload: 1, close: null }],
  ];
  test.each(cases)("%s", async (_, fields) => {
    const { url, socket } = await attached();
    await socket.nacked(fields, "INVALID_APPEND");
    await socket.acked({ payload: "next" });
    expect(await readMessages(url)).toEqual(["next"]);
    await socket.close();
  });

  test("and one without a body that closes nothing gets EMPTY_BODY", async () => {
    const { socket } = await attached();
    await socket.nacked({}, "EMPTY_BODY");
    await socket.nacked({ close: false }, "EMPTY_BODY");
    await socket.acked({ payload: "next" });
    await socket.close();
  });
});

describe("INVALID_PRODUCER, as of a POST:", () => {
  test.each([
    ["no object", "p"],
    ["null", null],
    ["an array", ["p", 0, 0]],
    ["no seq", { id: "p", epoch: 0 }],
    ["no id", { epoch: 0, seq: 0 }],
    ["an unknown field", { id: "p", epoch: 0, seq: 0, x: 1 }],
    ["an epoch as a string", { id: "p", epoch: "0", seq: 0 }],
    ["an id as a number", { id: 1, epoch: 0, seq: 0 }],
    ["an empty id", { id: "", epoch: 0, seq: 0 }],
    ["an id with a space", { id: "p q", epoch: 0, seq: 0 }],
    ["a long id", { id: "p".repeat(257), epoch: 0, seq: 0 }],
    ["a negative epoch", { id: "p", epoch: -1, seq: 0 }],
    ["a fraction", { id: "p", epoch: 0, seq: 0.5 }],
    ["2^53", { id: "p", epoch: 0, seq: 2 ** 53 }],
  ])("%s", async (_, fields) => {
    const { url, socket } = await attached();
    await socket.nacked({ payload: 1, producer: fields }, "INVALID_PRODUCER");
    await socket.acked({ payload: "next" });
    expect(await readMessages(url)).toEqual(["next"]);
    await socket.close();
  });
});

test("a Stream-Seq that is none is INVALID_HEADER, as of a POST", async () => {
  const { socket } = await attached();
  for (const seq of [7, null, ["a"], "9".repeat(257), "é", "a\nb"]) {
    await socket.nacked({ payload: 1, seq }, "INVALID_HEADER");
  }
  await socket.acked({ payload: 1, seq: "9".repeat(256) });
  await socket.close();
});

describe("a producer", () => {
  const by = (id, epoch, seq) => ({ id, epoch, seq });

  test("is told its epoch and sequence number", async () => {
    const { url, socket } = await attached();
    for (let seq = 0; seq < 5; seq += 1) {
      const ack = await socket.acked({ payload: seq, producer: by("p", 3, seq) });
      expect(ack.producer).toEqual({ epoch: 3, seq });
      expect(ack.duplicate).toBeUndefined();
    }
    expect(await readMessages(url)).toHaveLength(5);
    await socket.close();
  });

  test("that repeats itself gets a duplicate's ack of its own, and nothing is stored", async () => {
    const { url, socket } = await attached();
    for (const seq of [0, 1, 2]) await socket.acked({ payload: seq, producer: by("p", 0, seq) });
    const end = await tail(url);
    for (const seq of [2, 0, 1]) {
      const ack = await socket.acked({ payload: "again", producer: by("p", 0, seq) });
      expect(ack).toMatchObject({ duplicate: true, producer: { epoch: 0, seq: 2 } });
      expect(ack.streamNextOffset).toBe(end);
    }
    expect(await readMessages(url)).toEqual([0, 1, 2]);
    await socket.close();
  });

  test("that repeats itself within a pipeline is stored once", async () => {
    const { url, socket } = await attached();
    const answers = [];
    for (let seq = 0; seq < 200; seq += 1) {
      for (let time = 0; time < 3; time += 1) {
        answers.push(socket.append({ payload: seq, producer: by("p", 0, seq) }));
      }
    }
    const got = await Promise.all(answers);
    expect(got.every(({ ack }) => ack !== undefined)).toBe(true);
    const duplicates = socket.frames.filter(({ kind, duplicate }) => kind === "ack" && duplicate);
    expect(duplicates).toHaveLength(400);
    expect(await readMessages(url)).toEqual([...Array(200).keys()]);
    await socket.close();
  });

  test("is one with the producer of POSTs", async () => {
    const { url, socket } = await attached();
    await appended(url, "0", producer("p", 1, 0));
    const again = await socket.acked({ payload: 0, producer: by("p", 1, 0) });
    expect(again).toMatchObject({ duplicate: true, producer: { epoch: 1, seq: 0 } });
    await socket.acked({ payload: 1, producer: by("p", 1, 1) });
    const response = await append(url, "1", producer("p", 1, 1));
    expect(response.status).toBe(204);
    expect(await readMessages(url)).toEqual([0, 1]);
    await socket.close();
  });

  test("of an earlier epoch is stale", async () => {
    const { url, socket } = await attached();
    await socket.acked({ payload: 1, producer: by("p", 7, 0) });
    const error = await socket.nacked({ payload: 2, producer: by("p", 6, 9) }, "STALE_EPOCH");
    expect(error.details).toEqual({ currentEpoch: 7 });
    expect(await readMessages(url)).toHaveLength(1);
    await socket.close();
  });

  test("that leaves a gap is told which number is expected", async () => {
    const { url, socket } = await attached();
    await socket.acked({ payload: 1, producer: by("p", 0, 0) });
    const error = await socket.nacked({ payload: 2, producer: by("p", 0, 5) }, "PRODUCER_GAP");
    expect(error.details).toEqual({ expectedSeq: 1, receivedSeq: 5 });
    await socket.nacked({ payload: 2, producer: by("new", 0, 1) }, "PRODUCER_GAP");
    await socket.acked({ payload: 2, producer: by("p", 0, 1) });
    expect(await readMessages(url)).toHaveLength(2);
    await socket.close();
  });

  test("starts an epoch at 0", async () => {
    const { url, socket } = await attached();
    await socket.acked({ payload: 1, producer: by("p", 0, 0) });
    await socket.nacked({ payload: 2, producer: by("p", 1, 1) }, "EPOCH_START");
    const ack = await socket.acked({ payload: 2, producer: by("p", 1, 0) });
    expect(ack.producer).toEqual({ epoch: 1, seq: 0 });
    expect(await readMessages(url)).toHaveLength(2);
    await socket.close();
  });

  test("whose append is refused has not used its number", async () => {
    const { url, socket } = await attached();
    await socket.nacked({ payload: [], producer: by("p", 0, 0) }, "EMPTY_ARRAY");
    const answers = [
      socket.append({ payload: 0, producer: by("p", 0, 0) }),
      socket.append({ base64: base64("{"), producer: by("p", 0, 1) }),
      socket.append({ payload: 1, producer: by("p", 0, 1) }),
    ];
    const [first, second, third] = await Promise.all(answers);
    expect(first.ack).toBeDefined();
    expect(second.nack.error.code).toBe("INVALID_JSON");
    expect(third.ack).toBeDefined();
    expect(await readMessages(url)).toEqual([0, 1]);
    await socket.close();
  });
});

test("Stream-Seq goes up, as of POSTs", async () => {
  const { url, socket } = await attached();
  await socket.acked({ payload: 1, seq: "b" });
  await socket.nacked({ payload: 2, seq: "b" }, "STREAM_SEQ_CONFLICT");
  await socket.nacked({ payload: 2, seq: "a" }, "STREAM_SEQ_CONFLICT");
  const conflict = await append(url, "2", { "stream-seq": "a" });
  await expectError(conflict, 409, "STREAM_SEQ_CONFLICT");
  await socket.acked({ payload: 2, seq: "c" });
  await appended(url, "3", { "stream-seq": "d" });
  await socket.nacked({ payload: 4, seq: "c" }, "STREAM_SEQ_CONFLICT");
  expect(await readMessages(url)).toEqual([1, 2, 3]);
  await socket.close();
});

describe("limits:", () => {
  let small;
  let narrow;
  beforeAll(async () => {
    [small, narrow] = await Promise.all([
      Host.start({ STREAM_BYTES_MAX: "1000", BODY_BYTES_MAX: "600" }),
      Host.start({ WS_UNACKED_MAX: "2" }),
    ]);
  });
  afterAll(() => Promise.all([small.stop(), narrow.stop()]));

  test("the quota of a stream's bytes, and smaller appends still fit", async () => {
    const { url, socket } = await attached(TEXT_TYPE, { server: small.url });
    await socket.acked({ payload: "x".repeat(500) });
    await socket.acked({ payload: "x".repeat(490) });
    await socket.nacked({ payload: "x".repeat(20) }, "STREAM_FULL");
    await socket.acked({ payload: "y".repeat(10) });
    expect(positionOf(await tail(url))).toBe(1000);
    await socket.close();
  });

  test("the largest body of a POST", async () => {
    const { url, socket } = await attached(TEXT_TYPE, { server: small.url });
    await socket.nacked({ payload: "x".repeat(601) }, "BODY_TOO_LARGE");
    await socket.nacked({ base64: base64("x".repeat(601)) }, "BODY_TOO_LARGE");
    await socket.acked({ payload: "x".repeat(600) });
    expect(positionOf(await tail(url))).toBe(600);
    await socket.close();
  });

  test("WS_UNACKED_MAX holds appends back and loses none", async () => {
    const { url, socket } = await attached(JSON_TYPE, { server: narrow.url });
    const answers = Array.from({ length: 1000 }, (_, n) => socket.append({ payload: n }));
    for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    for (const { kind, count = 1 } of socket.frames) {
      if (kind === "ack") expect(count).toBeLessThanOrEqual(2);
    }
    expect(await readMessages(url)).toEqual([...Array(1000).keys()]);
    await socket.close();
  });

  test("refused appends among those held back are answered in their turn as well", async () => {
    const { url, socket } = await attached(JSON_TYPE, { server: narrow.url });
    const isGood = (n) => n % 10 < 3;
    const numbers = [...Array(300).keys()];
    const append = (n) => socket.append(isGood(n) ? { payload: n } : { payload: n, close: "no" });
    const answers = await Promise.all(numbers.map(append));
    for (const [n, { ack, nack }] of answers.entries()) {
      if (isGood(n)) expect(ack).toBeDefined();
      else expect(nack.error.code).toBe("INVALID_APPEND");
    }
    expect(await readMessages(url)).toEqual(numbers.filter(isGood));
    await socket.close();
  });

  test("more than 8 MiB of unanswered appends end the socket, and a prefix is stored", async () => {
    const { url, socket } = await attached(TEXT_TYPE, { server: narrow.url });
    const witness = await SocketReader.open(url, "-1");
    const answers = [];
    for (let n = 0; n < 60; n += 1) {
      const payload = `<${n}>`.padEnd(1_000_000, "x");
      answers.push(socket.append({ payload }));
    }
    await socket.untilError("TOO_MANY_UNACKED", 1008);
    const got = await Promise.all(answers);
    const acked = got.filter(({ ack }) => ack !== undefined).length;
    expect(got.slice(0, acked).every(({ ack }) => ack !== undefined)).toBe(true);
    expect(got.slice(acked).every(({ isLost }) => isLost)).toBe(true);
    expect(acked).toBeLessThan(60);
    await witness.untilAt(await appended(url, "<end>", { type: TEXT_TYPE }), 30_000);
    const numbers = [...witness.text.matchAll(/<(\d+)>/g)].map(([, n]) => Number(n));
    expect(numbers.length).toBeGreaterThanOrEqual(acked);
    expect(numbers).toEqual([...Array(numbers.length).keys()]);
    await witness.close();
  });

  test("8 MiB at once are within it", async () => {
    const { url, socket } = await attached(TEXT_TYPE, { server: narrow.url });
    const payload = "x".repeat(MIB - 2000);
    const answers = Array.from({ length: 8 }, () => socket.append({ payload }));
    for (const { ack } of await Promise.all(answers)) expect(ack).toBeDefined();
    expect(positionOf(await tail(url))).toBe(8 * (MIB - 2000));
    await socket.close();
  });
});
