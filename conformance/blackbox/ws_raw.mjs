// WebSocket frames by hand over a raw socket, for what no proper client sends, and for clients
// that do not read.
import { randomBytes } from "node:crypto";

import { eventually } from "./client.mjs";
import { open, requestHead } from "./raw_socket.mjs";
import { SUBPROTOCOL, parseText } from "./ws_client.mjs";

const HANDSHAKE_TIMEOUT_MS = 10_000;
const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/** Headers of an upgrade; those that are `undefined` are left out. */
export function upgradeHeaders(headers = {}) {
  const all = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": randomBytes(16).toString("base64"),
    ...headers,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** A frame of a client. */
export function frame(kind, payload = "", { fin = true, isMasked = true } = {}) {
  const body = Buffer.from(payload);
  const head = [(fin ? 0x80 : 0) | OPCODE[kind]];
  const masked = isMasked ? 0x80 : 0;
  if (body.length < 126) {
    head.push(masked | body.length);
  } else if (body.length < 65_536) {
    head.push(masked | 126, body.length >> 8, body.length & 255);
  } else {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(body.length));
    head.push(masked | 127, ...length);
  }
  if (!isMasked) return Buffer.concat([Buffer.from(head), body]);
  const mask = randomBytes(4);
  for (let at = 0; at < body.length; at += 1) body[at] ^= mask[at & 3];
  return Buffer.concat([Buffer.from(head), mask, body]);
}

/** A close frame. */
export function closeFrame(code, reason = "") {
  const payload = Buffer.alloc(2 + reason.length, 0);
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame("close", payload);
}

export class RawWebSocket {
  /** Frames of the server: `{ kind, ... }` as the client of these suites names them. */
  frames = [];
  /** How the server closed the socket: `{ code, reason }`. */
  end;
  /** Whether the connection itself has ended. */
  isOver = false;
  failure;

  #socket;
  #received = Buffer.alloc(0);

  /** Opens the socket at `url`'s path; `options`: `offset`, `query`, and headers. */
  static async open(url, { offset = "-1", query = "", ...headers } = {}) {
    const { pathname } = new URL(url);
    const raw = new RawWebSocket();
    raw.#socket = await open(url);
    raw.#socket.setNoDelay(true);
    raw.#socket.on("error", () => {});
    const target = `${pathname}?offset=${offset}&live=ws${query}`;
    const all = upgradeHeaders({ "sec-websocket-protocol": SUBPROTOCOL, ...headers });
    const head = raw.#head();
    raw.#socket.write(requestHead("GET", target, all));
    raw.head = await head;
    if (!raw.head.startsWith("HTTP/1.1 101")) throw new Error(raw.head);
    return raw;
  }

  write(...parts) {
    for (const part of parts) this.#socket.write(part);
  }

  /** From now on nothing is read from the connection. */
  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  destroy(ending = "fin") {
    if (ending === "rst") this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  get error() {
    return this.frames.find(({ kind }) => kind === "error");
  }

  get dataFrames() {
    return this.frames.filter(({ kind }) => kind === "data" || kind === "bytes");
  }

  /** Waits until `condition(this)` holds. */
  until(condition, timeoutMs) {
    const state = async () => {
      if (this.failure !== undefined) throw this.failure;
      return condition(this);
    };
    return eventually(state, (holds) => holds, timeoutMs);
  }

  /** Waits until the server has sent its close frame, or the connection is over. */
  async untilEnd(timeoutMs) {
    await this.until(({ end, isOver }) => end !== undefined || isOver, timeoutMs);
    return this.end;
  }

  // The head of the answer; what follows it are frames.
  #head() {
    return new Promise((done, fail) => {
      const timer = setTimeout(() => fail(new Error("no handshake")), HANDSHAKE_TIMEOUT_MS);
      this.#socket.on("close", () => {
        this.isOver = true;
        fail(new Error("the connection ended in the handshake"));
      });
      let head;
      this.#socket.on("data", (chunk) => {
        this.#received = Buffer.concat([this.#received, chunk]);
        if (head === undefined) {
          const end = this.#received.indexOf("\r\n\r\n");
          if (end < 0) return;
          clearTimeout(timer);
          head = this.#received.subarray(0, end).toString("latin1");
          this.#received = this.#received.subarray(end + 4);
          done(head);
        }
        this.#parse();
      });
    });
  }

  #parse() {
    for (;;) {
      const bytes = this.#received;
      if (bytes.length < 2) return;
      let length = bytes[1] & 127;
      let at = 2;
      if (length > 125) {
        at = length === 126 ? 4 : 10;
        if (bytes.length < at) return;
        length = at === 4 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
      }
      if (bytes.length < at + length) return;
      this.#received = bytes.subarray(at + length);
      try {
        this.#take(bytes[0], bytes[1], bytes.subarray(at, at + length));
      } catch (error) {
        this.failure ??= error;
      }
    }
  }

  #take(first, second, payload) {
    if ((first & 0x80) === 0) throw new Error("a fragment of the server");
    if ((second & 0x80) !== 0) throw new Error("a masked frame of the server");
    if (this.end !== undefined) throw new Error("a frame after the close");
    const opcode = first & 15;
    if (opcode === OPCODE.text) {
      this.frames.push(parseText(payload.toString()));
    } else if (opcode === OPCODE.binary) {
      this.frames.push({ kind: "bytes", bytes: Buffer.from(payload) });
    } else if (opcode === OPCODE.close) {
      const code = payload.length < 2 ? 1005 : payload.readUInt16BE(0);
      this.end = { code, reason: payload.subarray(2).toString() };
    } else if (opcode === OPCODE.pong) {
      this.frames.push({ kind: "pong", bytes: Buffer.from(payload) });
    } else {
      throw new Error(`opcode ${opcode}`);
    }
  }
}
