// One reader: where it stands, how it behaves, and that it gets every byte in order, each once.
//
// Connections of all modes look alike: `done` settles when one has ended, `leave` ends it, `pause`
// stops reading the socket and `resume` goes on. What comes they tell to `got` and `stands`.
import { Violation, positionOf } from "./http.mjs";

/** Reads all the time; now and then it leaves and comes back. */
export const HEALTHY = "healthy";
/** Stops reading for long, then reads on. */
export const PAUSING = "pausing";
/** Stops reading and never goes on; after a while somebody else takes its place. */
export const STUCK = "stuck";
/** Stops reading until the end of all. */
export const STUCK_FOR_EVER = "stuck for ever";

const STINT_MS = { least: 15_000, most: 180_000 };
const BREAK_MS = 2000;
const READS_MS = 4000;
const STICKS_MS = 200;
const LOOKS_MS = 3000;
const PAUSE_MS = { least: 15_000, most: 60_000 };
const STUCK_MS = { least: 30_000, most: 90_000 };
/** Of those that come back, how many are somebody new. */
const NEW_SHARE = 0.25;
/** Of those, how many begin at the beginning or at the tail; the others at some offset. */
const BEGIN_SHARE = 0.04;
const NOW_SHARE = 0.4;
/** How much more often the offset is one of the last ones. */
const RECENTLY = 6;
const BACKLOG_BYTES_MAX = 1 << 19;

/** What all readers together have seen. */
export class Totals {
  connections = 0;
  frames = 0;
  bytes = 0;
  credits = 0;
  /** How connections ended that the service ended. */
  endings = {};

  ended(how) {
    this.endings[how] = (this.endings[how] ?? 0) + 1;
  }
}

export class Reader {
  /** Next byte to get; unknown until the service has said where `now` is. */
  position;
  offset;
  cursor;
  /** Whether this connection has not been read for a while: then the service may end it. */
  hasStalled = false;

  #connect;
  #connections = 0;
  #resumed;
  #isSettling = false;
  #isOver = false;
  #wake = () => {};

  constructor({ name, connect, truth, temper, random, totals }) {
    Object.assign(this, { name, truth, temper, random, totals });
    this.#connect = connect;
    this.#begin();
  }

  get who() {
    return (
      `${this.name} (${this.temper}, began at ${this.start}, connection ${this.#connections} ` +
      `from ${this.#resumed}, last offset ${this.offset})`
    );
  }

  /** The query of the next connection. */
  get query() {
    const cursor = this.cursor === undefined ? "" : `&cursor=${this.cursor}`;
    return `offset=${this.offset ?? this.start}${cursor}`;
  }

  get isAtTail() {
    return this.position === this.truth.length;
  }

  /** Reads until it is told to finish. */
  async run() {
    while (!this.#isOver) {
      if (!this.isStuck) this.truth.followers.add(this);
      await this.#stint();
      if (this.#isOver) break;
      if (!this.#isSettling) await this.#nap(this.random() * BREAK_MS);
      if (this.isStuck || (!this.#isSettling && this.random() < NEW_SHARE)) this.#begin();
    }
    this.truth.followers.delete(this);
  }

  get isStuck() {
    return this.temper === STUCK || this.temper === STUCK_FOR_EVER;
  }

  /** Nobody writes any more: who reads at all reads to the tail, and stays. */
  settle() {
    this.#isSettling = true;
    this.#wake();
  }

  finish() {
    this.#isOver = true;
    this.#wake();
  }

  /** Forgets what it has read. */
  beginAnew(start) {
    this.start = start;
    this.cursor = undefined;
    this.offset = undefined;
    this.position = start === "now" ? undefined : start === "-1" ? 0 : positionOf(start);
    this.since = performance.now();
    /** When bytes have come the last time. */
    this.movedAt = this.since;
  }

  /** Bytes of the log. */
  got(...parts) {
    for (const bytes of parts) {
      this.truth.take(this.position, bytes, this.who);
      this.position += bytes.length;
      this.totals.bytes += bytes.length;
    }
    if (parts.length > 0) {
      this.totals.frames += 1;
      this.movedAt = performance.now();
    }
  }

  /** Bytes whose end the service names. */
  gotUpTo(offset, ...parts) {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (this.position === undefined) this.#arrive(positionOf(offset) - length);
    this.got(...parts);
    this.stands(offset);
  }

  /** The service says where the reader stands. */
  stands(offset) {
    const position = positionOf(offset);
    if (this.position === undefined) this.#arrive(position);
    if (position !== this.position) {
      this.fail(`is told ${offset} and stands at ${this.position}`);
    }
    this.offset = offset;
  }

  fail(what) {
    throw new Violation(`${this.truth.url}: ${this.who} ${what}`);
  }

  /** Where `now` is: not before what was acknowledged when it was asked for. */
  #arrive(position) {
    if (position < this.#tailWhenAsked) {
      this.fail(`was told that now is ${position}; ${this.#tailWhenAsked} was acknowledged`);
    }
    this.position = position;
  }

  #tailWhenAsked = 0;

  /** Becomes somebody new: from the beginning, now, or at an offset that was once an end. */
  #begin() {
    const { offsets, backlog } = this.truth;
    // While many have far to go, nobody new comes who has.
    const kind = this.isStuck ? 0 : backlog > BACKLOG_BYTES_MAX ? 1 : this.random();
    const back = Math.ceil(this.random() ** RECENTLY * offsets.length);
    const known = offsets.at(-back);
    if (kind < BEGIN_SHARE || known === undefined) this.beginAnew("-1");
    else if (kind === 1) this.beginAnew("now");
    else this.beginAnew(kind < BEGIN_SHARE + NOW_SHARE ? "now" : known);
  }

  async #stint() {
    this.hasStalled = false;
    this.totals.connections += 1;
    this.#tailWhenAsked = this.truth.acked.position;
    // What came behind the last offset comes again.
    if (this.offset !== undefined) this.position = positionOf(this.offset);
    this.#connections += 1;
    this.#resumed = this.offset ?? this.start;
    const connection = this.#connect(this);
    let isDone = false;
    const ended = (error) => {
      isDone = true;
      this.#wake();
      return error;
    };
    const done = connection.done.then(() => ended(), ended);
    const isOn = () => !isDone && !this.#isSettling && !this.#isOver;
    await this.#behave(connection, isOn);
    while (!isDone && this.#isSettling && !this.#isOver && !this.isStuck) await this.#nap();
    connection.leave();
    if (this.isStuck && this.#isSettling) this.#isOver = true;
    const error = await done;
    if (error !== undefined) throw error;
  }

  async #behave(connection, isOn) {
    if (this.temper === HEALTHY) return this.#nap(this.#between(STINT_MS));
    if (this.isStuck) return this.#stick(connection, isOn);
    while (isOn()) {
      await this.#nap(this.random() * READS_MS);
      if (!isOn()) return undefined;
      this.#pause(connection);
      await this.#nap(this.#between(PAUSE_MS));
      connection.resume();
    }
    return undefined;
  }

  /** Stops reading when there is most to read, and looks much later what became of it. */
  async #stick(connection, isOn) {
    await this.#nap(this.random() * STICKS_MS);
    if (!isOn()) return;
    this.#pause(connection);
    await this.#nap(this.temper === STUCK ? this.#between(STUCK_MS) : undefined);
    connection.resume();
    await this.#nap(LOOKS_MS);
  }

  #pause(connection) {
    this.hasStalled = true;
    // It is not behind because of the service.
    this.truth.followers.delete(this);
    connection.pause();
  }

  #between({ least, most }) {
    return least + this.random() * (most - least);
  }

  /** Waits, for ever if no time is named, or until something has happened. */
  #nap(ms) {
    return new Promise((done) => {
      const timer = ms === undefined ? undefined : setTimeout(done, ms);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}

/** What connections of all modes have in common. */
export class Connection {
  hasLeft = false;
  isPaused = false;

  constructor(reader) {
    this.reader = reader;
    this.done = new Promise((done, fail) => {
      this.end = done;
      this.fail = (error) => {
        fail(error);
        this.leave();
      };
    });
  }

  /** Ends unasked: allowed to a connection that was not read. */
  broke(how) {
    if (this.hasLeft) return this.end();
    if (this.reader.hasStalled) {
      this.reader.totals.ended(`${how}, stalled`);
      return this.end();
    }
    const { truth, who, position } = this.reader;
    return this.fail(new Violation(`${truth.url}: ${who} at ${position}: ${how}`));
  }

  /** The function, with what it throws as the connection's failure. */
  guarded(act) {
    return (...args) => {
      if (this.hasLeft) return;
      try {
        act(...args);
      } catch (error) {
        this.fail(error);
      }
    };
  }
}
