// The load: clients of every kind, each of which goes on until it is told to stop, and then until
// everything it has asked is answered.
import { Violation, ask, attempt, positionOf, sleep } from "./http.mjs";
import { BINARY_TYPE, JSON_TYPE, Log, wireOf } from "./log.mjs";

const CREATED = { first: [201], again: [200] };
const APPENDED = { first: [200], again: [204] };
const CLOSED = { first: [204] };
const DELETED = { first: [204], again: [404, 410] };
const FORKS_MAX = 10;
const CLOSED_A_ROUND = 3;

export class Load {
  /** Logs of all streams that are there. */
  logs = new Set();
  /** Streams that were deleted. */
  removed = 0;
  #running = false;
  #names = 0;
  #lasting = [];
  #forks = [];
  /** Forks that are being made: none of their sources may be deleted meanwhile. */
  #making = 0;
  #cyclers = [];

  constructor(url, projects, random) {
    this.url = url;
    this.projects = projects;
    this.random = random;
  }

  /** Makes the streams that last for all rounds. */
  async prepare() {
    for (let n = 0; n < 3; n += 1) this.#lasting.push(await this.#create(JSON_TYPE));
    for (let n = 0; n < 2; n += 1) this.#lasting.push(await this.#create(BINARY_TYPE));
    this.#cyclers = Array.from({ length: 3 }, () => ({ url: this.#freshUrl("cycle") }));
  }

  /** Starts everybody; resolves when all have stopped. */
  run() {
    this.#running = true;
    const clients = this.#lasting.flatMap((log) =>
      log.type === JSON_TYPE
        ? [this.#produce(log), this.#produce(log)]
        : [this.#write(log), this.#write(log), this.#write(log)],
    );
    clients.push(this.#wave(JSON_TYPE), this.#wave(BINARY_TYPE), this.#close());
    clients.push(this.#fork(), this.#fork(), this.#forkAndDelete());
    clients.push(...this.#cyclers.map((cycler) => this.#cycle(cycler)));
    return Promise.all(clients);
  }

  stop() {
    this.#running = false;
  }

  /** Compares what is new of every stream that was written to. */
  async check() {
    const logs = [...this.logs].filter((log) => !log.isQuiet);
    for (const log of logs) await log.check();
    for (const log of logs) log.isQuiet = log.retires === true;
  }

  /** Deletes a stream. */
  async remove(log) {
    await ask(log.url, DELETED, { method: "DELETE" });
    this.logs.delete(log);
    this.removed += 1;
  }

  #freshUrl(theme, project = this.projects[this.#names % this.projects.length]) {
    this.#names += 1;
    return `${this.url}/v1/${project}/stream/${theme}/${this.#names}`;
  }

  async #create(type, { url, inherited } = {}) {
    const headers = { "content-type": type };
    if (inherited !== undefined) {
      const { pathname } = new URL(inherited.log.url);
      headers["stream-forked-from"] = pathname;
      headers["stream-fork-offset"] = inherited.at;
      // Forks are of their source's project.
      url = this.#freshUrl("fork", pathname.split("/")[2]);
    }
    url ??= this.#freshUrl("log");
    await ask(url, CREATED, { method: "PUT", headers });
    const log = new Log(url, type, inherited);
    this.logs.add(log);
    return log;
  }

  #messages(by, n, count) {
    const pad = () => "p".repeat(Math.floor(this.random() ** 2 * 150));
    return Array.from({ length: count }, (_, at) => ({ by, n: n + at, pad: pad() }));
  }

  /** A producer of its own, which sends some batches and repeats each until it is answered. */
  async #produce(log, batches = Infinity) {
    this.#names += 1;
    const by = `p${this.#names}`;
    for (let seq = 0, n = 0; seq < batches && (this.#running || batches < Infinity); seq += 1) {
      const messages = this.#messages(by, n, 1 + Math.floor(this.random() * 3));
      n += messages.length;
      const headers = { "content-type": log.type, ...producer(by, seq) };
      const body = log.type === JSON_TYPE ? JSON.stringify(messages) : wireOf(messages);
      const answer = await ask(log.url, APPENDED, { method: "POST", headers, body });
      log.acknowledged(messages, answer.next, answer.status === 200);
      if (this.random() < 0.05) await this.#refusedGap(log, by, seq + 5);
    }
  }

  async #refusedGap(log, by, seq) {
    const messages = this.#messages(`gap${by}`, seq, 1);
    const headers = { "content-type": log.type, ...producer(by, seq) };
    const body = log.type === JSON_TYPE ? JSON.stringify(messages) : wireOf(messages);
    await ask(log.url, { first: [409] }, { method: "POST", headers, body });
    log.refused(messages);
  }

  /** A client without a producer: what has no answer is looked for before it is sent again. */
  async #write(log) {
    this.#names += 1;
    const by = `w${this.#names}`;
    log.open ??= [];
    const again = log.open.splice(0).filter((message) => !log.has(message));
    for (let n = 0; this.#running || again.length > 0; n += 1) {
      const message = again.pop() ?? this.#messages(by, n, 1)[0];
      const isBad = this.random() < 0.05;
      const headers = { "content-type": isBad ? "text/plain" : log.type };
      const answer = await attempt(log.url, { method: "POST", headers, body: wireOf([message]) });
      if (answer === undefined) {
        log.unknown([message]);
        log.open.push(message);
        await sleep(50);
      } else if (answer.status === 204 && !isBad) {
        log.acknowledged([message], answer.next, true);
      } else if (answer.status === 409 && isBad) {
        log.refused([message]);
      } else {
        throw new Violation(`POST ${log.url}: ${answer.status}: ${answer.bytes}`);
      }
    }
  }

  /** A stream of this round: its rotation has met no crash before. */
  async #wave(type) {
    const log = await this.#create(type);
    log.retires = true;
    await Promise.all([this.#produce(log), this.#produce(log)]);
  }

  async #close() {
    for (let n = 0; n < CLOSED_A_ROUND && this.#running; n += 1) {
      const log = await this.#create(JSON_TYPE);
      log.retires = true;
      await this.#produce(log, 1 + Math.floor(this.random() * 12));
      const headers = { "stream-closed": "true" };
      await ask(log.url, CLOSED, { method: "POST", headers });
      log.isClosed = true;
      const messages = this.#messages("late", 0, 1);
      const late = { "content-type": log.type };
      const body = JSON.stringify(messages);
      await ask(log.url, { first: [409] }, { method: "POST", headers: late, body });
      log.refused(messages);
    }
  }

  /** Forks lasting streams and their forks, writes to the forks, deletes the oldest. */
  async #fork() {
    while (this.#running) {
      const sources = [...this.#lasting, ...this.#forks];
      const source = sources[Math.floor(this.random() * sources.length)];
      const at = this.#offsetOf(source);
      if (at === undefined) {
        await sleep(10);
        continue;
      }
      this.#making += 1;
      const log = await this.#create(source.type, { inherited: { log: source, at } });
      this.#making -= 1;
      await this.#produce(log, 1 + Math.floor(this.random() * 8));
      await log.check();
      this.#forks.push(log);
      if (this.#forks.length > FORKS_MAX && this.#making === 0) {
        await this.remove(this.#forks.shift());
      }
    }
  }

  /** Some offset of a stream before which everything has been read. */
  #offsetOf({ offsets, text }) {
    const read = offsets.filter((offset) => positionOf(offset) <= text.length);
    return read[Math.floor(this.random() * read.length)];
  }

  /** A source that is deleted at once: its fork holds what it has of it. */
  async #forkAndDelete() {
    while (this.#running) {
      const source = await this.#create(JSON_TYPE);
      await this.#produce(source, 3 + Math.floor(this.random() * 15));
      await source.check();
      source.retires = true;
      const at = this.#offsetOf(source);
      // Without a first answer there is no offset to fork at.
      if (at === undefined) continue;
      const log = await this.#create(source.type, { inherited: { log: source, at } });
      await this.remove(source);
      await this.#produce(log, 1 + Math.floor(this.random() * 8));
      if (this.random() < 0.7) await this.remove(log);
      else log.retires = true;
    }
  }

  /** Lives of one path, one after the other; the last one of the round is left. */
  async #cycle(cycler) {
    while (this.#running) {
      if (cycler.log !== undefined) await this.#endLife(cycler);
      cycler.log = await this.#create(JSON_TYPE, { url: cycler.url });
      for (const offset of cycler.earlier ?? []) {
        await ask(`${cycler.url}?offset=${offset}`, { first: [400] });
      }
      await this.#produce(cycler.log, 1 + Math.floor(this.random() * 20));
    }
  }

  async #endLife(cycler) {
    const { log } = cycler;
    cycler.earlier = log.offsets.filter((offset) => positionOf(offset) > 0).slice(-2);
    cycler.log = undefined;
    await this.remove(log);
  }
}

function producer(id, seq) {
  return { "producer-id": id, "producer-epoch": "0", "producer-seq": String(seq) };
}
