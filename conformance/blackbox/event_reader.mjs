// A reader of SSE responses that keeps what it got: events in order, comments, and the end.
import { expect } from "vitest";

import { read } from "./client.mjs";

const WAIT_MS = 10_000;

export class EventReader {
  /** `{ kind: "data", text }` or `{ kind: "control", ...fields }`. */
  events = [];
  comments = 0;
  /** Whether the response has ended in good order. */
  ended = false;
  failure;

  #aborter = new AbortController();
  #hasLeft = false;
  #wake = () => {};
  #lines = "";
  #open = { kind: undefined, data: [] };

  /** Connects; the answer must be an event stream. */
  static async open(url, offset, options = {}) {
    const reader = new EventReader();
    const { signal } = reader.#aborter;
    const response = await read(url, offset, { live: "sse", signal, ...options });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toContain("text/event-stream");
    reader.response = response;
    reader.isBase64 = response.headers.get("stream-sse-data-encoding") === "base64";
    reader.done = reader.#run(response.body);
    return reader;
  }

  /** Leaves; what comes later does not count. */
  close() {
    this.#hasLeft = true;
    this.#aborter.abort();
  }

  get controls() {
    return this.events.filter(({ kind }) => kind === "control");
  }

  /** The last offset that a control event named. */
  get offset() {
    return this.controls.at(-1)?.streamNextOffset;
  }

  get upToDate() {
    return this.controls.at(-1)?.upToDate === true;
  }

  get closed() {
    return this.controls.at(-1)?.streamClosed === true;
  }

  /** All data as bytes. */
  get bytes() {
    return Buffer.concat(
      this.#decoded((text) =>
        this.isBase64 ? Buffer.from(text.replace(/\n/g, ""), "base64") : Buffer.from(text),
      ),
    );
  }

  get text() {
    return this.bytes.toString();
  }

  /** All data as messages of a JSON stream. */
  get messages() {
    return this.#decoded(JSON.parse).flat();
  }

  // Each event is decoded once, however often somebody looks.
  #decoded(decode) {
    const data = this.events.filter(({ kind }) => kind === "data");
    return data.map((event) => (event.decoded ??= decode(event.text)));
  }

  /** Waits until `condition(this)` holds. */
  async until(condition, what, timeoutMs = WAIT_MS) {
    const deadline = performance.now() + timeoutMs;
    while (!condition(this)) {
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`no ${what} within ${timeoutMs} ms`);
      if (this.failure !== undefined) throw this.failure;
      if (this.ended) throw new Error(`the response ended before ${what}`);
      await new Promise((wake) => {
        this.#wake = wake;
        setTimeout(wake, Math.min(left, 100));
      });
    }
    return this;
  }

  /** Waits until the reader knows that it is at the tail. */
  untilUpToDate() {
    return this.until(({ upToDate }) => upToDate, "up to date");
  }

  /** Waits until the response has ended, which it must do in good order. */
  async untilEnd(timeoutMs = WAIT_MS) {
    const timer = setTimeout(() => this.close(), timeoutMs);
    await this.done;
    clearTimeout(timer);
    expect(this.failure?.message, "the end of the response").toBeUndefined();
    expect(this.ended).toBe(true);
    return this;
  }

  async #run(body) {
    try {
      const decoder = new TextDecoder();
      for await (const chunk of body) {
        if (this.#hasLeft) return;
        this.#take(decoder.decode(chunk, { stream: true }));
        this.#wake();
      }
      this.ended = true;
    } catch (error) {
      this.failure = error;
    }
    this.#wake();
  }

  #take(text) {
    this.#lines += text;
    const lines = this.#lines.split("\n");
    this.#lines = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    // The server ends lines with LF; a CR would be one of the data's that was not split.
    if (line.includes("\r")) throw new Error(`a CR in ${JSON.stringify(line.slice(0, 100))}`);
    if (line === "") {
      this.#dispatch();
      return;
    }
    if (line.startsWith(":")) {
      this.comments += 1;
      return;
    }
    const [, field, value] = /^([a-z]+):? ?([^]*)$/.exec(line);
    if (field === "event") this.#open.kind = value;
    else if (field === "data") this.#open.data.push(value);
    else throw new Error(`a field ${field}`);
  }

  #dispatch() {
    const { kind, data } = this.#open;
    this.#open = { kind: undefined, data: [] };
    if (kind === undefined) return;
    const text = data.join("\n");
    if (kind === "control") this.events.push({ kind, ...JSON.parse(text) });
    else this.events.push({ kind, text });
  }
}

/** What holds for the events of any reader. */
export function expectOrderly(reader) {
  const { events, controls } = reader;
  const offsets = controls.map(({ streamNextOffset }) => streamNextOffset);
  expect(offsets, "offsets go forward").toEqual([...offsets].sort());
  for (const [at, event] of events.entries()) {
    // Every data event is followed by the control event that belongs to it.
    if (event.kind === "data") expect(events[at + 1]?.kind).toBe("control");
    if (event.kind === "control" && !event.streamClosed) {
      expect(event.streamCursor).toMatch(/^\d+$/);
    }
  }
}

/** The data of a raw answer of base64 events, its head and its framing included. */
export function decodeEvents(chunks) {
  const text = unchunked(Buffer.concat(chunks)).toString("latin1");
  const data = [...text.matchAll(/^data: ?([A-Za-z0-9+/=]+)$/gm)];
  return Buffer.concat(data.map(([, text]) => Buffer.from(text, "base64")));
}

/** The body of a raw answer in chunks (RFC 9112 §7.1), as far as it came. */
function unchunked(answer) {
  const parts = [];
  for (let at = answer.indexOf("\r\n\r\n") + 4; at < answer.length; ) {
    const line = answer.indexOf("\r\n", at);
    const length = parseInt(answer.toString("latin1", at, line), 16);
    if (line < 0 || !(length > 0)) break;
    parts.push(answer.subarray(line + 2, line + 2 + length));
    at = line + 2 + length + 2;
  }
  return Buffer.concat(parts);
}
