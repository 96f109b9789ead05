// A host that asks for tokens, and what holds for each of its refusals.
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

/** Now, in seconds since 1970, as claims have it. */
export function seconds() {
  return Math.floor(Date.now() / 1000);
}
