// What a refusal leaves behind, which is nothing; and which of several refusals is told.
import { describe, expect, test } from "vitest";

import {
  JSON_TYPE,
  SERVER,
  append,
  appended,
  create,
  created,
  expectError,
  freshStream,
  head,
  nextOffset,
  producer,
  readMessages,
  remove,
  tail,
} from "./client.mjs";

const pathOf = (url) => new URL(url).pathname;

async function jsonStream(...messages) {
  const url = freshStream("refusals");
  await created(url, { type: JSON_TYPE, body: JSON.stringify(messages) });
  return url;
}

describe("what was refused", () => {
  test("leaves no stream behind", async () => {
    const url = freshStream("refusals");
    const source = pathOf(await jsonStream(1, 2));
    const refused = [
      { type: "nonsense" },
      { type: JSON_TYPE, body: "[1,2" },
      { "stream-ttl": "-1" },
      { "stream-forked-from": "/v1/blackbox/stream/nowhere" },
      { "stream-forked-from": source, type: "text/plain" },
      { "stream-forked-from": source, "stream-fork-offset": "what" },
      { "stream-forked-from": source, "stream-fork-sub-offset": "9" },
      { "stream-forked-from": source, type: JSON_TYPE, body: "{" },
    ];
    for (const options of refused) {
      const response = await create(url, options);
      expect([400, 404, 409]).toContain(response.status);
      expect((await head(url)).status).toBe(404);
    }
    // Nothing of them holds the source either.
    expect((await remove(SERVER + source)).status).toBe(204);
    expect((await head(SERVER + source)).status).toBe(404);
  });

  test("changes no stream", async () => {
    const url = await jsonStream(1);
    await appended(url, "2", { ...producer("p", 1, 0), "stream-seq": "m" });
    const before = await tail(url);
    const refused = [
      ["[3,]", {}],
      ["3", { type: "text/plain" }],
      ["3", { "stream-seq": "a" }],
      ["3", producer("p", 0, 0)],
      ["3", producer("p", 1, 2)],
      ["3", { ...producer("p", 2, 1), "stream-closed": "true" }],
      ["3", { "producer-id": "p", "stream-closed": "true" }],
      [undefined, { "stream-closed": "false" }],
    ];
    for (const [body, headers] of refused) {
      const response = await append(url, body, headers);
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.status).toBeLessThan(500);
    }
    const after = await head(url);
    expect(nextOffset(after)).toBe(before);
    expect(after.headers.get("stream-closed")).toBeNull();
    expect(await readMessages(url)).toEqual([1, 2]);
    // A refused append has used neither its sequence number nor its Stream-Seq.
    await appended(url, "3", { ...producer("p", 1, 1), "stream-seq": "n" });
  });
});

describe("the order of refusals", () => {
  test("is as documented", async () => {
    const url = await jsonStream(1);
    await appended(url, "2", { ...producer("p", 1, 0), "stream-seq": "m" });
    await appended(url, "3", { ...producer("p", 1, 1), "stream-closed": "true" });
    const bad = { "stream-seq": "a" };
    // 404 before everything, 400 before the rest.
    const nowhere = freshStream("refusals");
    await expectError(await append(nowhere, "[", bad), 404, "STREAM_NOT_FOUND");
    await expectError(await append(url, "[", producer("p", 0, 0)), 400, "INVALID_JSON");
    const plain = { type: "text/plain", ...bad };
    const stale = { ...producer("p", 0, 0), ...plain };
    await expectError(await append(url, "x", stale), 403, "STALE_EPOCH");
    const duplicate = await append(url, "x", { ...producer("p", 1, 1), ...plain });
    expect(duplicate.status).toBe(204);
    const unknown = { ...producer("p", 1, 9), ...plain };
    await expectError(await append(url, "x", unknown), 409, "STREAM_CLOSED");

    const other = await jsonStream(1);
    await appended(other, "2", { ...producer("p", 1, 0), "stream-seq": "m" });
    const gap = producer("p", 1, 9);
    await expectError(await append(other, "x", { ...gap, ...plain }), 409, "CONTENT_TYPE_MISMATCH");
    await expectError(await append(other, "3", { ...gap, ...bad }), 409, "PRODUCER_GAP");
    const inside = { ...producer("p", 2, 1), ...bad };
    await expectError(await append(other, "3", inside), 400, "EPOCH_START");
    await expectError(await append(other, "3", bad), 409, "STREAM_SEQ_CONFLICT");
  });
});
