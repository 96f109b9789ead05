// A WebSocket client that keeps what it got: frames in order, answers to its appends, the end.
//
// Every frame is checked for its form, and every ack and nack for its turn, whatever a test is
// about: a reader that got something else fails whoever waits for it.
import { expect } from "vitest";
import WebSocket from "ws";

import { JSON_TYPE, MIB, SERVER, created, freshStream, positionOf } from "./client.mjs";

export const SUBPROTOCOL = "durable-streams.v1";
/** The largest integer that credit and ids may be. */
export const SAFE_INTEGER_MAX = 2 ** 53 - 1;

const ORIGIN = "https://example.com";
const WAIT_MS = 10_000;
// What the fields of each frame of the server may be, and which must be there.
const FORMS = {
  data: { needs: ["payload", "streamNextOffset"], may: [] },
  control: { needs: ["streamNextOffset"], may: ["streamCursor", "upToDate", "streamClosed"] },
  ack: {
    needs: ["id", "streamNextOffset"],
    may: ["count", "duplicate", "streamClosed", "producer"],
  },
  nack: { needs: ["id", "error"], may: [] },
  error: { needs: ["code", "message"], may: ["details"] },
};
const OFFSET = /^\d{16}_\d{16}$/;

/** The `ws:` URL of a reader at an offset; `query` holds further parameters. */
export function socketUrl(url, offset, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ offset, live: "ws", ...query })) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  return `${url.replace(/^http/, "ws")}?${parameters}`;
}

function connect(target, { protocols = [SUBPROTOCOL], headers = {}, compress = false } = {}) {
  return new WebSocket(target, protocols, {
    headers,
    origin: ORIGIN,
    perMessageDeflate: compress && { threshold: 0 },
    maxPayload: 64 * MIB,
  });
}

/** The answer that is no upgrade, as a `Response` like that of `fetch`. */
export function refusal(target, options) {
  return new Promise((done, fail) => {
    const socket = connect(target, options);
    socket.on("error", fail);
    socket.on("open", () => {
      socket.terminate();
      fail(new Error("the socket was opened"));
    });
    socket.on("unexpected-response", (_, answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => {
        const { statusCode: status, rawHeaders } = answer;
        const headers = new Headers();
        for (let at = 0; at < rawHeaders.length; at += 2) {
          headers.append(rawHeaders[at], rawHeaders[at + 1]);
        }
        done(new Response(Buffer.concat(chunks), { status, headers }));
        socket.terminate();
      });
    });
  });
}

function checkKeys(kind, fields) {
  const { needs, may } = FORMS[kind];
  const keys = Object.keys(fields);
  const missing = needs.filter((key) => !keys.includes(key));
  const unknown = keys.filter((key) => !needs.includes(key) && !may.includes(key));
  if (missing.length + unknown.length === 0) return;
  throw new Error(`${kind} frame: missing [${missing}], unknown [${unknown}]`);
}

function check(condition, frame, what) {
  if (condition) return;
  throw new Error(`${what}: ${JSON.stringify(frame).slice(0, 200)}`);
}

const RULES = {
  data: (frame) => {
    check(Array.isArray(frame.payload), frame, "a payload that is no array");
    check(frame.payload.length > 0, frame, "an empty payload");
  },
  control: (frame) => {
    for (const name of ["upToDate", "streamClosed"]) {
      check(!(name in frame) || frame[name] === true, frame, `${name} that is not true`);
    }
    const hasCursor = /^\d+$/.test(frame.streamCursor ?? "");
    check(hasCursor !== (frame.streamClosed === true), frame, "a cursor, or none, out of place");
  },
  ack: (frame) => {
    const { count = 1, duplicate = true, streamClosed = true } = frame;
    check(Number.isSafeInteger(count) && count >= 1, frame, "a count that is none");
    check(duplicate === true && streamClosed === true, frame, "a mark that is not true");
    check(!("duplicate" in frame) || count === 1, frame, "a duplicate that answers others");
    const { producer } = frame;
    if (producer === undefined) return;
    check(count === 1, frame, "an ack with a producer that answers others");
    check(Object.keys(producer).sort().join() === "epoch,seq", frame, "fields of a producer");
  },
  nack: (frame) => {
    checkKeys("error", frame.error);
    RULES.error(frame.error);
  },
  error: (frame) => {
    check(/^[A-Z][A-Z_]+$/.test(frame.code), frame, "a code that is none");
    check(/^\S.*\S$/s.test(frame.message), frame, "a message that is none");
  },
};

/** A text frame of the server: `{ kind, ...fields }`. Throws when it is none of the contract's. */
export function parseText(text) {
  const json = JSON.parse(text);
  const { type, ...fields } = json;
  const kind = type ?? Object.keys(json)[0];
  const isTyped = ["data", "control"].includes(type);
  const isNamed = type === undefined && ["ack", "nack", "error"].includes(kind);
  if (!isTyped && !isNamed) throw new Error(`no frame of the contract: ${text.slice(0, 200)}`);
  if (isNamed && Object.keys(json).length !== 1) throw new Error(`two in one: ${text}`);
  const frame = isTyped ? fields : json[kind];
  checkKeys(kind, frame);
  RULES[kind](frame);
  const offset = frame.streamNextOffset;
  check(offset === undefined || OFFSET.test(offset), frame, "an offset that is none");
  return { kind, ...frame };
}

export class SocketReader {
  /** `{ kind: "bytes", bytes }` or `{ kind, ...fields }` as `parseText` makes them. */
  frames = [];
  /** How the socket was closed: `{ code, reason }`. */
  end;
  failure;

  #socket;
  #wake = () => {};
  #unanswered = [];
  #nextId = 0;

  /**
   * Connects and gets an open socket. Options: `credit`, `query`, `protocols`, `headers`,
   * `compress`.
   */
  static async open(url, offset, { credit, query, ...options } = {}) {
    const reader = new SocketReader();
    const socket = connect(socketUrl(url, offset, { credit, ...query }), options);
    reader.#socket = socket;
    reader.done = new Promise((done) => {
      socket.on("close", (code, reason) => {
        reader.end = { code, reason: reason.toString() };
        for (const { done: answer } of reader.#unanswered.splice(0)) answer({ isLost: true });
        reader.#wake();
        done();
      });
    });
    socket.on("message", (data, isBinary) => reader.#take(data, isBinary));
    await new Promise((done, fail) => {
      socket.once("open", done);
      socket.once("error", fail);
    });
    socket.on("error", (error) => (reader.failure ??= error));
    return reader;
  }

  /** The subprotocol that the server chose; empty for none. */
  get protocol() {
    return this.#socket.protocol;
  }

  /** Extensions that were agreed on. */
  get extensions() {
    return this.#socket.extensions;
  }

  get controls() {
    return this.frames.filter(({ kind }) => kind === "control");
  }

  /** Frames that count as credit. */
  get dataFrames() {
    return this.frames.filter(({ kind }) => kind === "data" || kind === "bytes");
  }

  /** The last offset that a frame named to resume from. */
  get offset() {
    const named = ({ kind }) => kind === "control" || kind === "data";
    return this.frames.findLast(named)?.streamNextOffset;
  }

  get upToDate() {
    const last = this.frames.findLast(({ kind }) => ["data", "bytes", "control"].includes(kind));
    return last?.upToDate === true;
  }

  get closed() {
    return this.controls.at(-1)?.streamClosed === true;
  }

  /** The error that the server named before it closed. */
  get error() {
    return this.frames.find(({ kind }) => kind === "error");
  }

  /** All data as messages of a JSON stream. */
  get messages() {
    return this.frames.flatMap(({ kind, payload }) => (kind === "data" ? payload : []));
  }

  /** All data as bytes. */
  get bytes() {
    return Buffer.concat(this.frames.flatMap(({ bytes }) => bytes ?? []));
  }

  get text() {
    return this.bytes.toString();
  }

  /** Appends that have no answer yet. */
  get unanswered() {
    return this.#unanswered.length;
  }

  /** Waits until `condition(this)` holds. */
  async until(condition, what, timeoutMs = WAIT_MS) {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      if (this.failure !== undefined) throw this.failure;
      if (condition(this)) return this;
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`no ${what} within ${timeoutMs} ms`);
      if (this.end !== undefined) {
        const end = JSON.stringify({ ...this.end, error: this.error });
        throw new Error(`the socket was closed before ${what}: ${end}`);
      }
      await new Promise((wake) => {
        this.#wake = wake;
        setTimeout(wake, Math.min(left, 100));
      });
    }
  }

  /** Waits until the reader knows that it is at the tail. */
  untilUpToDate() {
    return this.until(({ upToDate }) => upToDate, "up to date");
  }

  /** Waits until a control frame says that the reader is at an offset. */
  untilAt(offset, timeoutMs) {
    const isThere = ({ controls }) => controls.at(-1)?.streamNextOffset === offset;
    return this.until(isThere, `offset ${offset}`, timeoutMs);
  }

  /** Waits until the server has closed the socket, which it must do with this code. */
  async untilEnd(code = 1000, timeoutMs = WAIT_MS) {
    await this.until(({ end }) => end !== undefined, `close with ${code}`, timeoutMs);
    expect({ ...this.end, error: this.error }).toMatchObject({ code });
    return this;
  }

  /** Waits for an error frame with `code`, as the last frame, and a close with `closeCode`. */
  async untilError(code, closeCode, timeoutMs) {
    await this.untilEnd(closeCode, timeoutMs);
    expect(this.frames.at(-1)).toMatchObject({ kind: "error", code });
    return this;
  }

  /** Sends text, bytes, or an object as JSON. */
  send(frame) {
    const isRaw = typeof frame === "string" || Buffer.isBuffer(frame);
    this.#socket.send(isRaw ? frame : JSON.stringify(frame));
  }

  grant(credit) {
    this.send({ credit });
  }

  /** Appends; resolves with `{ ack }`, `{ nack }`, or `{ isLost }` when the socket broke before. */
  append(fields) {
    const id = fields.id ?? (this.#nextId += 1);
    return this.appendText(id, JSON.stringify({ append: { id, ...fields } }));
  }

  /** Appends with a frame that is written by hand. */
  appendText(id, text) {
    return new Promise((done) => {
      this.#unanswered.push({ id, done });
      this.send(text);
    });
  }

  /** Appends, which must succeed; the ack. */
  async acked(fields) {
    const answer = await this.append(fields);
    if (answer.ack === undefined) throw new Error(`no ack: ${JSON.stringify(answer)}`);
    return answer.ack;
  }

  /** Appends, which must be refused with this code; the error. */
  async nacked(fields, code) {
    const answer = await this.append(fields);
    const what = JSON.stringify(fields).slice(0, 200);
    expect(answer, what).toMatchObject({ nack: { error: { code } } });
    return answer.nack.error;
  }

  /** Leaves in good order. */
  close(code = 1000) {
    this.#socket.close(code);
    return this.done;
  }

  /** Leaves by breaking the connection off: orderly, or with a reset. */
  abandon(ending = "fin") {
    if (ending === "rst") this.#socket._socket.resetAndDestroy();
    else this.#socket.terminate();
    return this.done;
  }

  #take(data, isBinary) {
    try {
      if (this.error !== undefined) throw new Error("a frame after the error");
      const frame = isBinary ? { kind: "bytes", bytes: data } : parseText(data.toString());
      // Appends are answered even behind the end of the stream.
      if (this.closed && !["ack", "nack"].includes(frame.kind)) {
        throw new Error(`${frame.kind} after the end of the stream`);
      }
      if (this.frames.length === 0 && !["control", "error"].includes(frame.kind)) {
        throw new Error(`the first frame is ${frame.kind}`);
      }
      this.frames.push(frame);
      if (frame.kind === "ack" || frame.kind === "nack") this.#answer(frame);
    } catch (error) {
      this.failure ??= error;
    }
    this.#wake();
  }

  // Answers come in the order of the appends: each has its turn.
  #answer({ kind, ...fields }) {
    const answered = this.#unanswered.splice(0, kind === "ack" ? (fields.count ?? 1) : 1);
    const { id } = answered.at(-1) ?? {};
    if (id !== fields.id || answered.length !== (fields.count ?? 1)) {
      this.failure ??= new Error(`${kind} out of turn: ${JSON.stringify(fields)}, not ${id}`);
    }
    for (const { done } of answered) done({ [kind]: fields });
  }
}

/** What holds for the frames of any reader that stands where its socket began. */
export function expectOrderlySocket(reader) {
  const { frames } = reader;
  expect(frames[0].kind, "the first frame").toBe("control");
  let at = frames[0].streamNextOffset;
  let bytes = 0;
  let isBehind = false;
  for (const frame of frames) {
    if (frame.kind === "bytes") {
      expect(frame.bytes.length).toBeGreaterThan(0);
      expect(frame.bytes.length).toBeLessThanOrEqual(MIB);
      bytes += frame.bytes.length;
      isBehind = true;
    }
    if (frame.kind === "data") {
      expect(frame.streamNextOffset > at, `${frame.streamNextOffset} after ${at}`).toBe(true);
      at = frame.streamNextOffset;
      isBehind = true;
    }
    if (frame.kind === "control") {
      const next = frame.streamNextOffset;
      expect(next >= at, `${next} after ${at}`).toBe(true);
      if (bytes > 0) expect(positionOf(next) - positionOf(at)).toBe(bytes);
      at = next;
      bytes = 0;
      isBehind = false;
    }
  }
  expect(isBehind, "data without its control frame").toBe(false);
}

/** Bytes as `append` takes them. */
export const base64 = (bytes) => Buffer.from(bytes).toString("base64");

/** A new stream, and a socket that appends to it and reads from its tail on. */
export async function attached(type = JSON_TYPE, { server = SERVER, ...options } = {}) {
  const url = freshStream("ws", server);
  await created(url, { type, ...options });
  return { url, socket: await SocketReader.open(url, "now") };
}
