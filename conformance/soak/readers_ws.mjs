// WebSocket readers: paced by their sockets, with credit, and with appends over the same socket.
import WebSocket from "ws";

import { Connection } from "./readers_reader.mjs";
import { wireParts } from "./readers_http.mjs";

const SUBPROTOCOL = "durable-streams.v1";
const DATA_HEAD = '{"type":"data","payload":';
const DATA_TAIL = ',"streamNextOffset":"';
const CONTROL_HEAD = '{"type":"control"';
/** Longest end of a data frame. */
const TAIL_BYTES = 120;
const CREDIT_LOW = 2;
const GRANT_DELAY_MS = 300;
const BASE64_SHARE = 0.3;
const AHEAD_MAX = 6;

class Socket extends Connection {
  #socket;
  #isGreeted = false;

  constructor(reader, query = "") {
    super(reader);
    const url = `${reader.truth.url.replace("http", "ws")}?${reader.query}&live=ws${query}`;
    const socket = new WebSocket(url, [SUBPROTOCOL], { perMessageDeflate: false, maxPayload: 0 });
    this.#socket = socket;
    socket.on("message", this.guarded((data, isBinary) => this.#take(data, isBinary)));
    socket.on("unexpected-response", (_, response) => this.#refused(response));
    socket.on("error", (error) => this.broke(error.code ?? error.message));
    socket.on("close", (code, reason) => this.broke(`closed with ${code} ${reason}`.trim()));
    socket.on("open", () => {
      if (this.isPaused) socket.pause();
      if (!this.hasLeft) this.opened();
    });
  }

  get isOpen() {
    return !this.hasLeft && this.#socket.readyState === WebSocket.OPEN;
  }

  send(frame) {
    if (this.isOpen) this.#socket.send(JSON.stringify(frame));
  }

  /** Leaves orderly, or, as often, without a word. */
  leave() {
    if (this.hasLeft) return;
    this.hasLeft = true;
    if (this.isOpen && !this.isPaused && this.reader.random() < 0.5) this.#socket.close(1000);
    else this.#socket.terminate();
    this.end();
  }

  pause() {
    this.isPaused = true;
    if (this.isOpen) this.#socket.pause();
  }

  resume() {
    this.isPaused = false;
    this.#socket.resume();
  }

  opened() {}

  /** A data frame has come. */
  counted() {}

  answered(name) {
    this.reader.fail(`got the frame ${name} unasked`);
  }

  #refused(response) {
    const body = [];
    response.on("data", (chunk) => body.push(chunk));
    response.on("end", this.guarded(() => {
      const text = Buffer.concat(body).toString().slice(0, 300);
      this.reader.fail(`got ${response.statusCode} instead of a socket: ${text}`);
    }));
  }

  #take(data, isBinary) {
    const { reader } = this;
    const isJson = reader.truth.kind === "json";
    if (isBinary) {
      if (isJson) reader.fail("got a binary frame of a JSON stream");
      this.#data();
      reader.got(data);
    } else if (startsWith(data, DATA_HEAD)) {
      if (!isJson) reader.fail("got a data frame with a payload");
      this.#data();
      const { payload, offset } = partsOf(data);
      reader.gotUpTo(offset, ...wireParts(payload));
    } else if (startsWith(data, CONTROL_HEAD)) {
      const { streamNextOffset, streamCursor } = JSON.parse(data);
      this.#isGreeted = true;
      reader.cursor = streamCursor;
      reader.stands(streamNextOffset);
    } else {
      this.#other(JSON.parse(data));
    }
  }

  #data() {
    if (!this.#isGreeted) this.reader.fail("got data before it was told where it stands");
    this.counted();
  }

  #other(frame) {
    if (frame.ack !== undefined) this.answered("ack", frame.ack);
    else if (frame.error !== undefined) this.reader.totals.ended(`error ${frame.error.code}`);
    else this.reader.fail(`got ${JSON.stringify(frame).slice(0, 200)}`);
  }
}

/** Every data frame was allowed by a grant. */
class Credited extends Socket {
  #granted;
  #got = 0;
  #isGranting = false;

  constructor(reader) {
    const first = reader.random() < 0.5 ? 0 : 1 + Math.floor(reader.random() * 5);
    super(reader, `&credit=${first}`);
    this.#granted = first;
  }

  opened() {
    this.#grantSoon();
  }

  counted() {
    this.#got += 1;
    if (this.#got > this.#granted) {
      this.reader.fail(`got data frame ${this.#got} with a credit of ${this.#granted}`);
    }
    this.#grantSoon();
  }

  #grantSoon() {
    if (this.#isGranting || this.#granted - this.#got > CREDIT_LOW) return;
    this.#isGranting = true;
    setTimeout(() => {
      this.#isGranting = false;
      if (!this.isOpen) return;
      const credit = 1 + Math.floor(this.reader.random() * 16);
      // Who does not read can still be granted a lot.
      const granted = this.reader.temper === "healthy" ? credit : 1000;
      this.#granted += granted;
      this.reader.totals.credits += granted;
      this.send({ credit: granted });
    }, this.reader.random() * GRANT_DELAY_MS);
  }
}

/** Appends over the same socket, several ahead of their answers. */
class Appending extends Socket {
  #timer;

  constructor(reader) {
    super(reader);
    reader.appends ??= { n: 0, open: [] };
    this.done.finally(() => clearTimeout(this.#timer)).catch(() => {});
  }

  opened() {
    // What has no answer may or may not be stored.
    for (const append of this.reader.appends.open) this.#send(append);
    this.#appendSoon();
  }

  answered(name, { id, streamNextOffset, count = 1, duplicate }) {
    const { open } = this.reader.appends;
    const run = open.splice(0, count);
    const last = run.pop();
    if (last === undefined || last.id !== id || run.length !== count - 1) {
      this.reader.fail(`got an ack of ${id} for ${count}, where ${last?.id} was to be answered`);
    }
    // Only the last one's place is told, and none of a duplicate.
    for (const append of run) this.reader.truth.confirm(append, undefined);
    this.reader.truth.confirm(last, duplicate === true ? undefined : streamNextOffset);
    this.reader.truth.reach(positionOfEnd(streamNextOffset), streamNextOffset);
  }

  #appendSoon() {
    const { load, random } = this.reader;
    this.#timer = setTimeout(() => {
      if (!this.isOpen) return;
      const { open } = this.reader.appends;
      const mayAppend = load.isRunning && load.hasRoom(this.reader.truth);
      const room = mayAppend ? AHEAD_MAX - open.length : 0;
      const count = Math.min(room, 1 + Math.floor(random() * 4));
      for (let at = 0; at < count; at += 1) {
        const append = this.#make();
        open.push(append);
        this.#send(append);
      }
      this.#appendSoon();
    }, load.socketPauseMs * (0.5 + random()));
  }

  #make() {
    const { appends, load, truth, by } = this.reader;
    const append = load.maker.append(truth.kind, by, appends.n, load.maker.small());
    appends.n += 1;
    append.id = this.reader.random() < 0.5 ? append.n : `${by}/${append.n}`;
    return append;
  }

  #send(append) {
    const { truth, by, random } = this.reader;
    const producer = { id: by, epoch: 0, seq: append.n };
    const isEncoded = truth.kind === "binary" || random() < BASE64_SHARE;
    const payload = truth.kind === "json" ? JSON.parse(append.body) : append.body;
    const body = isEncoded ? { base64: Buffer.from(append.body).toString("base64") } : { payload };
    this.send({ append: { id: append.id, ...body, producer } });
  }
}

const positionOfEnd = (offset) => Number(offset.split("_")[1]);

const startsWith = (bytes, head) => bytes.latin1Slice(0, head.length) === head;

/** Payload and offset of a data frame of a JSON stream, the payload uncopied. */
function partsOf(data) {
  const from = Math.max(0, data.length - TAIL_BYTES);
  const tail = data.latin1Slice(from);
  const at = tail.lastIndexOf(DATA_TAIL);
  const isUsual = at >= 0 && tail.endsWith('"}');
  if (isUsual) {
    const offset = tail.slice(at + DATA_TAIL.length, -2);
    return { payload: data.subarray(DATA_HEAD.length, from + at), offset };
  }
  // The order of fields is free.
  const { payload, streamNextOffset } = JSON.parse(data);
  return { payload: Buffer.from(JSON.stringify(payload)), offset: streamNextOffset };
}

export const wsPaced = (reader) => new Socket(reader);
export const wsCredit = (reader) => new Credited(reader);
export const wsAppend = (reader) => new Appending(reader);
