// What a stream holds, known byte by byte, and how far its readers have come.
//
// Writers and readers tell the same log. A reader's bytes are compared with what is known at their
// position; bytes that nobody has told before become known, because a reader may be faster than
// the answer to the append. The writers' answers then have to confirm every byte: in the end the
// acknowledged appends must tile the log. What an append holds is known to its writer only, so the
// service cannot make up bytes, and a comparison costs a memcmp.
import { Violation, positionOf } from "./http.mjs";

const CAPACITY_BYTES = 1 << 20;
const OFFSETS_MAX = 256;
const SHOWN_BYTES = 40;
const APPEND_KEY = /^\{"by":"(\w+)","n":(\d+),/;
const KEY_BYTES = 64;

/** An append as its writer knows it: `by` and `n` stand in its first message. */
export const keyOf = ({ by, n }) => `${by}.${n}`;

export class Truth {
  /** The last offsets that answers named. */
  offsets = [];
  /** Readers of the stream that have to get everything. */
  followers = new Set();
  /** The highest position that an answer named, and its offset. */
  acked = { position: 0, offset: "-1" };
  appends = 0;

  #bytes = Buffer.alloc(CAPACITY_BYTES);
  #length = 0;
  /** Bytes that were told before the ones in front of them. */
  #ahead = [];
  /** Ends of the appends whose place is known, by their begins. */
  #places = new Map();
  /** Appends that are stored somewhere: a duplicate's answer does not say where. */
  #unplaced = new Map();
  /** The last events that were decoded. */
  #decoded = new Map();

  constructor(url, kind) {
    this.url = url;
    this.kind = kind;
  }

  /** How many bytes are known. */
  get length() {
    return this.#length;
  }

  /** Compares bytes with what is known at their position, and learns what is not. */
  take(position, bytes, who) {
    const end = position + bytes.length;
    if (position > this.#length) {
      this.#ahead.push({ position, bytes: Buffer.from(bytes), who });
      return;
    }
    const known = Math.min(end, this.#length) - position;
    if (this.#bytes.compare(bytes, 0, known, position, position + known) !== 0) {
      this.#differ(position, bytes.subarray(0, known), who);
    }
    if (end <= this.#length) return;
    this.#learn(bytes.subarray(known));
    const ahead = this.#ahead.filter((part) => part.position <= this.#length);
    if (ahead.length === 0) return;
    this.#ahead = this.#ahead.filter((part) => part.position > this.#length);
    for (const part of ahead) this.take(part.position, part.bytes, part.who);
  }

  /** An append is stored; `next` is missing when its answer did not say where. */
  confirm(append, next) {
    this.appends += 1;
    if (next === undefined) {
      this.#unplaced.set(keyOf(append), append.wire);
      return;
    }
    const end = positionOf(next);
    const begin = end - append.wire.length;
    this.take(begin, append.wire, `the writer of ${keyOf(append)}`);
    this.#place(begin, end);
    this.reach(end, next);
  }

  /** Some answer named the offset. */
  reach(position, offset) {
    if (position <= this.acked.position) return;
    this.acked = { position, offset };
    this.offsets.push(offset);
    if (this.offsets.length > OFFSETS_MAX) this.offsets.shift();
  }

  /** Nobody writes any more: every byte must belong to exactly one append. */
  settle() {
    let at = 0;
    while (at < this.#length) {
      const end = this.#places.get(at) ?? this.#find(at);
      at = end;
    }
    if (this.#ahead.length > 0) this.fail(`bytes at ${this.#ahead[0].position} past the tail`);
    if (at !== this.acked.position) this.fail(`${at} bytes, acknowledged ${this.acked.position}`);
    for (const key of this.#unplaced.keys()) this.fail(`${key} was acknowledged and is lost`);
  }

  /** Mean bytes that the followers are behind. */
  get backlog() {
    let sum = 0;
    for (const { position = this.#length } of this.followers) sum += this.#length - position;
    return sum / Math.max(this.followers.size, 1);
  }

  /** The same event is decoded once for all who get it. */
  decoded(position, raw, decode) {
    const known = this.#decoded.get(position);
    if (known !== undefined && known.raw.equals(raw)) return known.wire;
    const wire = decode(raw);
    this.#decoded.set(position, { raw: Buffer.from(raw), wire });
    if (this.#decoded.size > 4) this.#decoded.delete(this.#decoded.keys().next().value);
    return wire;
  }

  fail(what) {
    throw new Violation(`${this.url}: ${what}`);
  }

  #learn(bytes) {
    const length = this.#length + bytes.length;
    if (length > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(length, 2 * this.#bytes.length));
      this.#bytes.copy(grown, 0, 0, this.#length);
      this.#bytes = grown;
    }
    bytes.copy(this.#bytes, this.#length);
    this.#length = length;
  }

  #place(begin, end) {
    const known = this.#places.get(begin);
    if (known !== undefined) this.fail(`two appends at ${begin}: they end at ${known} and ${end}`);
    this.#places.set(begin, end);
  }

  /** The end of the append at a position whose answer did not say where it is. */
  #find(at) {
    const head = this.#bytes.latin1Slice(at, Math.min(at + KEY_BYTES, this.#length));
    const [, by, n] = APPEND_KEY.exec(head) ?? this.fail(`no append begins at ${at}: ${head}`);
    const key = keyOf({ by, n });
    const wire = this.#unplaced.get(key) ?? this.fail(`${key} at ${at} is nobody's or there twice`);
    const end = at + wire.length;
    const stored = this.#bytes.subarray(at, end);
    if (!stored.equals(wire)) this.fail(`${key} at ${at} is not what was sent`);
    this.#unplaced.delete(key);
    return end;
  }

  #differ(position, bytes, who) {
    let at = 0;
    while (bytes[at] === this.#bytes[position + at]) at += 1;
    const shown = (from) => JSON.stringify(from.toString("latin1", 0, SHOWN_BYTES));
    const wanted = this.#bytes.subarray(position + at, this.#length);
    this.fail(
      `${who} got other bytes at ${position + at} (${at} into ${bytes.length}): ` +
        `${shown(bytes.subarray(at))}, known is ${shown(wanted)}`,
    );
  }
}
