// Sessions: each follows several airports over one connection, and must get what they publish from
// its subscription on, per airport in order, each flight once.
import { createFetchWithBackoff } from "@durable-streams/client";

import { Follower } from "./follower.mjs";
import { BACKOFF, forEachOf } from "./producers.mjs";
import { difference, readBack, readToTail } from "./proof.mjs";

export const SESSIONS = 40;
/** Of so many, one comes late and one wants to be told where each message is from. */
const LATE_OF = 4;
const WRAPPED_OF = 2;
/** Sessions choose among the busiest airports. */
const AIRPORTS_MAX = 60;
const POLL_MS = 20;
const JSON_BODY = { "content-type": "application/json" };

const send = createFetchWithBackoff(fetch, BACKOFF);

async function ask(url, method, body) {
  const response = await send(url, { method, headers: JSON_BODY, body: JSON.stringify(body) });
  return response.json();
}

/** One session. */
export class Session {
  /** Per airport: offsets of its stream before and after the session was subscribed. */
  #begins = new Map();
  #follower;
  #isReady;
  #ready = new Promise((done) => (this.#isReady = done));

  constructor(project, id, airports, urlOf, { isLate, isWrapped }) {
    this.id = id;
    this.airports = airports;
    this.isLate = isLate;
    this.isWrapped = isWrapped;
    this.project = project;
    this.urlOf = urlOf;
    this.url = `${project}/stream/session/${id}`;
    this.#follower = new Follower(`session ${id}`, this.url, "sse");
  }

  get isConnected() {
    return this.#follower.isConnected;
  }

  get interruptions() {
    return this.#follower.interruptions;
  }

  /** Flights so far. */
  get count() {
    return this.#follower.messages.length;
  }

  /** Makes the session, subscribes it and follows its stream until it is told to stop. */
  async run() {
    await ask(`${this.project}/session/${this.id}`, "PUT", { envelope: this.isWrapped });
    const before = await this.#tails();
    const subscriptions = this.airports.map((airport) => ({ streamId: this.#pathOf(airport) }));
    const wish = { sessionId: this.id, subscriptions };
    const { results } = await ask(`${this.project}/subscribe/batch`, "POST", wish);
    const refused = results.find(({ subscribed }) => !subscribed);
    if (refused !== undefined) throw new Error(`session ${this.id}: ${JSON.stringify(refused)}`);
    const after = await this.#tails();
    for (const airport of this.airports) {
      this.#begins.set(airport, { before: before.get(airport), after: after.get(airport) });
    }
    this.#isReady();
    await this.#follower.run();
  }

  /** Waits for the last flight of each airport, then leaves. The streams must be closed. */
  async finish(sent) {
    await this.#ready;
    const lasts = this.airports.map((airport) => sent.get(airport).at(-1));
    const isThere = () => {
      const got = new Set(this.#messages().map(({ message }) => message));
      return lasts.every((last) => got.has(last));
    };
    // Airports that had published everything before a late session came owe it nothing.
    while (!isThere() && !(await this.#owesNothing(lasts))) {
      await new Promise((done) => setTimeout(done, 10 * POLL_MS));
    }
    this.#follower.stop();
  }

  /** What differs from what its airports have published, in words. */
  async problems(sent) {
    const problems = [];
    const stored = await readToTail(this.url);
    const differs = difference(stored, this.#follower.messages);
    if (differs !== undefined) problems.push(`session ${this.id} over sse: ${differs}`);
    const got = this.#messages();
    for (const airport of this.airports) {
      const own = got.filter(({ origin }) => origin === airport).map(({ message }) => message);
      const { before, after } = this.#begins.get(airport);
      const most = await readBack(this.urlOf(airport), before);
      const least = await readBack(this.urlOf(airport), after);
      // Between the two offsets it was being subscribed; from its first flight on it has all.
      const length = Math.min(Math.max(own.length, least.length), most.length);
      const expected = sent.get(airport).slice(sent.get(airport).length - length);
      const problem = difference(expected, own);
      if (problem !== undefined) problems.push(`session ${this.id}, ${airport}: ${problem}`);
    }
    const others = got.filter(({ origin }) => !this.airports.includes(origin));
    if (others.length > 0) problems.push(`session ${this.id}: ${others.length} of others`);
    return problems;
  }

  async #owesNothing(lasts) {
    const rests = this.airports.map((airport) =>
      readBack(this.urlOf(airport), this.#begins.get(airport).after),
    );
    const owed = (await Promise.all(rests)).flatMap((rest) => rest.slice(-1));
    const got = new Set(this.#messages().map(({ message }) => message));
    return owed.every((last) => got.has(last)) && owed.length < lasts.length;
  }

  /** Flights with their airports, as the service or else the flight itself names them. */
  #messages() {
    return this.#follower.messages.map((text) => {
      const message = JSON.parse(text);
      if (!this.isWrapped) return { origin: message.origin, message: text };
      return { origin: message.stream.split("/").at(-1), message: JSON.stringify(message.data) };
    });
  }

  async #tails() {
    const tails = new Map();
    for (const airport of this.airports) {
      const response = await send(this.urlOf(airport), { method: "HEAD" });
      tails.set(airport, response.headers.get("stream-next-offset"));
    }
    return tails;
  }

  #pathOf(airport) {
    return decodeURIComponent(this.urlOf(airport).slice(`${this.project}/stream/`.length));
  }
}

/** The sessions of a run: each follows three to five of the busiest airports. */
export function sessionsOf(project, run, sent, urlOf) {
  const busiest = [...sent.keys()].slice(0, AIRPORTS_MAX);
  return Array.from({ length: SESSIONS }, (_, at) => {
    const count = 3 + (at % 3);
    const wanted = Array.from({ length: count }, (_, n) => (at * 7 + n * 11) % busiest.length);
    const airports = [...new Set(wanted)].map((index) => busiest[index]);
    const isLate = at % LATE_OF === LATE_OF - 1;
    const isWrapped = at % WRAPPED_OF === 0;
    return new Session(project, `${run}-${at}`, airports, urlOf, { isLate, isWrapped });
  });
}

/** Lets all sessions follow, the late ones once `isTime` says so, until they are stopped. */
export async function follow(sessions, isTime) {
  const started = sessions.filter(({ isLate }) => !isLate).map((session) => session.run());
  const late = (async () => {
    while (!isTime()) await new Promise((done) => setTimeout(done, POLL_MS));
    await Promise.all(sessions.filter(({ isLate }) => isLate).map((session) => session.run()));
  })();
  await Promise.all([...started, late]);
}

/** Everything that differs, in words. */
export async function proveSessions(sessions, sent) {
  const problems = [];
  await forEachOf(sessions, async (session) => problems.push(...(await session.problems(sent))));
  return problems;
}
