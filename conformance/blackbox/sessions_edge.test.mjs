// What the edge of sessions refuses by itself, before any object is asked.
import { describe, expect, test } from "vitest";

import { JSON_TYPE, SERVER, ask, expectError } from "./client.mjs";

const ROOT = `${SERVER}/v1/blackbox`;
const KIB = 1024;

const send = (method, path, body, headers = { "content-type": JSON_TYPE }) =>
  ask(`${ROOT}/${path}`, {
    method,
    headers,
    body: typeof body === "object" && body !== null ? JSON.stringify(body) : body,
  });

const ONE = { sessionId: "s", streamId: "a" };
const many = (streams) => ({ sessionId: "s", subscriptions: streams });

describe.each([
  ["PUT", "session/s", [{ ttlSeconds: 0 }, "ttlSeconds"]],
  ["PUT", "session/s", [{ ttlSeconds: 31_536_001 }, "ttlSeconds"]],
  ["PUT", "session/s", [{ contentType: "text" }, "contentType"]],
  ["PUT", "session/s", [{ contentType: "text/plain", envelope: true }, "envelope"]],
  ["PUT", "session/s", [{ sessionId: "s" }, "sessionId"]],
  ["POST", "subscribe", [{ streamId: "a" }, "sessionId"]],
  ["POST", "subscribe", [{ ...ONE, sessionId: "a/b" }, "sessionId"]],
  ["POST", "subscribe", [{ ...ONE, streamId: "a//b" }, "streamId"]],
  ["POST", "subscribe", [{ ...ONE, from: "0" }, "from"]],
  ["POST", "subscribe", [{ ...ONE, contentType: 7 }, "contentType"]],
  ["POST", "subscribe/batch", [many([]), "subscriptions"]],
  ["POST", "subscribe/batch", [many([{ streamId: "a" }, { streamId: "a" }]), "subscriptions"]],
  ["POST", "subscribe/batch", [many([{ streamId: "a" }, { streamId: "" }]), "subscriptions[1].streamId"]],
  ["DELETE", "unsubscribe", [{ sessionId: "s" }, "streamId"]],
  ["DELETE", "unsubscribe", [{ ...ONE, from: "now" }, "from"]],
])("%s %s", (method, path, [body, field]) => {
  test(`names the field of ${JSON.stringify(body)}`, async () => {
    const error = await expectError(await send(method, path, body), 400, "INVALID_BODY");
    expect(error.details).toEqual({ field });
  });
});

describe.each([
  ["PUT", "session/s"],
  ["POST", "subscribe"],
  ["POST", "subscribe/batch"],
  ["DELETE", "unsubscribe"],
])("%s %s", (method, path) => {
  test.each(["{", "[]", "null", '"x"'])("of %s", async (body) => {
    await expectError(await send(method, path, body), 400, "INVALID_BODY");
  });

  test("of another media type", async () => {
    const headers = { "content-type": "text/plain" };
    await expectError(await send(method, path, "{}", headers), 400, "INVALID_CONTENT_TYPE");
  });

  test("that is too large", async () => {
    const bytesMax = path === "subscribe/batch" ? 1024 * KIB : 64 * KIB;
    const response = await send(method, path, " ".repeat(bytesMax + 1));
    const error = await expectError(response, 413, "BODY_TOO_LARGE");
    expect(error.details).toEqual({ bytesMax });
  });
});

test.each([
  ["session/x", 409, "SOURCE_IS_SESSION"],
  ["session", 409, "SOURCE_IS_SESSION"],
  ["__ds/x", 403, "RESERVED"],
])("%s is no source", async (streamId, status, code) => {
  for (const [method, path, body] of [
    ["POST", "subscribe", { ...ONE, streamId }],
    ["POST", "subscribe/batch", many([{ streamId: "a" }, { streamId }])],
    ["DELETE", "unsubscribe", { ...ONE, streamId }],
    ["POST", `publish/${streamId}`, "1"],
  ]) {
    await expectError(await send(method, path, body), status, code);
  }
});

test("a preflight names the methods", async () => {
  for (const [path, methods] of [
    ["session/s", "GET, HEAD, PUT, DELETE, OPTIONS"],
    ["session/s/touch", "POST, OPTIONS"],
    ["subscribe", "POST, OPTIONS"],
    ["subscribe/batch", "POST, OPTIONS"],
    ["unsubscribe", "DELETE, OPTIONS"],
    ["publish/a/b", "POST, OPTIONS"],
  ]) {
    const response = await send("OPTIONS", path);
    expect([response.status, response.headers.get("allow")]).toEqual([204, methods]);
  }
});
