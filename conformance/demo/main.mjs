// The demonstration: a day's work of a stream service, with the plug pulled in the middle.
//
// 20,000 flights are sent, three streams are followed live, forty sessions follow several streams
// each, and half-way the host is killed. The run passes when every stream holds exactly what was
// sent, the followers have seen it too, and every session got what its streams published since it
// subscribed, each in order and once.
//
//   node main.mjs --url http://127.0.0.1:PORT [--limit N] [--no-kill]
//
// Who started this process pulls the plug: a line `@kill` on stdout asks for it, a line
// `restarted` on stdin says that the host is back. Nothing waits for that line; producers and
// followers find out by themselves. Progress goes to stderr. Exit code: 0 when everything is
// proven, 1 when not, 2 for a bad flag.
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { byAirport, loadFlights } from "./flights.mjs";
import { Follower } from "./follower.mjs";
import { Producers, forEachOf } from "./producers.mjs";
import { Progress } from "./progress.mjs";
import { difference, readBack } from "./proof.mjs";
import { follow, proveSessions, sessionsOf } from "./sessions.mjs";

// How the busiest airports are followed.
const MODES = ["sse", "sse", "long-poll"];
const TIMEOUT_MS = 120_000;
const USAGE = "usage: node main.mjs --url URL [--limit N] [--no-kill]";

function parseFlags(args) {
  const options = {
    url: { type: "string" },
    limit: { type: "string", default: "20000" },
    "no-kill": { type: "boolean", default: false },
  };
  try {
    const { values } = parseArgs({ args, options });
    const limit = Number(values.limit);
    if (!URL.canParse(values.url)) throw new Error("--url is missing or no URL");
    if (!/^\d+$/.test(values.limit) || limit < 1) throw new Error("--limit is no positive integer");
    return { url: values.url, limit, kill: !values["no-kill"] };
  } catch (error) {
    process.stderr.write(`demo: ${error.message.split(". ")[0]}; ${USAGE}\n`);
    process.exit(2);
  }
}

/** Asks for the kill once half of the flights are acknowledged and everybody follows. */
class Plug {
  killedAt;

  constructor(progress, producers, followers, flights) {
    this.progress = progress;
    this.producers = producers;
    this.followers = followers;
    this.half = Math.floor(flights / 2);
  }

  /** Pulls the plug when it is time, and returns when every follower has lost its connection. */
  async pull() {
    const { producers, followers } = this;
    await until(() => producers.acked >= this.half && followers.every((one) => one.isConnected));
    this.killedAt = producers.acked;
    const since = performance.now();
    this.progress.note(`killing the host with ${this.killedAt} flights acknowledged`);
    process.stdout.write("@kill\n");
    createInterface({ input: process.stdin }).once("line", () => {
      const seconds = (performance.now() - since) / 1000;
      this.progress.note(`the host is back after ${seconds.toFixed(1)} s`);
      process.stdin.destroy();
    });
    await until(() => followers.every((one) => one.interruptions > 0));
  }
}

async function until(condition) {
  while (!condition()) await new Promise((done) => setTimeout(done, 5));
}

async function demo({ url, limit, kill }) {
  const flights = loadFlights(limit);
  const sent = byAirport(flights);
  // A prefix of its own: a run on a host that has served another finds nothing of it.
  const run = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  const project = `${url}/v1/demo`;
  const urlOf = (airport) => `${project}/stream/flights/${run}/${airport}`;
  const progress = new Progress();
  const producers = new Producers();
  await producers.create(sent.keys(), urlOf);
  const followers = [...sent.keys()]
    .slice(0, MODES.length)
    .map((airport, index) => new Follower(airport, urlOf(airport), MODES[index]));
  const toFollow = followers.reduce((sum, { airport }) => sum + sent.get(airport).length, 0);
  for (const { airport, live } of followers) progress.note(`following ${airport} over ${live}`);
  const sessions = sessionsOf(project, run, sent, urlOf);
  const airports = new Set(sessions.flatMap(({ airports }) => airports)).size;
  progress.note(`${sessions.length} sessions follow ${airports} airports, one connection each`);

  const started = performance.now();
  progress.start((seconds) => {
    const followed = followers.reduce((sum, { messages }) => sum + messages.length, 0);
    const rate = Math.round(producers.acked / seconds);
    return (
      `${seconds.toFixed(1)} s   sent ${producers.sent}/${flights.length}` +
      `   acked ${producers.acked}   followed ${followed}/${toFollow}` +
      `   sessions ${countOf(sessions)}   ${rate} flights/s`
    );
  });
  const readers = [...followers, ...sessions];
  const plug = kill ? new Plug(progress, producers, readers, flights.length) : undefined;
  // The last quarter is sent after the kill, however quick the rest was.
  const held = kill ? Math.ceil(flights.length / 4) : 0;
  const produce = async () => {
    await producers.replay(flights.slice(0, flights.length - held));
    await killed;
    await producers.replay(flights.slice(flights.length - held));
    await producers.close();
    await Promise.all(sessions.map((session) => session.finish(sent)));
  };
  const killed = plug?.pull();
  // Some sessions come when a third of the flights are there.
  const isTime = () => producers.acked >= flights.length / 3;
  try {
    const following = followers.map((follower) => follower.run());
    await Promise.all([produce(), killed, follow(sessions, isTime), ...following]);
  } finally {
    progress.stop();
  }
  const seconds = (performance.now() - started) / 1000;

  const problems = await prove(sent, urlOf, followers);
  problems.push(...(await proveSessions(sessions, sent)));
  if (problems.length > 0) throw new Error(problems.join("\n"));
  return summary({ flights, sent, producers, followers, sessions, toFollow, plug, seconds });
}

/** Everything that differs between what was sent and what was read, in words. */
async function prove(sent, urlOf, followers) {
  const problems = [];
  await forEachOf(sent, async ([airport, messages]) => {
    const differs = difference(messages, await readBack(urlOf(airport)));
    if (differs !== undefined) problems.push(`stream of ${airport}: ${differs}`);
  });
  for (const { airport, live, messages } of followers) {
    const differs = difference(sent.get(airport), messages);
    if (differs !== undefined) problems.push(`follower of ${airport} over ${live}: ${differs}`);
  }
  return problems;
}

const countOf = (sessions) => sessions.reduce((sum, { count }) => sum + count, 0);

function summary({ flights, sent, producers, followers, sessions, toFollow, plug, seconds }) {
  const parts = [
    `${flights.length} flights of ${sent.size} airports in ${producers.batches} batches, ` +
      `each read back once and in order`,
    `${followers.length} live followers saw all ${toFollow} of theirs`,
    `${sessions.length} sessions got ${countOf(sessions)} flights, each of their airports' once ` +
      `and in order`,
  ];
  if (plug !== undefined) {
    parts.push(
      `host killed at ${plug.killedAt}, ${producers.repeated} requests met no host and ` +
        `${producers.duplicates} batches came twice`,
    );
  }
  parts.push(`${seconds.toFixed(1)} s, ${Math.round(flights.length / seconds)} flights/s`);
  return parts.join("; ");
}

function fail(error) {
  const causes = [];
  for (let cause = error; cause instanceof Error; cause = cause.cause) causes.push(cause.message);
  process.stdout.write(`demo: FAILED: ${causes.join(": ")}\n`, () => process.exit(1));
}

const flags = parseFlags(process.argv.slice(2));
setTimeout(() => fail(new Error(`not done after ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS).unref();
try {
  const text = await demo(flags);
  process.stdout.write(`demo: ok: ${text}\n`, () => process.exit(0));
} catch (error) {
  fail(error);
}
