// A live reader of one stream with the official client, from its start to its close, or until it is
// stopped.
//
// The client's long-poll repeats a request that met no server. Its SSE mode does so only when a
// response ends in good order: one that breaks off ends the session with an error. Then the
// follower opens a new session at the offset behind the last batch that it has taken.
import { DurableStreamError, FetchError, stream } from "@durable-streams/client";

import { BACKOFF } from "./producers.mjs";

const PAUSE_MS = 50;

export class Follower {
  /** Texts of the messages, in the order in which they came. */
  messages = [];
  batches = 0;
  /** Whether the stream has answered. */
  isConnected = false;
  /** Sessions that broke off, and requests that met no server. */
  interruptions = 0;

  #offset = "-1";
  #closed = false;
  #stopping = new AbortController();

  constructor(airport, url, live) {
    this.airport = airport;
    this.url = url;
    this.live = live;
  }

  /** Leaves a stream that does not end by itself. */
  stop() {
    this.#closed = true;
    this.#stopping.abort();
  }

  /** Reads until the stream is closed. */
  async run() {
    while (!this.#closed) {
      try {
        await this.#session();
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        if (isRefusal(error)) throw new Error(`follower of ${this.airport}`, { cause: error });
        this.interruptions += 1;
      }
      // A session may also end in good order before the stream does.
      if (!this.#closed) await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  async #session() {
    const response = await stream({
      url: this.url,
      offset: this.#offset,
      live: this.live,
      signal: this.#stopping.signal,
      backoffOptions: { ...BACKOFF, onFailedAttempt: () => (this.interruptions += 1) },
    });
    this.isConnected = true;
    response.subscribeJson((batch) => {
      for (const item of batch.items) this.messages.push(JSON.stringify(item));
      if (batch.items.length > 0) this.batches += 1;
      this.#offset = batch.offset;
      this.#closed ||= batch.streamClosed;
    });
    await response.closed;
  }
}

// What no repetition changes: the server answered, and does not agree.
function isRefusal(error) {
  const isAnswer = error instanceof FetchError || error instanceof DurableStreamError;
  return isAnswer && error.status >= 400 && error.status < 500;
}
