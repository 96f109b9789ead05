// Long-poll and SSE readers, over `node:http`: a response that is paused leaves its socket unread.
import { Agent, get } from "node:http";

import { Connection } from "./readers_reader.mjs";

const SEPARATOR = Buffer.from(",\n");
const EVENT_END = Buffer.from("\n\n");
const LINE_BREAK = 10;
const DATA_EVENT = Buffer.from("event: data\n");
const CONTROL_EVENT = Buffer.from("event: control\ndata:");
const COMMENT = Buffer.from(":");

const agent = new Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: Infinity });

/** The log's bytes in an array of messages, uncopied. */
export function wireParts(array) {
  return array.length > 2 ? [array.subarray(1, -1), SEPARATOR] : [];
}

class HttpConnection extends Connection {
  #request;
  #response;

  leave() {
    this.hasLeft = true;
    this.#request?.destroy();
    this.end();
  }

  pause() {
    this.isPaused = true;
    this.#response?.pause();
  }

  resume() {
    this.isPaused = false;
    this.#response?.resume();
  }

  /** Asks; `handle` gets each response, `again` is called when a kept connection was stale. */
  ask(mode, options, handle, again) {
    const { reader } = this;
    const url = `${reader.truth.url}?${reader.query}&live=${mode}`;
    const request = get(url, options);
    this.#request = request;
    request.on("error", (error) => {
      if (!this.hasLeft && request.reusedSocket && error.code === "ECONNRESET") again();
      else this.broke(error.code ?? error.message);
    });
    request.on("response", (response) => {
      this.#response = response;
      response.on("error", () => {});
      response.on("close", () => {
        if (!response.complete) this.broke("the response broke off");
      });
      handle(response);
      if (this.isPaused) response.pause();
    });
  }

  refused(response, body) {
    const text = Buffer.concat(body).toString().slice(0, 300);
    this.reader.fail(`got ${response.statusCode}: ${text}`);
  }
}

class LongPoll extends HttpConnection {
  constructor(reader) {
    super(reader);
    this.#poll();
  }

  #poll() {
    const poll = () => this.#poll();
    this.ask("long-poll", { agent }, (response) => this.#collect(response), poll);
  }

  #collect(response) {
    const body = [];
    response.on("data", (chunk) => body.push(chunk));
    response.on("end", this.guarded(() => {
      this.#take(response, body);
      this.#poll();
    }));
  }

  #take(response, body) {
    const { reader } = this;
    if (response.statusCode !== 200 && response.statusCode !== 204) this.refused(response, body);
    const bytes = body.length === 1 ? body[0] : Buffer.concat(body);
    const parts = reader.truth.kind === "json" ? wireParts(bytes) : [bytes];
    reader.cursor = response.headers["stream-cursor"];
    reader.gotUpTo(response.headers["stream-next-offset"], ...parts);
  }
}

class Sse extends HttpConnection {
  /** Chunks of the event that has not ended. */
  #parts = [];
  /** Data of a reader that does not know where it stands. */
  #unplaced = [];

  constructor(reader) {
    super(reader);
    this.ask("sse", { agent: false }, (response) => this.#follow(response), () => {});
  }

  #follow(response) {
    if (response.statusCode !== 200) {
      const body = [];
      response.on("data", (chunk) => body.push(chunk));
      response.on("end", this.guarded(() => this.refused(response, body)));
      return;
    }
    response.on("data", this.guarded((chunk) => this.#take(chunk)));
    response.on("end", this.guarded(() => {
      if (this.#parts.length > 0) this.reader.fail("got half an event before a clean end");
      this.reader.totals.ended("SSE recycled");
      this.end();
    }));
  }

  #take(chunk) {
    let at = 0;
    // The end of an event may itself have been cut in two.
    if (chunk[0] === LINE_BREAK && this.#parts.at(-1)?.at(-1) === LINE_BREAK) {
      this.#event(chunk.subarray(0, 1));
      at = 1;
    }
    for (;;) {
      const end = chunk.indexOf(EVENT_END, at);
      if (end < 0) break;
      this.#event(chunk.subarray(at, end + 2));
      at = end + 2;
    }
    if (at < chunk.length) this.#parts.push(chunk.subarray(at));
  }

  #event(last) {
    const isWhole = this.#parts.length === 0;
    const raw = isWhole ? last : Buffer.concat([...this.#parts, last]);
    this.#parts = [];
    if (startsWith(raw, COMMENT)) return;
    const { reader } = this;
    if (startsWith(raw, DATA_EVENT)) {
      const decode = DECODERS[reader.truth.kind];
      // Where `now` was, the control event behind the data says.
      if (reader.position === undefined) this.#unplaced.push(decode(raw));
      else reader.got(reader.truth.decoded(reader.position, raw, decode));
    } else if (startsWith(raw, CONTROL_EVENT)) {
      const { streamNextOffset, streamCursor } = JSON.parse(raw.subarray(CONTROL_EVENT.length));
      reader.cursor = streamCursor;
      reader.gotUpTo(streamNextOffset, ...this.#unplaced);
      this.#unplaced = [];
    } else {
      reader.fail(`got the event ${JSON.stringify(raw.toString("utf8", 0, 80))}`);
    }
  }
}

const startsWith = (bytes, head) =>
  bytes.length >= head.length && bytes.compare(head, 0, head.length, 0, head.length) === 0;

/** What stands in the data lines of an event: one optional space precedes it. */
function dataOf(raw) {
  const lines = raw.toString("utf8", DATA_EVENT.length, raw.length - EVENT_END.length).split("\n");
  return lines.map((line) => line.slice(line[5] === " " ? 6 : 5));
}

const DECODERS = {
  json: (raw) => Buffer.from(`${dataOf(raw).slice(1, -1).join("\n")},\n`),
  text: (raw) => Buffer.from(dataOf(raw).join("\n")),
  binary: (raw) => Buffer.from(dataOf(raw).join(""), "base64"),
};

export const longPoll = (reader) => new LongPoll(reader);
export const sse = (reader) => new Sse(reader);
