// The demonstration: a day's work of a stream service, with the plug pulled in the middle.
//
// 20,000 flights are sent, three streams are followed live, and half-way the host is killed. The
// run passes when every stream holds exactly what was sent, and the followers have seen it too.
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

/** Asks for the kill once half of the flights are acknowledged. */
class Plug {
  killedAt;
  #downSince;
  downSeconds;

  constructor(progress) {
    this.progress = progress;
  }

  pull(acked) {
    if (this.killedAt !== undefined) return;
    this.killedAt = acked;
    this.#downSince = performance.now();
    this.progress.note(`killing the host with ${acked} flights acknowledged`);
    process.stdout.write("@kill\n");
    createInterface({ input: process.stdin }).once("line", () => {
      this.downSeconds = (performance.now() - this.#downSince) / 1000;
      this.progress.note(`the host is back after ${this.downSeconds.toFixed(1)} s`);
      process.stdin.destroy();
    });
  }
}

async function demo({ url, limit, kill }) {
  const flights = loadFlights(limit);
  const sent = byAirport(flights);
  // A prefix of its own: a run on a host that has served another finds nothing of it.
  const run = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  const urlOf = (airport) => `${url}/v1/demo/stream/flights/${run}/${airport}`;
  const progress = new Progress();
  const plug = new Plug(progress);
  const producers = new Producers();
  await producers.create(sent.keys(), urlOf);
  const followers = [...sent.keys()]
    .slice(0, MODES.length)
    .map((airport, index) => new Follower(airport, urlOf(airport), MODES[index]));
  const toFollow = followers.reduce((sum, { airport }) => sum + sent.get(airport).length, 0);
  for (const { airport, live } of followers) progress.note(`following ${airport} over ${live}`);

  const started = performance.now();
  progress.start((seconds) => {
    const followed = followers.reduce((sum, { messages }) => sum + messages.length, 0);
    const rate = Math.round(producers.acked / seconds);
    return (
      `${seconds.toFixed(1)} s   sent ${producers.sent}/${flights.length}` +
      `   acked ${producers.acked}   followed ${followed}/${toFollow}   ${rate} flights/s`
    );
  });
  const half = setInterval(() => {
    if (kill && producers.acked * 2 >= flights.length) plug.pull(producers.acked);
  }, 5);
  try {
    const followed = Promise.all(followers.map((follower) => follower.run()));
    const produced = producers.replay(flights).then(() => producers.close());
    await Promise.all([produced, followed]);
  } finally {
    clearInterval(half);
    progress.stop();
  }
  const seconds = (performance.now() - started) / 1000;

  const problems = await prove(sent, urlOf, followers, kill && plug.killedAt !== undefined);
  if (kill && plug.killedAt === undefined) problems.push("the host was never killed");
  if (problems.length > 0) throw new Error(problems.join("\n"));
  return summary({ flights, sent, producers, followers, toFollow, plug, seconds });
}

/** Everything that differs between what was sent and what was read, in words. */
async function prove(sent, urlOf, followers, wasKilled) {
  const problems = [];
  await forEachOf(sent, async ([airport, messages]) => {
    const differs = difference(messages, await readBack(urlOf(airport)));
    if (differs !== undefined) problems.push(`stream of ${airport}: ${differs}`);
  });
  for (const { airport, live, messages, interruptions } of followers) {
    const differs = difference(sent.get(airport), messages);
    if (differs !== undefined) problems.push(`follower of ${airport} over ${live}: ${differs}`);
    // Otherwise it was not connected, and has survived nothing.
    if (wasKilled && interruptions === 0) problems.push(`follower of ${airport} met no kill`);
  }
  return problems;
}

function summary({ flights, sent, producers, followers, toFollow, plug, seconds }) {
  const parts = [
    `${flights.length} flights of ${sent.size} airports in ${producers.batches} batches, ` +
      `each read back once and in order`,
    `${followers.length} live followers saw all ${toFollow} of theirs`,
  ];
  if (plug.killedAt !== undefined) {
    parts.push(
      `host killed at ${plug.killedAt}, ${producers.repeated} requests sent again, ` +
        `${producers.duplicates} of them stored already`,
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
