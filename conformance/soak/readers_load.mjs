// The appends: small ones all the time, bursts, and now and then one of more than a megabyte.
//
// Every append has a producer, so that it can be repeated, and says in its first message whose it
// is. Writers wait while their readers are far behind: what is asked for is endurance, not speed.
import { ask, sleep } from "./http.mjs";
import { Truth } from "./readers_truth.mjs";

const CREATED = { first: [201], again: [200] };
const APPENDED = { first: [200], again: [204] };
const MIB = 1 << 20;
const POOL_CHARACTERS = 4 * MIB;
const BACKLOG_BYTES_MAX = MIB;
const BURST_PRODUCERS = 12;

export const KINDS = {
  json: { type: "application/json" },
  text: { type: "text/plain; charset=utf-8" },
  binary: { type: "application/octet-stream" },
};

/** Streams that move to the object store, and others that are never large enough. */
const STREAMS = [
  { kind: "json", isBusy: true },
  { kind: "text", isBusy: true },
  { kind: "binary", isBusy: true },
  { kind: "json", isBusy: false },
  { kind: "text", isBusy: false },
  { kind: "binary", isBusy: false },
];
const FIRST_BYTES = { busy: 8 * MIB, quiet: 20_000 };

/** Makes appends: their bytes in the log, and what is sent. */
export class Maker {
  #pool;
  #at = 0;

  constructor(random) {
    this.random = random;
    const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789é€\n ";
    this.#pool = Array.from(
      { length: 1 << 16 },
      () => alphabet[Math.floor(random() * alphabet.length)],
    ).join("");
    this.#pool = this.#pool.repeat(POOL_CHARACTERS / this.#pool.length);
    this.raw = Buffer.from(this.#pool, "utf16le");
  }

  /** An append of about so many bytes; in JSON streams it may be several messages. */
  append(kind, by, n, bytes) {
    if (kind === "binary") {
      const head = Buffer.from(`{"by":"${by}","n":${n},"raw":"`);
      const wire = Buffer.concat([head, this.#slice(this.raw, bytes), Buffer.from('"}\n')]);
      return { by, n, wire, body: wire };
    }
    const count = kind === "json" && this.random() < 0.5 ? 1 + Math.floor(this.random() * 4) : 1;
    const messages = Array.from({ length: count }, (_, part) => {
      const pad = this.#slice(this.#pool, bytes / count);
      return JSON.stringify(part === 0 ? { by, n, pad } : { part, pad });
    });
    // In text the line ends stay as they are.
    const text = kind === "text" ? `${messages[0].replaceAll("\\n", "\n")}\n` : messages.join(",");
    if (kind === "text") return { by, n, wire: Buffer.from(text), body: text };
    const wire = Buffer.from(messages.map((message) => `${message},\n`).join(""));
    return { by, n, wire, body: `[${text}]` };
  }

  /** Mostly short ones. */
  small() {
    return 20 + Math.floor(this.random() ** 3 * 3000);
  }

  #slice(from, length) {
    this.#at = (this.#at + 7919) % (from.length >> 1);
    return from.slice(this.#at, this.#at + Math.min(length, from.length >> 1));
  }
}

export class Load {
  truths = [];
  isRunning = false;
  #producers = new Map();
  #answeredMs = [];

  /** Mean pauses: between small appends to a stream, large ones, and those of one socket. */
  constructor(url, random, { pauseMs, largeEveryMs, socketPauseMs }) {
    this.url = url;
    this.random = random;
    this.maker = new Maker(random);
    this.pauseMs = pauseMs;
    this.largeEveryMs = largeEveryMs;
    this.socketPauseMs = socketPauseMs;
  }

  /** Makes the streams and their first bytes. */
  async prepare() {
    for (const [number, { kind, isBusy }] of STREAMS.entries()) {
      const url = `${this.url}/v1/soak/stream/${isBusy ? "busy" : "quiet"}/${kind}-${number}`;
      await ask(url, CREATED, { method: "PUT", headers: { "content-type": KINDS[kind].type } });
      const truth = new Truth(url, kind);
      truth.isBusy = isBusy;
      this.truths.push(truth);
      const wanted = isBusy ? FIRST_BYTES.busy : FIRST_BYTES.quiet;
      while (truth.length < wanted) await this.#append(truth, "first", isBusy ? 50_000 : 500);
    }
  }

  /** Appends until it is stopped; resolves when everything is answered. */
  run() {
    this.isRunning = true;
    const writers = this.truths.flatMap((truth) =>
      truth.isBusy
        ? [this.#write(truth, 1), this.#burst(truth)]
        : [this.#write(truth, 2)],
    );
    return Promise.all([...writers, this.#large()]);
  }

  stop() {
    this.isRunning = false;
  }

  /** How long answers took; what is counted before this is called is forgotten. */
  takeLatency() {
    const sorted = this.#answeredMs.splice(0).sort((a, b) => a - b);
    const at = (share) => Math.round(sorted[Math.floor(sorted.length * share)] ?? 0);
    return `POSTs answered after ${at(0.5)} ms (half), ${at(0.99)} ms (99 %)`;
  }

  hasRoom(truth) {
    return truth.backlog <= BACKLOG_BYTES_MAX;
  }

  async #write(truth, slowness) {
    while (this.isRunning) {
      await this.#pause(this.pauseMs * slowness);
      await this.#room(truth);
      await this.#append(truth, "small", this.maker.small());
    }
  }

  /** Many at once: they become groups. */
  async #burst(truth) {
    while (this.isRunning) {
      await this.#pause(this.pauseMs * 15);
      await this.#room(truth);
      const rounds = 1 + Math.floor(this.random() * 4);
      const names = Array.from({ length: BURST_PRODUCERS }, (_, at) => `burst${at}`);
      const series = async (name) => {
        for (let n = 0; n < rounds; n += 1) await this.#append(truth, name, this.maker.small());
      };
      await Promise.all(names.map(series));
    }
  }

  /** One to each stream that takes part, of the largest. */
  async appendLarge() {
    for (const truth of this.truths.filter(({ isBusy }) => isBusy)) {
      await this.#append(truth, "large", 2 * MIB);
    }
  }

  /** One at a time, over all streams that take part. */
  async #large() {
    const busy = this.truths.filter(({ isBusy }) => isBusy);
    for (let n = 0; this.isRunning && this.largeEveryMs > 0; n += 1) {
      await this.#pause(this.largeEveryMs);
      const truth = busy[n % busy.length];
      await this.#room(truth);
      const bytes = MIB + Math.floor(this.random() ** 2 * MIB);
      if (this.isRunning) await this.#append(truth, "large", bytes);
    }
  }

  async #append(truth, name, bytes) {
    const key = `${name} ${truth.url}`;
    const n = this.#producers.get(key) ?? 0;
    this.#producers.set(key, n + 1);
    const append = this.maker.append(truth.kind, name, n, bytes);
    const headers = {
      "content-type": KINDS[truth.kind].type,
      "producer-id": name,
      "producer-epoch": "0",
      "producer-seq": String(n),
    };
    const started = performance.now();
    const answer = await ask(truth.url, APPENDED, { method: "POST", headers, body: append.body });
    this.#answeredMs.push(performance.now() - started);
    truth.confirm(append, answer.status === 200 ? answer.next : undefined);
  }

  /** Waits while most readers are behind. */
  async #room(truth) {
    while (this.isRunning && !this.hasRoom(truth)) await sleep(50);
  }

  /** About so long, or until there is nothing more to do. */
  async #pause(meanMs) {
    const until = performance.now() + meanMs * (0.5 + this.random());
    for (;;) {
      const left = until - performance.now();
      if (left <= 0 || !this.isRunning) return;
      await sleep(Math.min(left, 500));
    }
  }
}
