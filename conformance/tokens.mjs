// Tokens and projects for tests: what a real client would hold.
import { createHmac, randomBytes } from "node:crypto";

/** For hosts of tests only. */
export const ADMIN_TOKEN = "admin-token-of-tests-0123456789abcdef";

export function newSecret() {
  return randomBytes(32).toString("base64url");
}

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export function sign(message, secret) {
  return createHmac("sha256", secret).update(message).digest("base64url");
}

/** A JWT of these claims; `header` is what a forger would change. */
export function jwt(claims, secret, header = { alg: "HS256", typ: "JWT" }) {
  const message = `${encoded(header)}.${encoded(claims)}`;
  return `${message}.${sign(message, secret)}`;
}

/** A good token of a project. */
export function token(project, secret, { scope = "manage", seconds = 3600, ...more } = {}) {
  const exp = Math.floor(Date.now() / 1000) + seconds;
  return jwt({ sub: project, scope, exp, ...more }, secret);
}

/** Creates a project and returns its secret. */
export async function createProject(url, project, settings = {}) {
  const signingSecret = newSecret();
  const response = await fetch(`${url}/v1/${project}/config`, {
    method: "PUT",
    headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({ signingSecret, ...settings }),
  });
  if (response.status !== 201) {
    throw new Error(`project ${project}: ${response.status} ${await response.text()}`);
  }
  return signingSecret;
}
