// Sessions of the fan-out soak: when each was subscribed to what, and whether its stream says so.
//
// A session has everything that was stored while it was subscribed, in the source's order, and each
// message once. What was stored while a subscription was being made may be there or not, and so may
// the last messages before the end of one, which were still on their way.
import { Violation, ask, sleep } from "./http.mjs";
import { PROJECT, keyOf, readOn } from "./fanout_sources.mjs";

const CREATED = { first: [201], again: [200] };
const OK = { first: [200] };
const JSON_BODY = { "content-type": "application/json" };

export class Session {
  /** Per source: windows `{ asked, from, to, ended }`, the latter two only when it is over. */
  #windows = new Map();
  /** Per source: keys of messages in the order in which they came. */
  #got = new Map();
  #offset = "-1";

  /** `wraps`: its messages stand in envelopes. */
  constructor(server, id, sources, { wraps = false } = {}) {
    this.server = server;
    this.id = id;
    this.sources = sources;
    this.wraps = wraps;
    this.type = sources[0].type;
    this.url = `${server}/v1/${PROJECT}/stream/session/${id}`;
    for (const { path } of sources) {
      this.#windows.set(path, []);
      this.#got.set(path, []);
    }
  }

  /** Creates it, and subscribes it to all of its sources in one request. */
  async create() {
    const body = JSON.stringify({ contentType: this.type, envelope: this.wraps });
    const url = `${this.server}/v1/${PROJECT}/session/${this.id}`;
    await ask(url, CREATED, { method: "PUT", headers: JSON_BODY, body });
    const subscriptions = this.sources.map(({ path }) => ({ streamId: path }));
    const asked = performance.now();
    const wish = { sessionId: this.id, subscriptions };
    for (;;) {
      const { results } = await this.#ask("POST", "subscribe/batch", wish);
      if (results.every(({ subscribed }) => subscribed)) break;
      const refused = results.find(({ subscribed }) => !subscribed);
      if (refused.error.code !== "UNAVAILABLE") {
        throw new Violation(`${this.id}: ${JSON.stringify(refused)}`);
      }
      await sleep(50);
    }
    const from = performance.now();
    for (const windows of this.#windows.values()) windows.push({ asked, from });
  }

  /** Ends the subscription to a source, or begins it anew. */
  async toggle(source) {
    const windows = this.#windows.get(source.path);
    const wish = { sessionId: this.id, streamId: source.path };
    const last = windows.at(-1);
    if (last.ended === undefined) {
      last.to = performance.now();
      await this.#ask("DELETE", "unsubscribe", wish);
      last.ended = performance.now();
    } else {
      const asked = performance.now();
      await this.#ask("POST", "subscribe", wish);
      windows.push({ asked, from: performance.now() });
    }
  }

  isSubscribedTo({ path }) {
    return this.#windows.get(path)?.at(-1).ended === undefined && this.#windows.has(path);
  }

  /** Messages so far. */
  get count() {
    return [...this.#got.values()].reduce((sum, keys) => sum + keys.length, 0);
  }

  /** Reads what is new. Anything that no source can have sent is a violation. */
  async read() {
    const { messages, offset } = await readOn(this.url, this.type, this.#offset);
    this.#offset = offset;
    for (const message of messages) this.#take(message);
  }

  /** Whether everything of the sources that it is subscribed to has come; `logs`: keys by path. */
  hasAll(logs) {
    return this.sources.filter((source) => this.isSubscribedTo(source)).every(({ path, sent }) => {
      const last = logs.get(path).at(-1);
      // Nothing may have been published since it came back.
      const { from } = this.#windows.get(path).at(-1);
      const isAwaited = logs.get(path).some((key) => sent.get(key).sent >= from);
      return !isAwaited || this.#got.get(path).at(-1) === last;
    });
  }

  /** Compares all that it has with what the sources hold. */
  check(logs) {
    for (const source of this.sources) this.#checkSource(source, logs.get(source.path));
  }

  #take(message) {
    const plain = { stream: this.#pathOf(message), data: message };
    const { stream, data } = this.wraps ? message : plain;
    const got = this.#got.get(stream);
    if (got === undefined || data === undefined) {
      this.#fail(`has ${JSON.stringify(message).slice(0, 200)}`);
    }
    got.push(keyOf(data));
  }

  /** Names of publishers begin with the path of their source. */
  #pathOf({ by }) {
    return /^[a-z]+/.exec(by ?? "")?.[0];
  }

  #checkSource({ path, sent }, log) {
    const places = new Map(log.map((key, at) => [key, at]));
    const got = this.#got.get(path);
    let before = -1;
    for (const key of got) {
      const at = places.get(key);
      if (at === undefined) this.#fail(`has ${key}, which ${path} has not`);
      if (at <= before) this.#fail(`has ${key} after ${log[before]}`);
      before = at;
    }
    const has = new Set(got);
    const windows = this.#windows.get(path);
    for (const { from, to = Infinity, ended } of windows) {
      const isInside = (key) => sent.get(key).sent >= from && sent.get(key).acked <= to;
      const first = log.findIndex(isInside);
      // Whoever leaves may leave before the last messages have come.
      const end = ended === undefined ? log.length - 1 : log.findLastIndex(isInside);
      const isCut = (key, at) => at <= end && has.has(key);
      const last = ended === undefined ? end : log.findLastIndex(isCut);
      if (first < 0) continue;
      const missing = log.slice(first, last + 1).filter((key) => !has.has(key));
      if (missing.length > 0) {
        const places = missing.map((key) => `${key} at ${log.indexOf(key)}`).join(", ");
        const all = JSON.stringify(windows.map((window) => this.#inPlaces(window, log, sent)));
        this.#fail(`lacks, of ${path}, ${places}; ${has.size} of ${log.length} are there; ${all}`);
      }
    }
    for (const [at, { ended }] of windows.entries()) {
      const again = windows[at + 1]?.asked ?? Infinity;
      const isBetween = (key) => sent.get(key).sent > ended && sent.get(key).acked < again;
      const extra = log.find((key) => has.has(key) && isBetween(key));
      if (extra !== undefined) this.#fail(`has ${extra} of ${path}, when it was not subscribed`);
    }
  }

  /** Where messages were when a window began and ended, for whoever looks into a failure. */
  #inPlaces(window, log, sent) {
    const at = (time) => log.findIndex((key) => sent.get(key).acked >= time);
    return Object.fromEntries(Object.entries(window).map(([name, time]) => [name, at(time)]));
  }

  async #ask(method, operation, wish) {
    const url = `${this.server}/v1/${PROJECT}/${operation}`;
    const body = JSON.stringify(wish);
    const { bytes } = await ask(url, OK, { method, headers: JSON_BODY, body });
    return JSON.parse(bytes.toString());
  }

  #fail(what) {
    throw new Violation(`session ${this.id} ${what}`);
  }
}

/** A session's kind and sources, by its number. */
export function sessionOf(server, number, { few, many, text }) {
  const id = `s${number}`;
  const at = number % 20;
  if (at === 0) return new Session(server, id, [few, many]);
  if (at < 10) return new Session(server, id, [many]);
  if (at < 15) return new Session(server, id, [many], { wraps: true });
  if (at < 16) return new Session(server, id, [many, few], { wraps: true });
  return new Session(server, id, [text]);
}
