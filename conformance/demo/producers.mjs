// Replays flights through the official client's idempotent producers, one per airport.
//
// The producer numbers its batches and pipelines them, but gives a batch up at the first
// connection error: its sequence number stays used, and what follows is a gap. So the fetch below
// it repeats a request until it is answered. A repeated request is the same bytes with the same
// epoch and sequence number; the server stores it once, however often it comes.
import {
  DurableStream,
  FetchError,
  IdempotentProducer,
  createFetchWithBackoff,
} from "@durable-streams/client";

// Flights on their way at once: bounds what waits while the host is down. The next burst begins
// when half of them are acknowledged, so that an airport's share of a burst makes a batch.
const WINDOW = 2000;
const LINGER_MS = 5;
const BATCH_BYTES = 4096;
// Streams created or closed at once.
const CONCURRENT = 32;

/** Repeats for as long as a restart may take, at least four times a second. */
export const BACKOFF = { initialDelay: 25, maxDelay: 250, multiplier: 1.5, maxRetries: 1000 };

/** Runs `work` on every item, a bounded number at a time. */
export async function forEachOf(items, work) {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: CONCURRENT }, worker));
}

export class Producers {
  sent = 0;
  acked = 0;
  batches = 0;
  /** Requests that failed and were sent again. */
  repeated = 0;
  /** Batches whose first answer got lost: stored already when they came again. */
  duplicates = 0;

  #byAirport = new Map();
  #fetch;
  #failure;
  #wake = () => {};

  constructor() {
    const onFailedAttempt = () => (this.repeated += 1);
    const send = createFetchWithBackoff(fetch, { ...BACKOFF, onFailedAttempt });
    this.#fetch = async (url, init) => {
      const response = await send(url, init).catch(responseOf);
      this.#note(init, response);
      return response;
    };
  }

  /** Creates the streams of `airports`; `urlOf` names them. */
  async create(airports, urlOf) {
    await forEachOf(airports, async (airport) => {
      const stream = await DurableStream.create({
        url: urlOf(airport),
        contentType: "application/json",
        backoffOptions: BACKOFF,
      });
      const producer = new IdempotentProducer(stream, `demo-${airport}`, {
        lingerMs: LINGER_MS,
        maxBatchBytes: BATCH_BYTES,
        fetch: this.#fetch,
        onError: (error) => this.#fail(new Error(`producer of ${airport}`, { cause: error })),
      });
      this.#byAirport.set(airport, producer);
    });
  }

  /** Sends every flight in order, and returns when all are acknowledged. */
  async replay(flights) {
    for (const { airport, message } of flights) {
      if (this.sent - this.acked >= WINDOW) await this.#drainedTo(WINDOW / 2);
      this.#byAirport.get(airport).append(message);
      this.sent += 1;
    }
    for (const producer of this.#byAirport.values()) await producer.flush();
    if (this.#failure !== undefined) throw this.#failure;
    if (this.acked !== this.sent) throw new Error(`${this.acked} of ${this.sent} acknowledged`);
  }

  /** Closes every stream, which ends its followers. */
  async close() {
    await forEachOf(this.#byAirport.values(), (producer) => producer.close());
  }

  #note(init, response) {
    const isBatch = init.body !== undefined && (response.status === 200 || response.status === 204);
    if (!isBatch) return;
    this.batches += 1;
    this.acked += JSON.parse(init.body).length;
    if (response.status === 204) this.duplicates += 1;
    this.#wake();
  }

  #fail(error) {
    this.#failure ??= error;
    this.#wake();
  }

  async #drainedTo(flights) {
    while (this.sent - this.acked > flights) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise((wake) => (this.#wake = wake));
    }
  }
}

// The client's backoff throws on every status outside 2xx; the producer itself answers a gap
// (409) and a stale epoch (403), so it has to see them.
function responseOf(error) {
  const isAnswer = error instanceof FetchError && error.status >= 400 && error.status < 500;
  if (!isAnswer) throw error;
  const body = error.text ?? JSON.stringify(error.json);
  return new Response(body, { status: error.status, headers: error.headers });
}
