// Bodies that do not come: the request is refused, nothing is appended, and the stream goes on.
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { appended, created, freshPath, nextOffset } from "./client.mjs";
import { Host } from "./host.mjs";
import { exchange, open, requestHead } from "./raw_socket.mjs";

const TEXT = "text/plain";
const TIMEOUT_MS = 300;

let host;
beforeAll(async () => {
  host = await Host.start({ BODY_TIMEOUT_MS: String(TIMEOUT_MS) });
});
afterAll(() => host.stop());

const CHUNKED = { "transfer-encoding": "chunked" };
const LARGE = { "content-length": "100000" };

describe("a body that stops coming is 408, and nothing of it is kept", () => {
  test.for([
    ["a chunked append", "POST", CHUNKED, "3\r\nabc\r\n"],
    ["a chunked append without a first byte", "POST", CHUNKED, ""],
    ["an append of announced length", "POST", LARGE, "abc"],
    ["a creation", "PUT", CHUNKED, "3\r\nabc\r\n"],
  ])("%s", async ([, method, headers, part]) => {
    const path = freshPath("slow");
    const url = host.url + path;
    const tail = method === "POST" ? await created(url, { type: TEXT }) : undefined;
    const began = performance.now();
    const head = requestHead(method, path, { "content-type": TEXT, ...headers });
    const answer = await exchange(host.url, [head, part]);
    expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([408, "REQUEST_TIMEOUT"]);
    expect(performance.now() - began).toBeGreaterThan(TIMEOUT_MS - 50);
    const now = await fetch(url, { method: "HEAD" });
    expect(now.status).toBe(method === "POST" ? 200 : 404);
    if (method === "POST") {
      expect(nextOffset(now)).toBe(tail);
      await appended(url, "next", { type: TEXT });
    }
  });
});

test("a body gets more time as it comes", async () => {
  const path = freshPath("slow");
  await created(host.url + path, { type: TEXT });
  const head = requestHead("POST", path, { "content-type": TEXT, ...CHUNKED, connection: "close" });
  const socket = await open(host.url);
  let answer = "";
  socket.on("data", (bytes) => (answer += bytes));
  socket.write(head);
  const piece = `${(8192).toString(16)}\r\n${"a".repeat(8192)}\r\n`;
  for (let sent = 0; sent < 6; sent += 1) {
    socket.write(piece);
    await new Promise((done) => setTimeout(done, 100));
  }
  socket.write("0\r\n\r\n");
  await new Promise((done) => socket.once("close", done));
  expect(answer).toMatch(/^HTTP\/1.1 204 /);
  expect(answer).toMatch(/stream-next-offset: \d{16}_0000000000049152/i);
});
