// The plug is pulled while sockets append and read: what was acknowledged is there, and nothing is
// there twice when producers send again what was not answered.
import { afterAll, beforeAll, expect, test } from "vitest";

import { JSON_TYPE, created, freshStream, readMessages, seeded, sleep, tail } from "./client.mjs";
import { Host } from "./host.mjs";
import { SocketReader } from "./ws_client.mjs";

const CRASHES = 3;
const WRITERS = 6;
const WINDOW = 40;

let host;
beforeAll(async () => {
  host = await Host.start();
});
afterAll(() => host.stop());

/** A socket, as soon as the server is there. */
async function reconnect(url, offset, options) {
  for (;;) {
    try {
      return await SocketReader.open(url, offset, options);
    } catch {
      await sleep(20);
    }
  }
}

async function crashRepeatedly(random) {
  for (let crash = 0; crash < CRASHES; crash += 1) {
    await sleep(400 + random() * 600);
    await host.restart();
  }
  await sleep(400);
}

test("acknowledged appends survive, and none is stored twice", { timeout: 120_000 }, async () => {
  const url = freshStream("ws-crashes", host.url);
  await created(url, { type: JSON_TYPE });
  let isRunning = true;
  const write = async (by) => {
    let acked = 0;
    let breaks = 0;
    for (;;) {
      const socket = await reconnect(url, "now", { credit: 0 });
      let next = acked;
      const pending = [];
      while (socket.end === undefined && (isRunning || acked < next)) {
        while (isRunning && next < acked + WINDOW) {
          const seq = next;
          next += 1;
          const producer = { id: `p${by}`, epoch: 0, seq };
          const answer = socket.append({ payload: { by, seq }, producer }).then(({ ack, nack }) => {
            // A gap would be an acknowledged append that is gone.
            expect(nack, `nack of ${seq}`).toBeUndefined();
            if (ack !== undefined) acked = Math.max(acked, seq + 1);
          });
          pending.push(answer);
        }
        await sleep(2);
      }
      if (socket.end === undefined) await socket.close();
      else breaks += 1;
      await Promise.all(pending);
      if (!isRunning) return { acked, breaks };
    }
  };
  const writers = Array.from({ length: WRITERS }, (_, by) => write(by));
  await crashRepeatedly(seeded(71));
  isRunning = false;
  const results = await Promise.all(writers);
  await host.restart();
  const messages = await readMessages(url);
  for (const [by, { acked, breaks }] of results.entries()) {
    const own = messages.filter((message) => message.by === by).map(({ seq }) => seq);
    expect(own).toEqual([...Array(own.length).keys()]);
    expect(own.length).toBeGreaterThanOrEqual(acked);
    expect(acked, "something was written").toBeGreaterThan(50);
    expect(breaks, "the socket broke").toBeGreaterThan(0);
  }
});

test("readers come back with their offset and miss nothing", { timeout: 60_000 }, async () => {
  const url = freshStream("ws-crashes", host.url);
  await created(url, { type: JSON_TYPE });
  const got = [];
  let offset = "-1";
  for (let crash = 0; crash < CRASHES; crash += 1) {
    const reader = await reconnect(url, offset);
    for (let n = 0; n < 50; n += 1) reader.append({ payload: { crash, n } });
    await reader.until(({ unanswered }) => unanswered === 0, "the acks");
    await reader.untilAt(await tail(url));
    await host.restart();
    await reader.done;
    got.push(...reader.messages);
    ({ offset } = reader);
  }
  expect(got).toEqual(await readMessages(url));
  expect(got).toHaveLength(CRASHES * 50);
});
