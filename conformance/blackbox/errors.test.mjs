// Every error code that a client can meet: its status, its form, and what it leaves behind.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  append,
  appended,
  ask,
  expectError,
  moved,
  nextOffset,
  producer,
  read,
  tail,
} from "./client.mjs";
import { ERRORS, closedStream, hosts, jsonStream, startHosts, stopHosts } from "./error_cases.mjs";

beforeAll(startHosts);
afterAll(stopHosts);

// Codes that no request is known to provoke.
const UNREACHABLE = ["STORAGE_FAILED", "INTERNAL"];
// One takes a while (fork_chain.test.mjs), one is a matter of timing (groups.test.mjs), and one
// takes a damaged disk (segments_damage.test.mjs).
const TESTED_ELSEWHERE = ["FORK_TOO_DEEP", "UNAVAILABLE", "SEGMENT_CORRUPT"];
// Told over a socket that is open (ws_frames.test.mjs, ws_refusals.test.mjs).
const OF_SOCKETS = [
  "INVALID_FRAME",
  "INVALID_APPEND",
  "MESSAGE_TOO_LARGE",
  "RATE_LIMITED",
  "TOO_MANY_UNACKED",
];
// Of projects, tokens and admission (auth_matrix, projects, limits, slow_bodies).
const OF_THE_EDGE = [
  "FORBIDDEN",
  "INVALID_BODY",
  "PROJECT_NOT_FOUND",
  "PROJECT_EXISTS",
  "SECRET_NOT_FOUND",
  "LAST_SECRET",
  "TOO_MANY_SECRETS",
  "HEADERS_TOO_LARGE",
  "REQUEST_TIMEOUT",
];

test("every code of the list is here", () => {
  const source = new URL("../../crates/protocol/src/error.rs", import.meta.url);
  const entries = readFileSync(source, "utf8").matchAll(/^ {4}\w+ "([A-Z_]+)" (\d{3})$/gm);
  const listed = new Map([...entries].map(([, code, status]) => [code, Number(status)]));
  expect(listed.size).toBeGreaterThan(35);
  for (const code of [
    ...UNREACHABLE,
    ...TESTED_ELSEWHERE,
    ...OF_SOCKETS,
    ...OF_THE_EDGE,
  ]) {
    expect(listed.delete(code), code).toBe(true);
  }
  const tested = new Map(Object.entries(ERRORS).map(([code, [status]]) => [code, status]));
  expect(tested).toEqual(listed);
});

describe.each(Object.entries(ERRORS))("%s", (code, [status, requests]) => {
  test.each(requests)("%s", async (_, request) => {
    await expectError(await request(), status, code);
  });
});

describe("an error tells programs", () => {
  test("which epoch is current", async () => {
    const url = await jsonStream();
    await appended(url, "1", producer("p", 7, 0));
    const response = await append(url, "2", producer("p", 6, 9));
    expect(response.headers.get("producer-epoch")).toBe("7");
    expect((await expectError(response, 403, "STALE_EPOCH")).details).toEqual({ currentEpoch: 7 });
  });

  test("which sequence number is expected", async () => {
    const url = await jsonStream();
    await appended(url, "1", producer("p", 0, 0));
    const response = await append(url, "2", producer("p", 0, 5));
    expect(response.headers.get("producer-expected-seq")).toBe("1");
    expect(response.headers.get("producer-received-seq")).toBe("5");
    const { details } = await expectError(response, 409, "PRODUCER_GAP");
    expect(details).toEqual({ expectedSeq: 1, receivedSeq: 5 });
  });

  test("where a closed stream ends", async () => {
    const url = await closedStream();
    const response = await append(url, "1");
    expect(response.headers.get("stream-closed")).toBe("true");
    expect(nextOffset(response)).toBe(await tail(url));
  });

  test("where the tail is", async () => {
    const url = await jsonStream(1);
    const response = await read(url, moved(await tail(url), 9));
    const { details } = await expectError(response, 400, "OFFSET_BEYOND_TAIL");
    expect(details).toEqual({ tail: await tail(url) });
  });

  test("which content type is right", async () => {
    const response = await append(await jsonStream(), "x", { type: "text/plain" });
    const { details } = await expectError(response, 409, "CONTENT_TYPE_MISMATCH");
    expect(details).toEqual({ expected: JSON_TYPE });
  });

  test("which variable is wrong", async () => {
    const response = await ask(`${hosts.badVariable.url}/health`);
    const { message } = await expectError(response, 500, "MISCONFIGURED");
    expect(message).toContain("READERS_MAX");
  });

  test("when to ask again", async () => {
    const [, requests] = ERRORS.TOO_MANY_READERS;
    for (const [, request] of requests) {
      const response = await request();
      expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    }
  });
});
