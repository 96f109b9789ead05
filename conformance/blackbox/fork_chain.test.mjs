// The longest chain of forks: its limit, what its end holds, and how it is taken down.
import { expect, test } from "vitest";

import {
  create,
  created,
  eventually,
  expectError,
  freshStream,
  head,
  readBytes,
  remove,
} from "./client.mjs";

const FORKS_MAX = 1024;
const TEXT = "text/plain";

test("1,024 forks of forks", { timeout: 180_000 }, async () => {
  const root = freshStream("chain");
  await created(root, { type: TEXT, body: "r" });
  const chain = [root];
  const fork = () =>
    create(freshStream("chain"), {
      "stream-forked-from": new URL(chain.at(-1)).pathname,
      type: TEXT,
      body: ".",
    });
  while (chain.length <= FORKS_MAX) {
    const response = await fork();
    expect(response.status, `fork ${chain.length}`).toBe(201);
    chain.push(response.headers.get("location"));
  }
  await expectError(await fork(), 400, "FORK_TOO_DEEP");

  const last = chain.pop();
  expect((await readBytes(last)).toString()).toBe(`r${".".repeat(FORKS_MAX)}`);
  // All but the last are held, each by the next; the last takes all of them along.
  const status = async (url) => (await head(url)).status;
  const removed = await Promise.all(chain.map(remove));
  expect(new Set(removed.map((answer) => answer.status))).toEqual(new Set([204]));
  expect(new Set(await Promise.all(chain.map(status)))).toEqual(new Set([410]));
  expect((await readBytes(last)).length).toBe(FORKS_MAX + 1);
  expect((await remove(last)).status).toBe(204);
  await eventually(() => status(root), (now) => now === 404, 60_000);
  expect(new Set(await Promise.all(chain.map(status)))).toEqual(new Set([404]));
});
