// Methods, preflights, and the headers that every answer carries.
import { describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  SERVER,
  append,
  ask,
  close,
  create,
  expectCommonHeaders,
  expectError,
  freshPath,
  freshStream,
  head,
  producer,
  read,
  remove,
} from "./client.mjs";
import { send } from "./raw_socket.mjs";

const METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

describe("methods", () => {
  test.each(["PATCH", "TRACE", "PROPFIND", "MKCOL", "LOCK", "PURGE"])(
    "%s is 405 and says what is allowed",
    async (method) => {
      const response = await send(SERVER, method, freshPath("methods"));
      expect(response.headers.get("allow")).toBe(METHODS);
      await expectError(response, 405, "METHOD_NOT_ALLOWED");
      const health = await send(SERVER, method, "/health");
      expect(health.headers.get("allow")).toBe("GET, HEAD, OPTIONS");
      await expectError(health, 405, "METHOD_NOT_ALLOWED");
    },
  );

  test("a preflight allows what the protocol needs", async () => {
    const response = await ask(freshStream("methods"), {
      method: "OPTIONS",
      headers: {
        origin: "https://example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, producer-id",
      },
    });
    expect(response.status).toBe(204);
    expectCommonHeaders(response.headers);
    expect(response.headers.get("access-control-allow-methods")).toBe(METHODS);
    const allowed = response.headers.get("access-control-allow-headers").split(/,\s*/);
    const needed = [
      "content-type",
      "authorization",
      "if-none-match",
      "stream-seq",
      "stream-ttl",
      "stream-expires-at",
      "stream-closed",
      "stream-forked-from",
      "stream-fork-offset",
      "stream-fork-sub-offset",
      "producer-id",
      "producer-epoch",
      "producer-seq",
    ];
    expect(needed.filter((name) => !allowed.includes(name))).toEqual([]);
    expect(Number(response.headers.get("access-control-max-age"))).toBeGreaterThan(0);
  });

  test("every header of the protocol is exposed", async () => {
    const response = await ask(`${SERVER}/health`);
    const exposed = response.headers.get("access-control-expose-headers").split(/,\s*/);
    const needed = [
      "stream-next-offset",
      "stream-cursor",
      "stream-up-to-date",
      "stream-closed",
      "stream-ttl",
      "stream-expires-at",
      "stream-sse-data-encoding",
      "producer-epoch",
      "producer-seq",
      "producer-expected-seq",
      "producer-received-seq",
      "etag",
      "location",
      "retry-after",
    ];
    expect(needed.filter((name) => !exposed.includes(name))).toEqual([]);
  });
});

describe("every success", () => {
  test("carries the headers of every response", async () => {
    const url = freshStream("methods");
    const aborter = new AbortController();
    const { signal } = aborter;
    const requests = [
      () => create(url, { type: JSON_TYPE, body: "[1]" }),
      () => create(url, { type: JSON_TYPE }),
      () => append(url, "2"),
      () => append(url, "3", producer("p", 0, 0)),
      () => append(url, "3", producer("p", 0, 0)),
      () => read(url, "-1"),
      () => read(url, "now"),
      () => read(url, "-1", { "if-none-match": "*" }),
      () => read(url, "-1", { live: "long-poll" }),
      () => read(url, "-1", { live: "sse", signal }),
      () => head(url),
      () => close(url),
      () => read(url, "now", { live: "long-poll" }),
      () => remove(url),
      () => ask(`${SERVER}/health`),
      () => ask(url, { method: "OPTIONS" }),
    ];
    for (const request of requests) {
      const response = await request();
      expect(response.status).toBeLessThan(400);
      expectCommonHeaders(response.headers);
    }
    aborter.abort();
  });
});
