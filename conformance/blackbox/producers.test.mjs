// Idempotent producers: each tuple once, across repetition, concurrency and a killed host.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  append,
  appended,
  close,
  created,
  expectError,
  freshStream,
  head,
  nextOffset,
  producer,
  readBytes,
  readMessages,
  remove,
  seeded,
  sleep,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";

async function jsonStream(server) {
  const url = freshStream("producers", server);
  await created(url, { type: JSON_TYPE });
  return url;
}

const send = (url, id, epoch, seq, body = JSON.stringify({ id, epoch, seq }), headers = {}) =>
  append(url, body, { ...producer(id, epoch, seq), ...headers });

/** An answer in short: status, and the tuple that it names. */
function short(response) {
  const [epoch, seq] = ["producer-epoch", "producer-seq"].map((name) => response.headers.get(name));
  return [response.status, epoch, seq].filter((part) => part !== null).join(" ");
}

describe("a producer", () => {
  test("is answered 200 for what is new, 204 for what is not, and its highest tuple", async () => {
    const url = await jsonStream();
    expect(short(await send(url, "p", 0, 0))).toBe("200 0 0");
    expect(short(await send(url, "p", 0, 1))).toBe("200 0 1");
    expect(short(await send(url, "p", 0, 2))).toBe("200 0 2");
    for (const seq of [0, 1, 2]) {
      const response = await send(url, "p", 0, seq, '"another body"');
      expect(short(response)).toBe("204 0 2");
      expect(nextOffset(response)).toBe(await tail(url));
    }
    expect((await readMessages(url)).map(({ seq }) => seq)).toEqual([0, 1, 2]);
  });

  test("begins at sequence 0, in any epoch", async () => {
    const url = await jsonStream();
    await expectError(await send(url, "p", 0, 1), 409, "PRODUCER_GAP");
    expect(short(await send(url, "p", 7, 0))).toBe("200 7 0");
    await expectError(await send(url, "p", 8, 1), 400, "EPOCH_START");
    await expectError(await send(url, "p", 6, 0), 403, "STALE_EPOCH");
    await expectError(await send(url, "p", 7, 2), 409, "PRODUCER_GAP");
    expect(short(await send(url, "p", 9, 0))).toBe("200 9 0");
    await expectError(await send(url, "p", 7, 1), 403, "STALE_EPOCH");
    expect(await readMessages(url)).toHaveLength(2);
  });

  test("may use the whole range of numbers and of characters", async () => {
    const url = await jsonStream();
    const last = Number.MAX_SAFE_INTEGER;
    const id = Array.from({ length: 94 }, (_, at) => String.fromCharCode(33 + at)).join("");
    expect(short(await send(url, id, last, 0))).toBe(`200 ${last} 0`);
    expect(short(await send(url, id, last, 1))).toBe(`200 ${last} 1`);
    expect(short(await send(url, id, last, 1))).toBe(`204 ${last} 1`);
    expect(short(await send(url, "i".repeat(256), 0, 0))).toBe("200 0 0");
  });

  test("is told from another whose id differs by case or one character", async () => {
    const url = await jsonStream();
    for (const id of ["p", "P", "pp", "p.", "0", "00"]) {
      expect(short(await send(url, id, 0, 0))).toBe("200 0 0");
    }
    expect(await readMessages(url)).toHaveLength(6);
  });

  test("is known on its own stream only", async () => {
    const [one, two] = [await jsonStream(), await jsonStream()];
    expect(short(await send(one, "p", 3, 0))).toBe("200 3 0");
    expect(short(await send(two, "p", 0, 0))).toBe("200 0 0");
  });

  test("does not mind appends without producer in between", async () => {
    const url = await jsonStream();
    expect(short(await send(url, "p", 0, 0))).toBe("200 0 0");
    await appended(url, "1");
    expect(short(await send(url, "p", 0, 1))).toBe("200 0 1");
    await appended(url, "2");
    expect(short(await send(url, "p", 0, 1))).toBe("204 0 1");
    expect(await readMessages(url)).toHaveLength(4);
  });
});

describe("requests side by side", () => {
  test("with one tuple are stored once", async () => {
    const url = await jsonStream();
    for (let seq = 0; seq < 20; seq += 1) {
      const answers = await Promise.all(Array.from({ length: 8 }, () => send(url, "p", 0, seq)));
      const statuses = answers.map((answer) => answer.status).sort();
      expect(statuses).toEqual([200, ...Array(7).fill(204)]);
      expect(new Set(answers.map(nextOffset)).size).toBe(1);
    }
    expect((await readMessages(url)).map(({ seq }) => seq)).toEqual([...Array(20).keys()]);
  });

  test("with tuples in any order end up in order, once each", async () => {
    const url = await jsonStream();
    const total = 60;
    const random = seeded(5);
    // Like a pipelining client: a gap is answered 409, and sent again.
    const deliver = async (seq) => {
      for (;;) {
        await sleep(random() * 20);
        const response = await send(url, "p", 0, seq);
        if (response.status !== 409) return expect(short(response).slice(0, 3)).toBe("200");
        const expected = Number(response.headers.get("producer-expected-seq"));
        expect(expected).toBeLessThan(seq);
      }
    };
    await Promise.all(Array.from({ length: total }, (_, seq) => deliver(seq)));
    expect((await readMessages(url)).map(({ seq }) => seq)).toEqual([...Array(total).keys()]);
  });

  test("of many producers keep each one's order", async () => {
    const url = await jsonStream();
    const run = async (id) => {
      for (let seq = 0; seq < 25; seq += 1) {
        expect(short(await send(url, id, 0, seq))).toBe(`200 0 ${seq}`);
        if (seq % 5 === 0) expect(short(await send(url, id, 0, seq))).toBe(`204 0 ${seq}`);
      }
    };
    const ids = Array.from({ length: 24 }, (_, n) => `producer-${n}`);
    await Promise.all(ids.map(run));
    const messages = await readMessages(url);
    expect(messages).toHaveLength(24 * 25);
    for (const id of ids) {
      const own = messages.filter((message) => message.id === id);
      expect(own.map(({ seq }) => seq)).toEqual([...Array(25).keys()]);
    }
  });

  test("of an old and a new epoch never mix", async () => {
    const url = await jsonStream();
    const run = async (epoch) => {
      for (let seq = 0; ; seq += 1) {
        const response = await send(url, "p", epoch, seq);
        if (response.status === 403) return seq;
        expect(short(response)).toBe(`200 ${epoch} ${seq}`);
        if (epoch === 5 && seq === 20) return seq;
      }
    };
    const runs = [];
    for (let epoch = 0; epoch <= 5; epoch += 1) {
      runs.push(run(epoch));
      await sleep(30);
    }
    await Promise.all(runs);
    const epochs = (await readMessages(url)).map(({ epoch }) => epoch);
    expect(epochs).toEqual([...epochs].sort());
    expect(new Set(epochs).size).toBe(6);
  });
});

describe("a closing producer", () => {
  test("may repeat the append that closed", async () => {
    const url = await jsonStream();
    const last = { "stream-closed": "true" };
    await send(url, "p", 0, 0);
    const closing = await send(url, "p", 0, 1, '"end"', last);
    expect(short(closing)).toBe("200 0 1");
    expect(closing.headers.get("stream-closed")).toBe("true");
    for (const headers of [last, {}]) {
      const again = await send(url, "p", 0, 1, '"end"', headers);
      expect(short(again)).toBe("204 0 1");
      expect(again.headers.get("stream-closed")).toBe("true");
      expect(nextOffset(again)).toBe(nextOffset(closing));
    }
    // An earlier one was stored as well: that comes before the closed stream.
    expect(short(await send(url, "p", 0, 0))).toBe("204 0 1");
    for (const [id, epoch, seq] of [["p", 0, 2], ["p", 1, 0], ["q", 0, 0]]) {
      const late = await send(url, id, epoch, seq, '"late"', last);
      expect(late.headers.get("stream-closed")).toBe("true");
      await expectError(late, 409, "STREAM_CLOSED");
    }
    await expectError(await send(url, "p", 0, 1, '"end"', { ...last, "producer-epoch": "-1" }),
      400, "INVALID_PRODUCER");
    expect(await readMessages(url)).toHaveLength(2);
  });

  test("may repeat a close without data", async () => {
    const url = await jsonStream();
    await send(url, "p", 0, 0);
    for (let attempt = 0; attempt < 3; attempt += 1) {
      const response = await close(url, producer("p", 0, 1));
      expect(response.status).toBe(204);
      expect(response.headers.get("stream-closed")).toBe("true");
    }
    await expectError(await close(url, producer("p", 0, 2)), 409, "STREAM_CLOSED");
    // Without producer, a close of what is closed says what is true.
    expect((await close(url)).status).toBe(204);
  });
});

describe("a fork", () => {
  test("knows no producer of its source, and the source keeps its own", async () => {
    const source = await jsonStream();
    await send(source, "p", 4, 0);
    const fork = freshStream("producers");
    await created(fork, { "stream-forked-from": new URL(source).pathname });
    expect(short(await send(fork, "p", 0, 0))).toBe("200 0 0");
    expect(short(await send(source, "p", 4, 0))).toBe("204 4 0");
    expect(short(await send(source, "p", 4, 1))).toBe("200 4 1");
    expect(await readMessages(fork)).toHaveLength(2);
  });
});

describe("a killed host", () => {
  let host;
  beforeAll(async () => {
    host = await Host.start();
  });
  afterAll(() => host.stop());

  test("forgets no tuple, epoch, sequence or close", async () => {
    const url = await jsonStream(host.url);
    const closed = await jsonStream(host.url);
    const closedBy = await jsonStream(host.url);
    const deleted = await jsonStream(host.url);
    for (let n = 0; n < 20; n += 1) {
      await send(url, `p${n}`, n, 0);
      await send(url, `p${n}`, n, 1);
    }
    await appended(url, '"seq"', { "stream-seq": "m" });
    await close(closed);
    await send(closedBy, "p", 0, 0, '"end"', { "stream-closed": "true" });
    await send(deleted, "p", 9, 0);
    await remove(deleted);
    const before = await tail(url);

    await host.restart();
    expect(await tail(url)).toBe(before);
    for (let n = 0; n < 20; n += 1) {
      expect(short(await send(url, `p${n}`, n, 1))).toBe(`204 ${n} 1`);
      if (n > 0) await expectError(await send(url, `p${n}`, n - 1, 0), 403, "STALE_EPOCH");
      await expectError(await send(url, `p${n}`, n, 3), 409, "PRODUCER_GAP");
      await expectError(await send(url, `p${n}`, n + 1, 1), 400, "EPOCH_START");
    }
    const low = await append(url, "1", { "stream-seq": "m" });
    await expectError(low, 409, "STREAM_SEQ_CONFLICT");
    expect(await tail(url)).toBe(before);
    expect(short(await send(url, "p3", 3, 2))).toBe("200 3 2");
    await expectError(await append(closed, "1"), 409, "STREAM_CLOSED");
    const again = await send(closedBy, "p", 0, 0, '"end"', { "stream-closed": "true" });
    expect(short(again)).toBe("204 0 0");
    expect(await readMessages(closedBy)).toEqual(["end"]);
    expect((await head(deleted)).status).toBe(404);
    await created(deleted, { type: JSON_TYPE });
    expect(short(await send(deleted, "p", 0, 0))).toBe("200 0 0");
  });

  test("makes nothing twice when everything unanswered is sent again", async () => {
    const url = freshStream("producers", host.url);
    await created(url, { type: BINARY_TYPE });
    const ids = Array.from({ length: 12 }, (_, n) => `p${n}`);
    const answered = new Map(ids.map((id) => [id, 0]));
    let duplicates = 0;
    const total = 120;
    const run = async (id) => {
      for (let seq = 0; seq < total; seq += 1) {
        const body = `${id}:${seq};`;
        for (;;) {
          try {
            const response = await send(url, id, 0, seq, body, { type: BINARY_TYPE });
            expect([200, 204]).toContain(response.status);
            if (response.status === 204) duplicates += 1;
            break;
          } catch (error) {
            // No connection: that is what this test is about.
            if (!(error instanceof TypeError)) throw error;
            await sleep(20);
          }
        }
        answered.set(id, seq + 1);
      }
    };
    const kill = async () => {
      for (let round = 1; round <= 3; round += 1) {
        const reached = () => [...answered.values()].reduce((a, b) => a + b);
        while (reached() < (round * ids.length * total) / 4) await sleep(2);
        await host.restart();
      }
    };
    await Promise.all([kill(), ...ids.map(run)]);
    const tokens = (await readBytes(url)).toString().split(";").slice(0, -1);
    expect(tokens).toHaveLength(ids.length * total);
    for (const id of ids) {
      const own = tokens.filter((token) => token.startsWith(`${id}:`));
      expect(own).toEqual(Array.from({ length: total }, (_, seq) => `${id}:${seq}`));
    }
    expect(duplicates).toBeLessThan(ids.length * 4);
  });
});
