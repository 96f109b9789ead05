// A host that asks for tokens, and what holds for each of its refusals.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";

import { ADMIN_TOKEN } from "../tokens.mjs";
import { Host } from "./host.mjs";

/** A host as it is deployed: with tokens, and a line of log for each request. */
export function startJwtHost(vars = {}, options = {}) {
  return Host.start({ AUTH: "jwt", ADMIN_TOKEN, LOG_REQUESTS: "all", ...vars }, options);
}

/** Headers that carry a token; none for `undefined`. */
export function bearer(token) {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

export const ADMIN = bearer(ADMIN_TOKEN);

/** A request of the admin API. An object becomes JSON; anything else is sent as it is. */
export function configure(host, method, path, body, headers = ADMIN) {
  const isRaw = body === undefined || typeof body === "string" || Buffer.isBuffer(body);
  return fetch(`${host.url}/v1/${path}`, {
    method,
    headers: { "content-type": "application/json", ...headers },
    body: isRaw ? body : JSON.stringify(body),
  });
}

/** An error with its status, code and form, as every deployment answers it; the inside. */
export async function refusedWith(response, status, code, what = "") {
  const text = await response.text();
  expect({ what, status: response.status, text }).toMatchObject({ status });
  const { headers } = response;
  expect(headers.get("content-type")).toBe("application/json");
  expect(headers.get("cache-control")).toBe("no-store");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("x-request-id")).toMatch(/^[A-Za-z0-9-]{1,64}$/);
  if (status === 401) expect(headers.get("www-authenticate")).toBe("Bearer");
  const { error, ...others } = JSON.parse(text);
  expect({ what, code: error.code, others }).toEqual({ what, code, others: {} });
  expect(error.message).toMatch(/^\S.*[^\s.]\.$/);
  return error;
}

/** Files below a directory. */
function filesOf(directory) {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, path, name }) => join(parentPath ?? path, name));
}

/** Writes `text` over the record that holds `secret`, on disk: to be seen after a restart. */
export function breakRecord(host, secret, text) {
  const files = filesOf(join(host.state, "kv")).map((path) => [path, readFileSync(path, "utf8")]);
  const [path, kept] = files.find(([, content]) => content.includes(secret));
  expect(kept.startsWith("{")).toBe(true);
  writeFileSync(path, text.padEnd(kept.length));
}

/** Now, in seconds since 1970, as claims have it. */
export function seconds() {
  return Math.floor(Date.now() / 1000);
}
