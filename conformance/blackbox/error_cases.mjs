// Requests that meet each error code of the service.
import { expect } from "vitest";

import {
  BINARY_TYPE,
  BODY_BYTES_MAX,
  JSON_TYPE,
  SERVER,
  append,
  appended,
  ask,
  close,
  create,
  created,
  freshPath,
  freshStream,
  moved,
  producer,
  read,
  remove,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { exchange, requestHead } from "./raw_socket.mjs";
import { freshSession, sessionErrors, subscribe } from "./session_errors.mjs";
import { refusal, socketUrl } from "./ws_client.mjs";

const pathOf = (url) => new URL(url).pathname;

export async function jsonStream(...messages) {
  const url = freshStream("errors");
  await created(url, { type: JSON_TYPE, body: JSON.stringify(messages) });
  return url;
}

async function binaryStream(body) {
  const url = freshStream("errors");
  await created(url, { type: BINARY_TYPE, body });
  return url;
}

export async function closedStream() {
  const url = await jsonStream(1);
  expect((await close(url)).status).toBe(204);
  return url;
}

/** A deleted stream that a fork still holds. */
async function heldStream() {
  const url = await jsonStream(1);
  await created(freshStream("errors"), { "stream-forked-from": pathOf(url) });
  expect((await remove(url)).status).toBe(204);
  return url;
}

const forkOf = (url, headers) =>
  create(freshStream("errors"), { "stream-forked-from": pathOf(url), ...headers });

/** A stream that was created again, and an offset of its earlier life. */
async function recreated(type = JSON_TYPE) {
  const url = freshStream("errors");
  const offset = await created(url, { type, body: type === JSON_TYPE ? "[1,2,3]" : "abc" });
  await remove(url);
  await created(url, { type, body: type === JSON_TYPE ? "[4,5,6,7]" : "defgh" });
  return [url, offset];
}

/**
 * Hosts with variables of their own: a quota of one stream's bytes, few readers, and two that are
 * misconfigured.
 */
export const hosts = {};

export async function startHosts() {
  const variables = {
    small: { STREAM_BYTES_MAX: "1000", READERS_MAX: "1", BODY_BYTES_MAX: "100000" },
    lonely: { SESSION_SUBSCRIPTIONS_MAX: "1", SHARD_MEMBERS_MAX: "1", SHARDS_MAX: "1" },
    badVariable: { READERS_MAX: "many" },
    badAuth: { AUTH: "sometimes" },
  };
  const start = async ([name, vars]) => (hosts[name] = await Host.start(vars));
  await Promise.all(Object.entries(variables).map(start));
}

export function stopHosts() {
  return Promise.all(Object.values(hosts).map((host) => host.stop()));
}

/** Asks while the only reader's place is taken. */
async function whileRead(server, ask) {
  const url = freshStream("errors", server);
  await created(url, { type: JSON_TYPE });
  const aborter = new AbortController();
  const { signal } = aborter;
  const reader = await read(url, "-1", { live: "sse", signal });
  expect(reader.status).toBe(200);
  try {
    return await ask(url);
  } finally {
    aborter.abort();
  }
}

/** Code, status, and requests that meet it: `[what, request]`. */
export const ERRORS = {
  INVALID_PATH: [400, [["an empty path", () => ask(`${SERVER}/v1/p/stream/`)]]],
  INVALID_PROJECT: [400, [["a dot", () => ask(`${SERVER}/v1/a.b/stream/x`)]]],
  ROUTE_NOT_FOUND: [
    404,
    [
      ["the root", () => ask(SERVER)],
      ["a stream root", () => ask(`${SERVER}/v1/p/stream`)],
      ["a stream root, with POST", () => append(`${SERVER}/v1/stream`, "1")],
      ["what objects say to each other", () => ask(`${SERVER}/internal/copy?source=1`)],
    ],
  ],
  METHOD_NOT_ALLOWED: [
    405,
    [
      ["PATCH of a stream", () => ask(freshStream("errors"), { method: "PATCH" })],
      ["POST to /health", () => ask(`${SERVER}/health`, { method: "POST" })],
    ],
  ],
  RESERVED: [
    403,
    [
      ["PUT of a session", () => create(`${SERVER}/v1/p/stream/session/x`)],
      ["POST to a session", () => append(`${SERVER}/v1/p/stream/session/x`, "1")],
      ["DELETE of a session", () => remove(`${SERVER}/v1/p/stream/session/x`)],
      ["PUT below __ds", () => create(`${SERVER}/v1/stream/__ds/x`)],
      ["PUT of __ds", () => create(`${SERVER}/v1/p/stream/__ds`)],
      ["publishing below __ds", () => append(`${SERVER}/v1/p/publish/__ds/x`, "1")],
      ["subscribing to __ds", () => subscribe(freshSession(), "__ds/x")],
    ],
  ],
  UNAUTHORIZED: [
    401,
    [
      ["an anonymous GET of a stream that is not public", async () =>
        read(await jsonStream(1), "-1", { "x-durable-streams-audience": "anonymous" })],
      ["an anonymous POST", async () =>
        append(await jsonStream(), "1", { "x-durable-streams-audience": "anonymous" })],
    ],
  ],
  STREAM_NOT_FOUND: [
    404,
    [
      ["GET", () => read(freshStream("errors"), "-1")],
      ["GET with a malformed query", () => read(freshStream("errors"), "what")],
      ["POST", () => append(freshStream("errors"), "1")],
      ["POST with malformed headers", () =>
        append(freshStream("errors"), "1", { "producer-id": "p" })],
      ["DELETE", () => remove(freshStream("errors"))],
      ["long-poll", () => read(freshStream("errors"), "-1", { live: "long-poll" })],
      ["SSE", () => read(freshStream("errors"), "-1", { live: "sse" })],
      ["an expired stream", async () => {
        const url = freshStream("errors");
        await created(url, { "stream-ttl": "0" });
        return read(url, "-1");
      }],
      ["a stream that expired long ago", async () => {
        const url = freshStream("errors");
        await created(url, { "stream-expires-at": "2001-01-01T00:00:00Z" });
        return append(url, "1", { type: BINARY_TYPE });
      }],
    ],
  ],
  STREAM_GONE: [
    410,
    [
      ["GET", async () => read(await heldStream(), "-1")],
      ["POST", async () => append(await heldStream(), "1")],
      ["DELETE", async () => remove(await heldStream())],
      ["long-poll", async () => read(await heldStream(), "-1", { live: "long-poll" })],
      ["SSE", async () => read(await heldStream(), "-1", { live: "sse" })],
    ],
  ],
  STREAM_EXISTS: [
    409,
    [
      ["another content type", async () => create(await jsonStream(), { type: "text/plain" })],
      ["another lifetime", async () =>
        create(await jsonStream(), { type: JSON_TYPE, "stream-ttl": "60" })],
      ["open instead of closed", async () => create(await closedStream(), { type: JSON_TYPE })],
      ["closed instead of open", async () =>
        create(await jsonStream(), { type: JSON_TYPE, "stream-closed": "true" })],
      ["public instead of private", async () =>
        create(await jsonStream(), { type: JSON_TYPE, "stream-public": "true" })],
      ["a fork instead of a stream of its own", async () =>
        create(await jsonStream(), { "stream-forked-from": pathOf(await jsonStream(1)) })],
      ["a deleted stream that forks hold", async () =>
        create(await heldStream(), { type: JSON_TYPE })],
    ],
  ],
  INVALID_OFFSET: [
    400,
    [
      ...["", "0", "-2", "NOW", "now%20", "1_2", "x".repeat(33), "%2D%31x"].map((offset) => [
        JSON.stringify(offset),
        async () => ask(`${await jsonStream(1)}?offset=${offset}`),
      ]),
      ["inside a JSON message", async () => {
        const url = await jsonStream("message", "message");
        return read(url, moved(await tail(url), -3));
      }],
      ["inside a JSON message, long-poll", async () => {
        const url = await jsonStream("message", "message");
        return read(url, moved(await tail(url), -3), { live: "long-poll" });
      }],
      ["inside a JSON message, SSE", async () => {
        const url = await jsonStream("message", "message");
        return read(url, moved(await tail(url), -3), { live: "sse" });
      }],
      ["of a life that has not been", async () => {
        const url = await jsonStream("message");
        const [, position] = (await tail(url)).split("_");
        return read(url, `9999999999999999_${position}`);
      }],
      ["a fork's", async () => forkOf(await jsonStream(1), { "stream-fork-offset": "what" })],
      ["a fork's, inside a JSON message", async () => {
        const url = await jsonStream("message", "message");
        return forkOf(url, { "stream-fork-offset": moved(await tail(url), -3) });
      }],
    ],
  ],
  STALE_OFFSET: [
    400,
    [
      ["GET", async () => read(...(await recreated()))],
      ["GET of bytes", async () => read(...(await recreated(BINARY_TYPE)))],
      ["long-poll", async () => read(...(await recreated()), { live: "long-poll" })],
      ["SSE", async () => read(...(await recreated()), { live: "sse" })],
      ["position 0 of the earlier life", async () => {
        const [url, offset] = await recreated();
        return read(url, moved(offset, -Number(offset.split("_")[1])));
      }],
      ["past the tail of both lives", async () => {
        const [url, offset] = await recreated();
        return read(url, moved(offset, 1000));
      }],
      ["a fork's", async () => {
        const [url, offset] = await recreated();
        return forkOf(url, { "stream-fork-offset": offset });
      }],
      ["the source's own, past the fork point", async () => {
        const source = await jsonStream(1, 2);
        const fork = freshStream("errors");
        await created(fork, { "stream-forked-from": pathOf(source) });
        const offset = await appended(source, "3");
        await appended(fork, "4444");
        return read(fork, offset);
      }],
    ],
  ],
  OFFSET_BEYOND_TAIL: [
    400,
    [
      ["JSON, by one", async () => {
        const url = await jsonStream(1);
        return read(url, moved(await tail(url), 1));
      }],
      ["bytes, by two", async () => {
        const url = await binaryStream("x");
        return read(url, moved(await tail(url), 2));
      }],
      ["the largest position", async () => {
        const url = await binaryStream("x");
        return read(url, `${(await tail(url)).split("_")[0]}_9999999999999999`);
      }],
      ["long-poll", async () => {
        const url = await jsonStream(1);
        return read(url, moved(await tail(url), 2), { live: "long-poll" });
      }],
      ["SSE", async () => {
        const url = await jsonStream(1);
        return read(url, moved(await tail(url), 2), { live: "sse" });
      }],
    ],
  ],
  INVALID_QUERY: [
    400,
    [
      ["an unknown mode", async () => read(await jsonStream(), "-1", { live: "telepathy" })],
      ["a live read without offset", async () => read(await jsonStream(), undefined, {
        live: "sse",
      })],
      ["an offset that stands twice", async () =>
        ask(`${await jsonStream()}?offset=-1&offset=-1`)],
      ["an escape that is none", async () => ask(`${await jsonStream()}?offset=%2`)],
      ["no UTF-8", async () => ask(`${await jsonStream()}?offset=-1&live=%FF`)],
      ["a mode that stands twice", async () =>
        ask(`${await jsonStream()}?offset=-1&live=sse&live=long-poll`)],
    ],
  ],
  INVALID_HEADER: [
    400,
    [
      ["a Stream-Seq that is too long", async () =>
        append(await jsonStream(), "1", { "stream-seq": "9".repeat(257) })],
      ["a fork offset without a source", () =>
        create(freshStream("errors"), { "stream-fork-offset": "-1" })],
      ["a fork sub-offset without a source", () =>
        create(freshStream("errors"), { "stream-fork-sub-offset": "1" })],
      ["a source that is no stream", () =>
        create(freshStream("errors"), { "stream-forked-from": "/health" })],
      ["a source that is a whole URL", async () =>
        create(freshStream("errors"), { "stream-forked-from": await jsonStream(1) })],
      ["a source with a dot segment", () =>
        create(freshStream("errors"), { "stream-forked-from": "/v1/blackbox/stream/a/../b" })],
    ],
  ],
  INVALID_CONTENT_TYPE: [
    400,
    [
      ["no media type", () => create(freshStream("errors"), { type: "json" })],
      ["no subtype", () => create(freshStream("errors"), { type: "text/" })],
      ["too long", () => create(freshStream("errors"), { type: `text/${"x".repeat(300)}` })],
      ["of an append", async () => append(await jsonStream(), "1", { type: "nonsense" })],
    ],
  ],
  CONTENT_TYPE_MISSING: [
    400,
    [["", async () => append(await binaryStream(), Buffer.from("x"), { type: null })]],
  ],
  CONTENT_TYPE_MISMATCH: [
    409,
    [
      ["text to JSON", async () => append(await jsonStream(), "1", { type: "text/plain" })],
      ["JSON to bytes", async () => append(await binaryStream(), "1")],
    ],
  ],
  INVALID_LIFETIME: [
    400,
    [
      ...["", "x", "-1", "+1", "01", "1.5", "1e3", "100000000001"].map((ttl) => [
        `TTL ${JSON.stringify(ttl)}`,
        () => create(freshStream("errors"), { "stream-ttl": ttl }),
      ]),
      ["an instant without a zone", () =>
        create(freshStream("errors"), { "stream-expires-at": "2040-01-01T00:00:00" })],
      ["both", () =>
        create(freshStream("errors"), {
          "stream-ttl": "1",
          "stream-expires-at": "2040-01-01T00:00:00Z",
        })],
      ["of a fork", async () => forkOf(await jsonStream(1), { "stream-ttl": "soon" })],
    ],
  ],
  INVALID_PRODUCER: [
    400,
    [
      ...[
        [["producer-id", "p"]],
        [["producer-epoch", "0"]],
        [["producer-seq", "0"]],
        [["producer-id", "p"], ["producer-epoch", "0"]],
        [["producer-id", ""], ["producer-epoch", "0"], ["producer-seq", "0"]],
        [["producer-id", "p q"], ["producer-epoch", "0"], ["producer-seq", "0"]],
        [["producer-id", "p".repeat(257)], ["producer-epoch", "0"], ["producer-seq", "0"]],
        [["producer-id", "p"], ["producer-epoch", "-1"], ["producer-seq", "0"]],
        [["producer-id", "p"], ["producer-epoch", "0"], ["producer-seq", "1.0"]],
        [["producer-id", "p"], ["producer-epoch", "0"], ["producer-seq", "9007199254740992"]],
      ].map((headers) => [
        headers.map(([name, value]) => `${name}: ${value.slice(0, 20)}`).join(", "),
        async () => append(await jsonStream(), "1", Object.fromEntries(headers)),
      ]),
    ],
  ],
  STALE_EPOCH: [
    403,
    [["", async () => {
      const url = await jsonStream();
      await appended(url, "1", producer("p", 3, 0));
      return append(url, "2", producer("p", 2, 0));
    }]],
  ],
  EPOCH_START: [
    400,
    [["", async () => {
      const url = await jsonStream();
      await appended(url, "1", producer("p", 0, 0));
      return append(url, "2", producer("p", 1, 1));
    }]],
  ],
  PRODUCER_GAP: [
    409,
    [
      ["of a known producer", async () => {
        const url = await jsonStream();
        await appended(url, "1", producer("p", 0, 0));
        return append(url, "2", producer("p", 0, 2));
      }],
      ["of a new producer", async () => append(await jsonStream(), "1", producer("p", 0, 1))],
    ],
  ],
  STREAM_SEQ_CONFLICT: [
    409,
    [
      ["the same", async () => {
        const url = await jsonStream();
        await appended(url, "1", { "stream-seq": "b" });
        return append(url, "2", { "stream-seq": "b" });
      }],
      ["a lower one, as bytes", async () => {
        const url = await jsonStream();
        await appended(url, "1", { "stream-seq": "9" });
        return append(url, "2", { "stream-seq": "10" });
      }],
    ],
  ],
  STREAM_CLOSED: [
    409,
    [
      ["an append", async () => append(await closedStream(), "1")],
      ["an append of another type", async () =>
        append(await closedStream(), "1", { type: "text/plain" })],
      ["an append that closes", async () =>
        append(await closedStream(), "1", { "stream-closed": "true" })],
      ["a producer", async () => append(await closedStream(), "1", producer("p", 0, 0))],
    ],
  ],
  EMPTY_BODY: [
    400,
    [
      ["no body", async () => append(await jsonStream(), undefined)],
      ["no body, close is not `true`", async () =>
        append(await jsonStream(), undefined, { "stream-closed": "yes" })],
      ["an empty chunked body", async () => {
        const path = freshPath("errors");
        await created(SERVER + path, { type: JSON_TYPE });
        const headers = { "transfer-encoding": "chunked", "content-type": JSON_TYPE };
        const parts = [requestHead("POST", path, headers), "0\r\n\r\n"];
        const answer = await exchange(SERVER, parts);
        return new Response(answer.body, answer);
      }],
    ],
  ],
  EMPTY_ARRAY: [
    400,
    [["", async () => append(await jsonStream(), " [ ] ")]],
  ],
  INVALID_JSON: [
    400,
    [
      ...[
        " ",
        "{",
        "[1,2",
        "[1,]",
        "1 2",
        "{a:1}",
        "'x'",
        "01",
        "NaN",
        "tru",
        '"\t"',
        "\uFEFF1",
        '"\\x"',
        `${"[".repeat(1025)}${"]".repeat(1025)}`,
      ].map((body) => [
        JSON.stringify(body.slice(0, 20)),
        async () => append(await jsonStream(), body),
      ]),
      ["no UTF-8", async () => append(await jsonStream(), Buffer.from([0x22, 0xff, 0x22]))],
      ["a good message before a bad one", async () => append(await jsonStream(), '[{"a":1},]')],
      ["of a new stream", () => create(freshStream("errors"), { type: JSON_TYPE, body: "{" })],
      ["of a new fork", async () => {
        const source = pathOf(await jsonStream(1));
        const url = freshStream("errors");
        return create(url, { type: JSON_TYPE, body: "{", "stream-forked-from": source });
      }],
    ],
  ],
  BODY_TOO_LARGE: [
    413,
    [["", () => create(freshStream("errors", hosts.small.url), {
      type: "text/plain",
      body: "x".repeat(100_001),
    })]],
  ],
  BODY_INCOMPLETE: [
    400,
    [["", async () => {
      const path = freshPath("errors");
      await created(SERVER + path, { type: BINARY_TYPE });
      const headers = { "content-length": "100", "content-type": BINARY_TYPE };
      const parts = [requestHead("POST", path, headers), "only this"];
      const answer = await exchange(SERVER, parts, { end: true });
      return new Response(answer.body, answer);
    }]],
  ],
  URI_TOO_LONG: [414, [["", () => ask(`${SERVER}/v1/p/stream/${"x".repeat(3000)}`)]]],
  FORK_SOURCE_NOT_FOUND: [
    404,
    [
      ["no such stream", () => forkOf(freshStream("errors"))],
      ["itself", () => {
        const url = freshStream("errors");
        return create(url, { "stream-forked-from": pathOf(url) });
      }],
      ["a stream of another project", async () => {
        const source = pathOf(await jsonStream(1));
        return create(`${SERVER}/v1/other/stream/x`, { "stream-forked-from": source });
      }],
    ],
  ],
  FORK_SOURCE_GONE: [409, [["", async () => forkOf(await heldStream())]]],
  FORK_BEYOND_TAIL: [
    400,
    [
      ["JSON", async () => {
        const url = await jsonStream(1);
        return forkOf(url, { "stream-fork-offset": moved(await tail(url), 3) });
      }],
      ["bytes", async () => {
        const url = await binaryStream("x");
        return forkOf(url, { "stream-fork-offset": moved(await tail(url), 2) });
      }],
    ],
  ],
  FORK_SUB_OFFSET: [
    400,
    [
      ...["", "-1", "x", "1.0", "01"].map((text) => [
        JSON.stringify(text),
        async () => forkOf(await jsonStream(1), { "stream-fork-sub-offset": text }),
      ]),
      ["more messages than there are", async () =>
        forkOf(await jsonStream(1, 2), {
          "stream-fork-offset": "-1",
          "stream-fork-sub-offset": "3",
        })],
      ["past the next append of a binary stream", async () => {
        const url = await binaryStream("12345");
        await appended(url, "678", { type: BINARY_TYPE });
        const offsets = { "stream-fork-offset": "-1", "stream-fork-sub-offset": "6" };
        return forkOf(url, offsets);
      }],
      ["past the tail", async () =>
        forkOf(await jsonStream(1, 2), { "stream-fork-sub-offset": "1" })],
    ],
  ],
  FORK_CONTENT_TYPE: [
    409,
    [["", async () => forkOf(await jsonStream(1), { "content-type": "text/plain" })]],
  ],
  UPGRADE_REQUIRED: [426, [["", async () => read(await jsonStream(), "-1", { live: "ws" })]]],
  INVALID_SUBPROTOCOL: [
    400,
    [["", async () => refusal(socketUrl(await jsonStream(), "-1"), { protocols: ["chat"] })]],
  ],
  INVALID_CREDIT: [
    400,
    [["", async () => refusal(socketUrl(await jsonStream(), "-1", { credit: -1 }))]],
  ],
  TOO_MANY_READERS: [
    429,
    [
      ["WebSocket", () =>
        whileRead(hosts.small.url, (url) => refusal(socketUrl(url, "-1")))],
      ["SSE", () => whileRead(hosts.small.url, (url) => read(url, "-1", { live: "sse" }))],
      ["long-poll", () =>
        whileRead(hosts.small.url, (url) => read(url, "now", { live: "long-poll" }))],
    ],
  ],
  STREAM_FULL: [
    507,
    [["", async () => {
      const url = freshStream("errors", hosts.small.url);
      await created(url, { type: BINARY_TYPE, body: "x".repeat(990) });
      return append(url, "x".repeat(20), { type: BINARY_TYPE });
    }]],
  ],
  MISCONFIGURED: [
    500,
    [
      ["a limit that is no number", () => read(freshStream("errors", hosts.badVariable.url), "-1")],
      ["a limit that is no number, at /health", () => ask(`${hosts.badVariable.url}/health`)],
      ["a live read", () =>
        read(freshStream("errors", hosts.badVariable.url), "-1", { live: "sse" })],
      ["an unknown mode of authorisation", () => create(freshStream("errors", hosts.badAuth.url))],
    ],
  ],
  ...sessionErrors(hosts),
};
