// Requests that meet the error codes of sessions: see error_cases.mjs.
import { randomBytes } from "node:crypto";
import { expect } from "vitest";

import { JSON_TYPE, SERVER, append, ask, create, created, freshStream, remove } from "./client.mjs";

/** The URL of a session that nobody else uses. */
export const freshSession = (server = SERVER) =>
  `${server}/v1/blackbox/session/${randomBytes(8).toString("hex")}`;

/** Subscribes the session of this URL to a path, or to the stream of a URL. */
export function subscribe(session, stream, more = {}) {
  const [root, sessionId] = session.split("/session/");
  const streamId = stream.includes("/stream/") ? stream.split("/stream/")[1] : stream;
  const body = JSON.stringify({ sessionId, streamId, ...more });
  return ask(`${root}/subscribe`, { method: "POST", headers: { "content-type": JSON_TYPE }, body });
}

/** Code, status, and requests that meet it; on `hosts.lonely`, one subscription is all there may be. */
export const sessionErrors = (hosts) => ({
  INVALID_SESSION: [
    400,
    [
      ["a space", () => ask(`${SERVER}/v1/p/session/a%20b`)],
      ["an encoded slash", () => create(`${SERVER}/v1/p/session/a%2Fb`)],
      ["129 characters", () => append(`${SERVER}/v1/p/session/${"a".repeat(129)}/touch`, "")],
    ],
  ],
  SESSION_NOT_FOUND: [
    404,
    [
      ["GET", () => ask(freshSession())],
      ["DELETE", () => remove(freshSession())],
      ["touch", () => ask(`${freshSession()}/touch`, { method: "POST" })],
    ],
  ],
  SESSION_EXISTS: [
    409,
    [["another lifetime", async () => {
      const url = freshSession();
      await created(url, { type: JSON_TYPE, body: '{"ttlSeconds":60}' });
      return create(url, { type: JSON_TYPE, body: '{"ttlSeconds":61}' });
    }]],
  ],
  SOURCE_IS_SESSION: [
    409,
    [
      ["publishing", () => append(`${SERVER}/v1/p/publish/session/x`, "1")],
      ["subscribing", () => subscribe(freshSession(), "session/x")],
    ],
  ],
  TOO_MANY_SUBSCRIPTIONS: [
    409,
    [["a second stream", async () => {
      const [session, server] = [freshSession(hosts.lonely.url), hosts.lonely.url];
      const [first, second] = [freshStream("errors", server), freshStream("errors", server)];
      for (const url of [first, second]) await created(url, { type: JSON_TYPE });
      expect((await subscribe(session, first)).status).toBe(200);
      return subscribe(session, second);
    }]],
  ],
  TOO_MANY_SUBSCRIBERS: [
    409,
    [["a second session", async () => {
      const server = hosts.lonely.url;
      const url = freshStream("errors", server);
      await created(url, { type: JSON_TYPE });
      expect((await subscribe(freshSession(server), url)).status).toBe(200);
      return subscribe(freshSession(server), url);
    }]],
  ],
});
