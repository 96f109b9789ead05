// What a stream has to hold, and the comparison with what it holds.
//
// JSON streams and binary ones hold the same bytes: messages `{"by","n","pad"}`, each followed by
// `,\n`, which is how a JSON stream counts its positions. So one reader checks both.
import { Violation, ask, attempt, positionOf } from "./http.mjs";

export const JSON_TYPE = "application/json";
export const BINARY_TYPE = "application/octet-stream";

const OK = { first: [200] };

export const wireOf = (messages) =>
  messages.map((message) => `${JSON.stringify(message)},\n`).join("");

const keyOf = ({ by, n }) => `${by}.${n}`;

/** One life of a stream. */
export class Log {
  /** Messages that came back acknowledged, were refused, or had no answer. */
  #states = new Map();
  /** Acknowledged bytes whose place has not been looked at: `{ end, wire }`. */
  #places = [];
  #seen = new Set();
  #ordered = new Map();
  /** What has been read, in order; `#read` is the offset behind it. */
  #text = "";
  #offset = "-1";
  /** Offsets that acknowledgements named, for forks. */
  offsets = [];
  /** Nobody writes any more: it is looked at once more, in the end. */
  isQuiet = false;
  isClosed = false;

  /** `inherited`: log and offset that a fork begins with. */
  constructor(url, type, inherited) {
    this.url = url;
    this.type = type;
    this.inherited = inherited;
  }

  get text() {
    return this.#text;
  }

  get acked() {
    return [...this.#states.values()].filter((state) => state === "acked").length;
  }

  /** Appends that must be there: their messages, and the answer that said so. */
  acknowledged(messages, next, isFirst) {
    for (const message of messages) this.#states.set(keyOf(message), "acked");
    if (isFirst) this.#places.push({ end: positionOf(next), wire: wireOf(messages) });
    if (isFirst) this.offsets.push(next);
  }

  refused(messages) {
    for (const message of messages) this.#states.set(keyOf(message), "refused");
  }

  /** No answer: the messages are there once or not at all. */
  unknown(messages) {
    for (const message of messages) this.#states.set(keyOf(message), "unknown");
  }

  /** Whether an unanswered message turned out to be there; only right after `check`. */
  has(message) {
    return this.#seen.has(keyOf(message));
  }

  /** Reads what is new and compares; nobody may be writing. */
  async check() {
    const fresh = this.#text.length;
    for (;;) {
      const { bytes, next, headers } = await ask(`${this.url}?offset=${this.#offset}`, OK);
      this.#text += this.#wire(bytes);
      this.#offset = next;
      if (positionOf(next) !== this.#text.length) {
        this.#fail(`${next} after ${this.#text.length} bytes`);
      }
      if (headers.get("stream-up-to-date") !== "true") continue;
      if ((headers.get("stream-closed") === "true") !== this.isClosed) {
        this.#fail(`closed is ${!this.isClosed}`);
      }
      break;
    }
    this.#compare(fresh);
  }

  /** Reads everything once more: it must be what it was. */
  async recheck() {
    await this.check();
    let text = "";
    for (let offset = "-1"; text.length < this.#text.length; ) {
      const { bytes, next } = await ask(`${this.url}?offset=${offset}`, OK);
      text += this.#wire(bytes);
      if (next === offset) break;
      offset = next;
    }
    if (text !== this.#text) this.#fail(`reads ${text.length} other bytes the second time`);
    for (const offset of [this.offsets[0], this.offsets[this.offsets.length >> 1]]) {
      if (offset === undefined) continue;
      const { bytes } = await ask(`${this.url}?offset=${offset}`, OK);
      const part = this.#wire(bytes);
      if (!this.#text.startsWith(part, positionOf(offset))) this.#fail(`other bytes at ${offset}`);
    }
  }

  /** Whether the stream is gone, asked without repeating. */
  async isGone() {
    const answer = await attempt(this.url, { method: "HEAD" });
    return answer?.status === 404;
  }

  #wire(bytes) {
    const text = bytes.toString();
    if (this.type === BINARY_TYPE) return text;
    return wireOf(JSON.parse(text));
  }

  #compare(fresh) {
    let begins = fresh;
    if (this.inherited !== undefined) {
      const { log, at } = this.inherited;
      const length = positionOf(at);
      const prefix = this.#text.slice(0, length);
      if (prefix !== log.text.slice(0, length)) this.#fail(`a fork that inherits other bytes`);
      begins = Math.max(begins, length);
    }
    for (const { end, wire } of this.#places) {
      const stored = this.#text.slice(end - wire.length, end);
      if (stored !== wire) this.#fail(`at ${end} is ${stored}, acknowledged was ${wire}`);
    }
    this.#places = [];
    const messages = this.#text.slice(begins).split(",\n").slice(0, -1);
    for (const text of messages) this.#take(JSON.parse(text));
    for (const [key, state] of this.#states) {
      if (state === "acked" && !this.#seen.has(key)) this.#fail(`${key} is lost`);
    }
  }

  #take(message) {
    const key = keyOf(message);
    const state = this.#states.get(key);
    if (state === undefined) this.#fail(`${key} was never sent`);
    if (state === "refused") this.#fail(`${key} was refused`);
    if (this.#seen.has(key)) this.#fail(`${key} is there twice`);
    this.#seen.add(key);
    if (this.type !== JSON_TYPE) return;
    // What a producer sends is there in order.
    const expected = this.#ordered.get(message.by) ?? 0;
    if (message.n !== expected) this.#fail(`${key} where ${expected} should be`);
    this.#ordered.set(message.by, expected + 1);
  }

  #fail(what) {
    throw new Violation(`${this.url}: ${what}`);
  }
}
