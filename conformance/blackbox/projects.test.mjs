// The admin API: projects, their secrets and origins; and that no secret ever comes back.
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { ADMIN_TOKEN, newSecret, token } from "../tokens.mjs";
import { ADMIN, bearer, breakRecord, configure, refusedWith, startJwtHost } from "./jwt_host.mjs";
import { exchange, requestHead, send } from "./raw_socket.mjs";

const SECRETS_MAX = 8;
const BODY_BYTES_MAX = 64 * 1024;
const NOBODY = "0123456789abcdef";

let host;
let count = 0;
/** Every secret that was ever sent, and every answer that came back. */
const secrets = [];
const answers = [];

beforeAll(async () => {
  host = await startJwtHost();
});
afterAll(() => host.stop());

const freshProject = () => `project-${(count += 1)}`;
const idOf = (secret) => createHash("sha256").update(secret).digest("hex").slice(0, 16);

function secret() {
  const made = newSecret();
  secrets.push(made);
  return made;
}

/** A request of the admin API, whose answer is kept. */
async function ask(method, path, body, headers = ADMIN) {
  const response = await configure(host, method, path, body, headers);
  answers.push(JSON.stringify([...response.headers]) + (await response.clone().text()));
  return response;
}

const create = (project, body) => ask("PUT", `${project}/config`, body);
const add = (project, signingSecret) => ask("POST", `${project}/config/secrets`, { signingSecret });
const drop = (project, id) => ask("DELETE", `${project}/config/secrets/${id}`);

async function answered(response, status) {
  const text = await response.text();
  expect({ status: response.status, text }).toMatchObject({ status });
  expect(response.headers.get("cache-control")).toBe("no-store");
  return text === "" ? undefined : JSON.parse(text);
}

/** A new project and its first secret. */
async function created(settings = {}) {
  const project = freshProject();
  const signingSecret = secret();
  await answered(await create(project, { signingSecret, ...settings }), 201);
  return { project, first: signingSecret };
}

const shown = async (project) => answered(await ask("GET", `${project}/config`), 200);

describe("a project", () => {
  test("is created, shown and changed", async () => {
    const project = freshProject();
    const signingSecret = secret();
    const view = {
      project,
      corsOrigins: [],
      isPublic: false,
      secrets: [{ id: idOf(signingSecret) }],
    };
    expect(await answered(await create(project, { signingSecret }), 201)).toEqual(view);
    expect(await shown(project)).toEqual(view);
    const corsOrigins = ["https://app.example.com", "http://*.local.example:8080"];
    const change = (body) => ask("PATCH", `${project}/config`, body);
    let changed = { ...view, corsOrigins };
    expect(await answered(await change({ corsOrigins }), 200)).toEqual(changed);
    changed = { ...changed, isPublic: true };
    expect(await answered(await change({ isPublic: true }), 200)).toEqual(changed);
    expect(await answered(await change({ isPublic: true }), 200)).toEqual(changed);
    expect(await answered(await change({ corsOrigins: [], isPublic: false }), 200)).toEqual(view);
    expect(await shown(project)).toEqual(view);
  });

  test("is created once", async () => {
    const { project, first } = await created({ isPublic: true });
    for (const signingSecret of [first, secret()]) {
      await refusedWith(await create(project, { signingSecret }), 409, "PROJECT_EXISTS");
    }
    const { isPublic, secrets } = await shown(project);
    expect({ isPublic, secrets }).toEqual({ isPublic: true, secrets: [{ id: idOf(first) }] });
  });

  test("may be named with any legal name, and no other", async () => {
    for (const project of ["p".repeat(64), "_default", "A-b_9"]) {
      await answered(await create(project, { signingSecret: secret() }), 201);
      expect((await shown(project)).project).toBe(project);
    }
    for (const project of ["p".repeat(65), "a%20b", "a.b", "%C3%A9"]) {
      const answer = await create(project, { signingSecret: secret() });
      expect([400, 404], project).toContain(answer.status);
    }
  });

  test("that is not there", async () => {
    const project = freshProject();
    const none = [
      ask("GET", `${project}/config`),
      ask("PATCH", `${project}/config`, { isPublic: true }),
      add(project, secret()),
      drop(project, NOBODY),
    ];
    for (const answer of none) await refusedWith(await answer, 404, "PROJECT_NOT_FOUND");
    // What was just unknown is there as soon as it is created.
    const first = secret();
    await answered(await create(project, { signingSecret: first }), 201);
    const url = `${host.url}/v1/${project}/stream/a`;
    const headers = bearer(token(project, first));
    expect((await fetch(url, { method: "PUT", headers })).status).toBe(201);
  });

  test("is managed with a token of its own, too", async () => {
    const { project, first } = await created();
    const headers = bearer(token(project, first));
    expect((await answered(await ask("GET", `${project}/config`, undefined, headers), 200)).project)
      .toBe(project);
    const change = { isPublic: true };
    await answered(await ask("PATCH", `${project}/config`, change, headers), 200);
    const signingSecret = secret();
    await answered(await ask("POST", `${project}/config/secrets`, { signingSecret }, headers), 201);
    const path = `${project}/config/secrets/${idOf(first)}`;
    await answered(await ask("DELETE", path, undefined, headers), 204);
    // Its secret is gone, and so is its right.
    const gone = await ask("GET", `${project}/config`, undefined, headers);
    await refusedWith(gone, 401, "UNAUTHORIZED");
  });

  test("HEAD tells what GET does, without the body", async () => {
    const { project } = await created();
    const response = await ask("HEAD", `${project}/config`);
    expect([response.status, await response.text()]).toEqual([200, ""]);
  });
});

describe("secrets", () => {
  test("are added once each, up to a limit", async () => {
    const { project, first } = await created();
    const all = [first];
    while (all.length < SECRETS_MAX) {
      const next = secret();
      expect(await answered(await add(project, next), 201)).toEqual({ id: idOf(next) });
      all.push(next);
    }
    const ids = all.map((text) => ({ id: idOf(text) }));
    expect((await shown(project)).secrets).toEqual(ids);
    await refusedWith(await add(project, secret()), 409, "TOO_MANY_SECRETS");
    for (const known of [first, all.at(-1)]) {
      expect(await answered(await add(project, known), 200)).toEqual({ id: idOf(known) });
    }
    expect((await shown(project)).secrets).toEqual(ids);
  });

  test("are removed, but never the last", async () => {
    const { project, first } = await created();
    await refusedWith(await drop(project, idOf(first)), 409, "LAST_SECRET");
    await refusedWith(await drop(project, NOBODY), 404, "SECRET_NOT_FOUND");
    await refusedWith(await drop(project, first), 404, "SECRET_NOT_FOUND");
    const second = secret();
    await answered(await add(project, second), 201);
    await answered(await drop(project, idOf(first)), 204);
    await refusedWith(await drop(project, idOf(first)), 404, "SECRET_NOT_FOUND");
    await refusedWith(await drop(project, idOf(second)), 409, "LAST_SECRET");
    expect((await shown(project)).secrets).toEqual([{ id: idOf(second) }]);
  });

  test("a body of a DELETE is not looked at", async () => {
    const { project, first } = await created();
    await answered(await add(project, secret()), 201);
    const path = `/v1/${project}/config/secrets/${idOf(first)}`;
    const response = await send(host.url, "DELETE", path, ADMIN, "x".repeat(100_000));
    expect(response.status).toBe(204);
    const refused = await send(host.url, "DELETE", path, ADMIN, "x".repeat(100_000));
    await refusedWith(refused, 404, "SECRET_NOT_FOUND");
  });

  test("are rotated while everybody is served", async () => {
    const { project, first } = await created();
    const url = `${host.url}/v1/${project}/stream/rotated`;
    const old = bearer(token(project, first));
    expect((await fetch(url, { method: "PUT", headers: old })).status).toBe(201);
    const read = async (headers) => (await fetch(url, { headers })).status;
    const second = secret();
    const next = bearer(token(project, second));
    expect([await read(old), await read(next)]).toEqual([200, 401]);
    await answered(await add(project, second), 201);
    expect([await read(old), await read(next)]).toEqual([200, 200]);
    await answered(await drop(project, idOf(first)), 204);
    expect([await read(old), await read(next)]).toEqual([401, 200]);
  });
});

const GOOD = "s".repeat(32);
const BODIES = {
  nothing: "",
  spaces: "  ",
  "no JSON": "{",
  "text behind it": `{"signingSecret":"${GOOD}"} x`,
  "a text": `"${GOOD}"`,
  null: "null",
  "an array": `["${GOOD}",[],false]`,
  "an empty object": "{}",
  "an unknown field": `{"signingSecret":"${GOOD}","other":1}`,
  "a field in snake case": `{"signing_secret":"${GOOD}"}`,
  "a field twice": `{"signingSecret":"${GOOD}","signingSecret":"${GOOD}"}`,
  "a secret that is a number": '{"signingSecret":12345678901234567890123456789012}',
  "a secret that is null": '{"signingSecret":null}',
  "a short secret": `{"signingSecret":"${"s".repeat(31)}"}`,
  "a long secret": `{"signingSecret":"${"s".repeat(257)}"}`,
  "a secret with a space": `{"signingSecret":"${"s".repeat(31)} s"}`,
  "a secret beyond ASCII": `{"signingSecret":"${"é".repeat(32)}"}`,
  "a secret with a line end": `{"signingSecret":"${"s".repeat(32)}\\n"}`,
  "bytes that are no UTF-8": Buffer.concat([
    Buffer.from('{"signingSecret":"'),
    Buffer.alloc(40, 0xff),
    Buffer.from('"}'),
  ]),
};
const SETTINGS = {
  "origins as a text": '"corsOrigins":"*"',
  "an origin with a path": '"corsOrigins":["https://a.example/"]',
  "an origin in capitals": '"corsOrigins":["https://A.example"]',
  "an origin with its default port": '"corsOrigins":["https://a.example:443"]',
  "the origin null": '"corsOrigins":["null"]',
  "a star in the middle": '"corsOrigins":["https://a.*.example"]',
  "another scheme": '"corsOrigins":["ftp://a.example"]',
  "65 origins": `"corsOrigins":[${Array(65).fill('"https://a.example"')}]`,
  "origins that are null": '"corsOrigins":[null]',
  "a flag as a text": '"isPublic":"true"',
  "a flag as a number": '"isPublic":1',
};

describe("a body that is wrong", () => {
  const expectQuiet = async (answer, what) => {
    const error = await refusedWith(answer, 400, "INVALID_BODY", what);
    expect(JSON.stringify(error)).not.toMatch(/s{31}|é{9}|1234567890123/);
    return error;
  };

  test.each(Object.entries(BODIES))("creates nothing and adds nothing: %s", async (what, body) => {
    const project = freshProject();
    await expectQuiet(await create(project, body), what);
    await refusedWith(await ask("GET", `${project}/config`), 404, "PROJECT_NOT_FOUND");
    const { project: known, first } = await created();
    await expectQuiet(await ask("POST", `${known}/config/secrets`, body), what);
    expect((await shown(known)).secrets).toEqual([{ id: idOf(first) }]);
  });

  test.each(Object.entries(SETTINGS))("changes nothing: %s", async (what, field) => {
    const name = /"(\w+)"/.exec(field)[1];
    const body = `{"signingSecret":"${GOOD}",${field}}`;
    const made = await expectQuiet(await create(freshProject(), body), what);
    expect(made.details.field).toMatch(new RegExp(`^${name}`));
    const { project } = await created();
    const before = await shown(project);
    const error = await expectQuiet(await ask("PATCH", `${project}/config`, `{${field}}`), what);
    expect(error.details.field).toMatch(new RegExp(`^${name}`));
    expect(await shown(project)).toEqual(before);
  });

  test.each(["{}", '{"corsOrigins":null}', '{"signingSecret":"x"}', '{"secrets":[]}'])(
    "changes nothing: %s",
    async (body) => {
      const { project } = await created();
      await expectQuiet(await ask("PATCH", `${project}/config`, body), body);
    },
  );

  test("names the field", async () => {
    const error = await refusedWith(
      await create(freshProject(), { signingSecret: "short" }),
      400,
      "INVALID_BODY",
    );
    expect(error.details).toEqual({ field: "signingSecret" });
    expect(error.message).toContain("32 to 256 visible ASCII characters");
  });

  test("is 413 when it is too large, declared or not", async () => {
    const project = freshProject();
    const padded = (length) => {
      const body = JSON.stringify({ signingSecret: secret() });
      return body + " ".repeat(length - body.length);
    };
    const large = await create(project, padded(BODY_BYTES_MAX + 1));
    expect((await refusedWith(large, 413, "BODY_TOO_LARGE")).details).toEqual({
      bytesMax: BODY_BYTES_MAX,
    });
    const chunk = "x".repeat(BODY_BYTES_MAX + 1);
    const answer = await exchange(host.url, [
      requestHead("PUT", `/v1/${project}/config`, { "transfer-encoding": "chunked", ...ADMIN }),
      `${chunk.length.toString(16)}\r\n${chunk}\r\n0\r\n\r\n`,
    ]);
    const chunked = new Response(answer.body, answer);
    await refusedWith(chunked, 413, "BODY_TOO_LARGE");
    await refusedWith(await ask("GET", `${project}/config`), 404, "PROJECT_NOT_FOUND");
    await answered(await create(project, padded(BODY_BYTES_MAX)), 201);
  });
});

describe("a record that is broken", () => {
  const BROKEN = ["not JSON", "{}", '{"signingSecrets":[],"corsOrigins":[],"isPublic":true}'];

  test("is 500 and never taken for no project", async () => {
    const projects = [];
    for (const text of BROKEN) projects.push({ text, ...(await created()) });
    const intact = await created();
    for (const { text, first } of projects) breakRecord(host, first, text);
    await host.restart();
    for (const { project, first } of projects) {
      const url = `${host.url}/v1/${project}/stream/a`;
      const requests = [
        fetch(url),
        fetch(url, { headers: bearer(token(project, first)) }),
        ask("GET", `${project}/config`),
        create(project, { signingSecret: secret() }),
        ask("PATCH", `${project}/config`, { isPublic: true }),
      ];
      for (const request of requests) {
        const error = await refusedWith(await request, 500, "MISCONFIGURED");
        expect(error.message).toContain(project);
      }
    }
    expect((await shown(intact.project)).secrets).toEqual([{ id: idOf(intact.first) }]);
    expect((await fetch(`${host.url}/health`)).status).toBe(200);
  });
});

test("no secret was ever told", () => {
  expect(secrets.length).toBeGreaterThan(50);
  const told = answers.join("\n") + host.console;
  expect(told.length).toBeGreaterThan(10_000);
  expect(secrets.filter((text) => told.includes(text))).toEqual([]);
  expect(told.includes(ADMIN_TOKEN)).toBe(false);
  expect(told).not.toMatch(/s{31}/);
});
