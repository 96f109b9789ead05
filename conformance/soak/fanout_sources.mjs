// Sources of the fan-out soak, and who publishes to them. Every publisher is a producer of its own,
// which repeats each message until it is answered, so a source holds each message once.
import { JSON_TYPE } from "./log.mjs";
import { Violation, ask, sleep } from "./http.mjs";

export const PROJECT = "soak-fanout";
export const TEXT_TYPE = "text/plain";

const CREATED = { first: [201], again: [200] };
const STORED = { first: [200], again: [204] };
const OK = { first: [200] };
/** What one publisher sends in a round at most. */
const BATCHES_A_ROUND = 25;
const FANOUT = ["count", "successes", "failures", "mode"];

/** Text of a message, as it stands in a stream of text. */
const lineOf = ({ by, n, pad }) => `${by}.${n}.${pad}\n`;

/** Messages of a page, whatever the stream's type: `{ by, n, pad }`. */
export function messagesOf(type, bytes) {
  const text = bytes.toString();
  if (type === JSON_TYPE) return JSON.parse(text);
  return text.split(/(?<=\n)/).map((line) => {
    const [, by, n, pad] = /^(\w+)\.(\d+)\.(p*)\n$/.exec(line) ?? [];
    if (by === undefined) throw new Violation(`a line that nobody sent: ${line.slice(0, 100)}`);
    return { by, n: Number(n), pad };
  });
}

export const keyOf = ({ by, n }) => `${by}.${n}`;

/** Reads a stream from an offset to its tail: messages, and where to read on. */
export async function readOn(url, type, offset) {
  const messages = [];
  for (;;) {
    const { bytes, next, headers } = await ask(`${url}?offset=${offset}`, OK);
    if (bytes.length > 0) messages.push(...messagesOf(type, bytes));
    offset = next;
    if (headers.get("stream-up-to-date") === "true") return { messages, offset };
  }
}

export class Source {
  /** Messages by key: when they were first sent, and when the answer was there. */
  sent = new Map();
  /** Messages that were answered. */
  acked = 0;
  /** How often each mode of fan-out was told. */
  modes = {};
  #names = 0;
  #running = false;

  constructor(server, path, type, random) {
    this.path = path;
    this.type = type;
    this.random = random;
    this.url = `${server}/v1/${PROJECT}/stream/${path}`;
    this.publishUrl = `${server}/v1/${PROJECT}/publish/${path}`;
  }

  create() {
    const headers = { "content-type": this.type };
    return ask(this.url, CREATED, { method: "PUT", headers });
  }

  /** Starts so many publishers; resolves when all have stopped. */
  run(publishers) {
    this.#running = true;
    return Promise.all(Array.from({ length: publishers }, () => this.#publishOn()));
  }

  stop() {
    this.#running = false;
  }

  /** Publishes messages of a producer, and waits for the answer; `url` may be the stream's own. */
  async publish(by, seq, messages, url = this.publishUrl) {
    const headers = {
      "content-type": this.type,
      "producer-id": by,
      "producer-epoch": "0",
      "producer-seq": String(seq),
    };
    const isJson = this.type === JSON_TYPE;
    const body = isJson ? JSON.stringify(messages) : messages.map(lineOf).join("");
    const sent = performance.now();
    for (const message of messages) this.sent.set(keyOf(message), { sent, acked: Infinity });
    const answer = await ask(url, STORED, { method: "POST", headers, body });
    const acked = performance.now();
    for (const message of messages) this.sent.set(keyOf(message), { sent, acked });
    this.acked += messages.length;
    if (url === this.publishUrl) this.#note(answer.headers);
    return answer;
  }

  /** Messages in the order of the stream: each that was sent, once. */
  async read() {
    const { messages } = await readOn(this.url, this.type, "-1");
    const keys = messages.map(keyOf);
    const seen = new Set(keys);
    if (seen.size !== keys.length) throw new Violation(`${this.path}: a message is there twice`);
    for (const key of keys) {
      if (!this.sent.has(key)) throw new Violation(`${this.path}: ${key} was never sent`);
    }
    for (const key of this.sent.keys()) {
      if (!seen.has(key)) throw new Violation(`${this.path}: ${key} is lost`);
    }
    return keys;
  }

  #note(headers) {
    const [count, , , mode] = FANOUT.map((name) => headers.get(`stream-fanout-${name}`));
    if (!/^\d+$/.test(count) || mode === null) {
      throw new Violation(`${this.path}: a publish without headers of its fan-out`);
    }
    this.modes[mode] = (this.modes[mode] ?? 0) + 1;
  }

  async #publishOn() {
    this.#names += 1;
    const by = `${this.path}${this.#names}`;
    for (let seq = 0, n = 0; this.#running && seq < BATCHES_A_ROUND; seq += 1) {
      const count = 1 + Math.floor(this.random() * 3);
      const pad = () => "p".repeat(Math.floor(this.random() ** 2 * 200));
      const messages = Array.from({ length: count }, (_, at) => ({ by, n: n + at, pad: pad() }));
      n += count;
      // What is posted to the stream itself reaches subscribers, too.
      await this.publish(by, seq, messages, seq % 5 === 4 ? this.url : this.publishUrl);
      if (this.random() < 0.2) await sleep(this.random() * 30);
    }
  }
}
