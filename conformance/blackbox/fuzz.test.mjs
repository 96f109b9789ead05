// Thousands of requests made of odd parts: whatever comes in, what goes out is documented.
//
// The seed is printed when a request is answered badly; FUZZ_SEED repeats a run, FUZZ_REQUESTS
// makes it longer.
import { afterAll, beforeAll, expect, test } from "vitest";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  ask,
  create,
  created,
  expectCommonHeaders,
  moved,
  nextOffset,
  readBytes,
  seeded,
  tail,
} from "./client.mjs";
import { Host } from "./host.mjs";
import { exchange, requestHead } from "./raw_socket.mjs";

const SEED = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 32));
const REQUESTS = Number(process.env.FUZZ_REQUESTS ?? 6000);
// Lanes run side by side, each with streams of its own: what one of them does explains its answers.
const LANES = 8;
const HANG_MS = 5000;

let host;
beforeAll(async () => {
  // Live reads end soon, so that every answer can be read to its end.
  host = await Host.start({ LONG_POLL_TIMEOUT_MS: "100", SSE_LIFETIME_MS: "150" });
});
afterAll(() => host.stop());

class Requests {
  constructor(seed, lane) {
    this.random = seeded(seed);
    this.root = `/v1/lane${lane}/stream`;
    /** Offsets that the lane's streams have handed out. */
    this.offsets = ["-1", "now"];
    this.known = [];
  }

  pick(choices) {
    return choices[Math.floor(this.random() * choices.length)];
  }

  chance(probability) {
    return this.random() < probability;
  }

  /** Random bytes from `low` to `high`, as characters. */
  noise(low, high, most) {
    const length = Math.floor(this.random() ** 3 * most);
    const code = () => low + Math.floor(this.random() * (high - low + 1));
    return String.fromCharCode(...Array.from({ length }, code));
  }

  number() {
    return this.pick([
      () => String(Math.floor(this.random() * 4)),
      () => String(Math.floor(this.random() * 2 ** 53)),
      () => this.pick(["-1", "-0", "+1", "00", "01", "1.0", "1e3", "0x10", "NaN", "Infinity"]),
      () => this.pick(["9007199254740991", "9007199254740992", "18446744073709551616"]),
      () => "9".repeat(1 + Math.floor(this.random() * 400)),
      () => "",
    ])();
  }

  /** A header value: visible characters, spaces, tabs, and bytes outside ASCII. */
  text() {
    return this.pick([
      () => this.number(),
      () => this.noise(0x20, 0x7e, 60),
      () => this.noise(0x80, 0xff, 20),
      () => this.noise(0x20, 0x7e, 3000),
      () => this.pick(["true", "TRUE", "false", "null", "*", ",", ";", '"', "'", "\t", "%00"]),
    ])();
  }

  stream() {
    return `${this.root}/${this.pick(["a", "b", "c", "d", "e/f", "%C3%A9", "x%20y", "session/s"])}`;
  }

  path() {
    if (this.chance(0.85)) return this.stream();
    return this.pick([
      () => `${this.root}/${this.escaped()}`,
      () => `/v1/${this.escaped()}/stream/a`,
      () => `/${this.escaped()}`,
      () => `${this.root}/__ds/${this.escaped()}`,
      () => `${this.root}/${"x".repeat(Math.floor(this.random() * 3000))}`,
      () => this.pick(["/health", "/", "/v1", this.root, `${this.root}/`, "/internal/release"]),
    ])();
  }

  /** Characters that may stand in a request target. */
  escaped() {
    const characters = "abcXYZ019-._~!$&'()*+,;=:@/%";
    const length = Math.floor(this.random() * 30);
    const text = Array.from({ length }, () => this.pick([...characters])).join("");
    return this.chance(0.5) ? encodeURI(text + this.noise(0, 0xff, 10)) : text;
  }

  offset() {
    const known = this.pick(this.offsets);
    return this.pick([
      () => known,
      () => known,
      () => (known.includes("_") ? moved(known, Math.floor(this.random() * 9) - 4) : known),
      () => known.slice(0, Math.floor(this.random() * 33)),
      () => `${this.number()}_${this.number()}`,
      () => "0000000000000000_0000000000000000",
      () => "9999999999999999_9999999999999999",
      () => encodeURIComponent(this.text()),
    ])();
  }

  query() {
    const pairs = [];
    if (this.chance(0.7)) pairs.push(`offset=${this.offset()}`);
    if (this.chance(0.3)) {
      pairs.push(`live=${this.pick(["sse", "long-poll", "ws", "", "SSE", this.escaped()])}`);
    }
    if (this.chance(0.2)) pairs.push(`cursor=${this.pick([this.number(), this.escaped()])}`);
    if (this.chance(0.1)) pairs.push(this.escaped());
    if (this.chance(0.05)) pairs.push(`offset=${this.offset()}`);
    if (this.chance(0.02)) pairs.push(`junk=${"q".repeat(Math.floor(this.random() * 6000))}`);
    return pairs.length > 0 ? `?${pairs.join("&")}` : "";
  }

  type() {
    const usual = [JSON_TYPE, JSON_TYPE, JSON_TYPE, BINARY_TYPE, "text/plain"];
    const odd = ["text/plain; charset=utf-8", "Application/JSON", "json", "a/b; c", "a/b;c=\"\\\""];
    return this.pick([...usual, ...usual, ...odd, this.text()]);
  }

  headers(method) {
    const makers = {
      "content-type": [0.8, () => this.type()],
      "stream-closed": [0.08, () => this.pick(["true", "True", "false", this.text()])],
      "stream-seq": [0.1, () => this.pick([this.number(), this.text()])],
      "stream-ttl": [0.06, () => this.pick(["60", "0", "1", this.number(), this.text()])],
      "stream-expires-at": [0.04, () => this.pick([
        "2040-01-01T00:00:00Z",
        "2040-02-30T00:00:00Z",
        "1999-12-31T23:59:60Z",
        "9999-12-31T23:59:59.999999999+14:00",
        this.text(),
      ])],
      "stream-forked-from": [0.12, () => this.pick([this.stream(), this.stream(), this.text()])],
      "stream-fork-offset": [0.08, () => this.pick([this.offset(), this.text()])],
      "stream-fork-sub-offset": [0.06, () => this.number()],
      "if-none-match": [0.1, () => this.pick(["*", '"1:0:1:u"', 'W/"', this.text()])],
      "range": [0.03, () => this.pick(["bytes=0-1", this.text()])],
      "accept-encoding": [0.03, () => this.pick(["gzip, br", this.text()])],
      "content-encoding": [0.03, () => this.pick(["gzip", "br", this.text()])],
      // The platform lets nothing but a GET ask for a WebSocket.
      "upgrade": [method === "GET" ? 0.05 : 0, () => this.pick(["websocket", "h2c"])],
      "cookie": [0.02, () => this.noise(0x20, 0x7e, 5000)],
      "x-forwarded-for": [0.02, () => this.text()],
    };
    if (this.chance(0.25)) {
      // Most producers are almost right, so that some are accepted.
      makers["producer-id"] = [0.9, () => this.pick(["p", "q", this.text()])];
      makers["producer-epoch"] = [0.9, () => this.pick(["0", "1", this.number()])];
      makers["producer-seq"] = [0.9, () => this.pick(["0", "1", "2", this.number()])];
    }
    const headers = {};
    for (const [name, [probability, make]] of Object.entries(makers)) {
      if (this.chance(probability)) headers[name] = make();
    }
    return headers;
  }

  body() {
    const value = () => this.pick(['{"a":1}', "[1,2,3]", "1", '"x"', "[[],{}]", "null", "[]"]);
    return Buffer.from(
      this.pick([
        value,
        value,
        value,
        () => "",
        () => this.noise(0x20, 0x7e, 500),
        () => this.noise(0, 0xff, 500),
        () => `[${value()},${value()}`,
        () => "[".repeat(Math.floor(this.random() * 3000)),
        () => `"${"z".repeat(Math.floor(this.random() ** 8 * 4_000_000))}"`,
      ])(),
      "latin1",
    );
  }

  next() {
    const usual = ["GET", "GET", "POST", "POST", "POST", "PUT", "PUT", "HEAD"];
    const method = this.chance(0.06)
      ? "DELETE"
      : this.chance(0.05)
        ? this.pick(["OPTIONS", "PATCH", "TRACE", "PROPFIND", "SEARCH"])
        : this.pick(usual);
    const target = this.path() + this.query();
    const headers = { connection: "close", ...this.headers(method) };
    const takesBody = ["POST", "PUT"].includes(method);
    const hasBody = this.chance(takesBody ? 0.9 : 0.03);
    // Nobody reads the body of a GET, and what is large cuts the connection.
    const body = hasBody ? this.body().subarray(0, takesBody ? undefined : 1000) : undefined;
    if (body === undefined) return { method, target, headers, sent: Buffer.alloc(0) };
    if (this.chance(0.8)) {
      return { method, target, headers: { ...headers, "content-length": body.length }, sent: body };
    }
    headers["transfer-encoding"] = "chunked";
    const size = Buffer.from(body.length > 0 ? `${body.length.toString(16)}\r\n` : "");
    const end = Buffer.from(body.length > 0 ? "\r\n0\r\n\r\n" : "0\r\n\r\n");
    return { method, target, headers, sent: Buffer.concat([size, body, end]) };
  }

  /** Offsets of answers are what a client would come back with. */
  learn(answer) {
    const offset = nextOffset(answer);
    if (offset !== null) this.offsets.push(offset);
    if (this.offsets.length > 60) this.offsets.splice(2, 20);
  }
}

function check(answer) {
  const { status, headers, body } = answer;
  if (status === 101) throw new Error("a socket that nobody offers");
  if (status >= 500) throw new Error(`status ${status}: ${body}`);
  expectCommonHeaders(headers);
  if (status < 400 || body.length === 0) return;
  expect(headers.get("content-type")).toBe("application/json");
  expect(headers.get("cache-control")).toBe("no-store");
  const { error } = JSON.parse(body.toString());
  expect(error.code).toMatch(/^[A-Z_]+$/);
  expect(error.message.length).toBeGreaterThan(5);
}

async function runLane(lane, count, statuses) {
  const requests = new Requests(SEED + lane, lane);
  for (let at = 0; at < count; at += 1) {
    const request = requests.next();
    const { method, target, headers, sent } = request;
    const began = performance.now();
    try {
      const bytes = Buffer.concat([requestHead(method, target, headers), sent]);
      const answer = await exchange(host.url, [bytes]);
      const took = performance.now() - began;
      check(answer);
      if (took > HANG_MS) throw new Error(`answered after ${took.toFixed()} ms`);
      requests.learn(answer);
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    } catch (error) {
      const shown = JSON.stringify({ method, target, headers }).slice(0, 3000);
      const body = JSON.stringify(sent.toString("latin1").slice(0, 200));
      const where = `FUZZ_SEED=${SEED}, lane ${lane}, request ${at}: ${shown} ${body}`;
      throw new Error(`${error.message}\n${where}`, { cause: error });
    }
  }
}

test("every answer to odd requests is documented", { timeout: 180_000 }, async () => {
  const witness = `${host.url}/v1/witness/stream/w`;
  await created(witness, { type: "text/plain", body: "unharmed" });

  const statuses = new Map();
  const lanes = Array.from({ length: LANES }, (_, lane) =>
    runLane(lane, Math.ceil(REQUESTS / LANES), statuses),
  );
  const outcomes = await Promise.allSettled(lanes);
  const failures = outcomes.filter(({ status }) => status === "rejected");
  expect(failures.map(({ reason }) => reason.message).join("\n\n")).toBe("");
  // The mixture reaches successes and refusals of many kinds; if not, it tests nothing.
  for (const status of [200, 201, 204, 400, 403, 404, 405, 409]) {
    expect(statuses.get(status) ?? 0, `answers with ${status}`).toBeGreaterThan(10);
  }

  // It lives, it has not forgotten, and it complained about nothing.
  expect((await ask(`${host.url}/health`)).status).toBe(200);
  expect((await readBytes(witness)).toString()).toBe("unharmed");
  await appended(witness, "!", { type: "text/plain" });
  expect(await tail(witness)).toMatch(/_0{15}9$/);
  expect((await create(`${host.url}/v1/witness/stream/new`)).status).toBe(201);
  const isNews = (line) => /^workerd\/|"event":"(rotated|swept|upload_given_up)"/.test(line);
  const complaints = host.console.split("\n").filter((line) => !isNews(line));
  expect(complaints.join("\n")).toBe("");
});
