// What the service logs of a WebSocket: lines of JSON that name the connection, and no token.
import { afterAll, beforeAll, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  close,
  created,
  eventually,
  freshStream,
  randomBuffer,
  remove,
  seeded,
} from "./client.mjs";
import { logged } from "./cold.mjs";
import { Host } from "./host.mjs";
import { SUBPROTOCOL, SocketReader } from "./ws_client.mjs";
import { RawWebSocket } from "./ws_raw.mjs";

const TOKEN = "t0ken-that-nobody-logs";

let host;
beforeAll(async () => {
  host = await Host.start({ WS_FRAMES_PER_MINUTE: "5", SLOW_READER_TIMEOUT_MS: "1000" });
});
afterAll(() => host.stop());

async function stream(type = JSON_TYPE, body = "[1]") {
  const url = freshStream("ws-log", host.url);
  await created(url, { type, body });
  return url;
}

const markerOf = (url) => url.split("/").at(-1);

/** Events of a kind that are of a stream. */
const eventsOf = (url, event) =>
  logged(host, event).filter((line) => JSON.stringify(line).includes(markerOf(url)));

/** Waits for `count` events of a kind. */
const untilLogged = async (url, event, count = 1) => {
  await eventually(async () => eventsOf(url, event).length, (found) => found >= count);
  const events = eventsOf(url, event);
  expect(events, event).toHaveLength(count);
  return events;
};

const idOf = ({ connection }) => {
  expect(["string", "number"]).toContain(typeof connection);
  expect(String(connection)).not.toBe("");
  return connection;
};

const hasNumber = (line) => Object.values(line).some((value) => typeof value === "number");

test("ws_open and ws_close tell of one connection each, with reasons and counts", async () => {
  const url = await stream();
  const first = await SocketReader.open(url, "-1");
  const second = await SocketReader.open(url, "-1", { credit: 3 });
  for (const reader of [first, second]) await reader.untilUpToDate();
  const opened = (await untilLogged(url, "ws_open", 2)).map(idOf);
  expect(new Set(opened).size).toBe(2);
  await first.close();
  const [left] = await untilLogged(url, "ws_close");
  expect(opened).toContain(idOf(left));
  expect(left.reason).toMatch(/\S/);
  expect(hasNumber(left)).toBe(true);
  await close(url);
  await second.untilEnd();
  const closes = await untilLogged(url, "ws_close", 2);
  expect(new Set(closes.map(idOf))).toEqual(new Set(opened));
  expect(closes[1].reason).not.toBe(left.reason);
});

test("ws_credit tells of grants", async () => {
  const url = await stream();
  const reader = await SocketReader.open(url, "-1", { credit: 0 });
  reader.grant(7);
  await reader.untilUpToDate();
  await eventually(async () => eventsOf(url, "ws_credit").length, (found) => found > 0);
  const [opened] = eventsOf(url, "ws_open");
  for (const line of eventsOf(url, "ws_credit")) {
    expect(idOf(line)).toBe(idOf(opened));
    expect(hasNumber(line)).toBe(true);
  }
  await reader.close();
});

test("ws_limit and ws_close tell which rule was broken", async () => {
  const offences = {
    RATE_LIMITED: (reader) => {
      for (let n = 0; n < 6; n += 1) reader.grant(1);
    },
    MESSAGE_TOO_LARGE: (reader) => reader.send("x".repeat(2_000_000)),
  };
  for (const [code, offend] of Object.entries(offences)) {
    const url = await stream();
    const reader = await SocketReader.open(url, "-1");
    offend(reader);
    await reader.until(({ end }) => end !== undefined, "the close");
    expect(reader.error.code).toBe(code);
    const [opened] = await untilLogged(url, "ws_open");
    const [limit] = await untilLogged(url, "ws_limit");
    const [closed] = await untilLogged(url, "ws_close");
    expect(limit.reason).toBe(code);
    expect(closed.reason).toBe(code);
    expect([idOf(limit), idOf(closed)]).toEqual([idOf(opened), idOf(opened)]);
  }
});

test.each([
  ["INVALID_FRAME", async (reader) => reader.send("nonsense")],
  ["INVALID_CREDIT", async (reader) => reader.grant(-1)],
  ["STREAM_NOT_FOUND", async (_, url) => remove(url)],
])("ws_close gives %s as the reason of a socket that it ended", async (code, offend) => {
  const url = await stream();
  const reader = await SocketReader.open(url, "-1");
  await reader.untilUpToDate();
  await offend(reader, url);
  await reader.until(({ end }) => end !== undefined, "the close");
  const [closed] = await untilLogged(url, "ws_close");
  expect(closed.reason).toBe(code);
});

test("ws_backpressure tells of a reader that does not read", async () => {
  const url = await stream(BINARY_TYPE, "x");
  const raw = await RawWebSocket.open(url);
  raw.pause();
  const random = seeded(91);
  for (let n = 0; n < 40; n += 1) {
    await appended(url, randomBuffer(500_000, random), { type: BINARY_TYPE });
  }
  await eventually(async () => eventsOf(url, "ws_close").length, (found) => found === 1, 20_000);
  const [opened] = eventsOf(url, "ws_open");
  const pressed = eventsOf(url, "ws_backpressure");
  expect(pressed.length).toBeGreaterThan(0);
  // Once in a while, not with every attempt to send.
  expect(pressed.length).toBeLessThan(20);
  for (const line of pressed) {
    expect(idOf(line)).toBe(idOf(opened));
    expect(hasNumber(line)).toBe(true);
  }
  expect(eventsOf(url, "ws_close")[0].reason).toMatch(/\S/);
  raw.destroy();
});

test("a break-off is logged as a close as well, once", async () => {
  const url = await stream();
  const reader = await SocketReader.open(url, "-1");
  await reader.untilUpToDate();
  await reader.abandon("rst");
  await appended(url, "2");
  const [closed] = await untilLogged(url, "ws_close");
  expect(closed.reason).toMatch(/\S/);
});

test("no token is in any line", async () => {
  const url = await stream();
  const protocols = [SUBPROTOCOL, `bearer.${TOKEN}`];
  const query = { token: TOKEN };
  const reader = await SocketReader.open(url, "-1", { protocols, query });
  await reader.untilUpToDate();
  reader.send(`{"credit":"${TOKEN}"}`);
  await reader.until(({ end }) => end !== undefined, "the close");
  expect(JSON.stringify(reader.frames)).not.toContain(TOKEN);
  const other = await SocketReader.open(url, "-1", { protocols, query });
  await other.nacked({ payload: [] }, "EMPTY_ARRAY");
  await remove(url);
  await other.untilEnd(4404);
  await untilLogged(url, "ws_close", 2);
  expect(host.console).not.toContain(TOKEN);
});
