// The soak of fan-out: sessions follow sources while the host dies again and again.
//
//   node fanout.mjs --url http://127.0.0.1:PORT [--rounds N] [--sessions N] [--seed N]
//   node fanout.mjs --url http://127.0.0.1:PORT --wide N
//
// In each round several publishers send bursts to three sources, some sessions leave and come back,
// and the plug is pulled in the middle; what was in the queue is lost each time. In the end every
// session must have what its sources got while it was subscribed: all of it, in order, each message
// once, and nothing else. `--wide` is one source with so many subscribers, and no kill.
//
// Who started this process pulls the plug: a line `@kill` on stdout asks for it, a line
// `restarted` on stdin says that the host is back. Exit code: 0 when everything holds, 1 when
// not, 2 for a bad flag.
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { seeded } from "../random.mjs";
import { sessionOf } from "./fanout_sessions.mjs";
import { Source, TEXT_TYPE } from "./fanout_sources.mjs";
import { wide } from "./fanout_wide.mjs";
import { Violation, counts, sleep } from "./http.mjs";
import { JSON_TYPE } from "./log.mjs";

/** Messages that are answered before the kill: a slow machine does not make a round a tame one. */
const KILL_AFTER = { least: 10, most: 150 };
const PUBLISHERS = 3;
/** Sessions that leave or come back in a round. */
const TOGGLES = 12;
const AT_ONCE = 16;
const SHOWN_EVERY = 10;
const ROUND_MS = 90_000;
/** What the queue has lost is looked after by alarms, with pauses of some seconds. */
const SETTLE_MS = 180_000;
const USAGE = "usage: node fanout.mjs --url URL [--rounds N] [--sessions N] [--seed N] [--wide N]";

function parseFlags(args) {
  const options = {
    url: { type: "string" },
    rounds: { type: "string", default: "30" },
    sessions: { type: "string", default: "200" },
    seed: { type: "string", default: "1" },
    wide: { type: "string", default: "0" },
  };
  try {
    const { values } = parseArgs({ args, options });
    const number = (name) => {
      if (!/^\d+$/.test(values[name])) throw new Error(`--${name} is no number`);
      return Number(values[name]);
    };
    if (!URL.canParse(values.url)) throw new Error("--url is missing or no URL");
    const [rounds, sessions, seed] = ["rounds", "sessions", "seed"].map(number);
    return { url: values.url, rounds, sessions, seed, wide: number("wide") };
  } catch (error) {
    process.stderr.write(`soak: ${error.message.split(". ")[0]}; ${USAGE}\n`);
    process.exit(2);
  }
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks for the kill, and returns when the host is back. */
async function pullThePlug() {
  process.stdout.write("@kill\n");
  const { done } = await lines.next();
  if (done) throw new Error("nobody restarts the host");
}

/** Runs `work` on every item, some at a time. */
async function each(items, work) {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

async function round(sources, sessions, random) {
  const acked = () => sources.reduce((sum, source) => sum + source.acked, 0);
  const target = KILL_AFTER.least + random() * (KILL_AFTER.most - KILL_AFTER.least);
  const killAt = acked() + target;
  const publishing = sources.map((source) => source.run(PUBLISHERS));
  const chosen = new Set();
  while (chosen.size < Math.min(TOGGLES, sessions.length)) {
    chosen.add(sessions[Math.floor(random() * sessions.length)]);
  }
  const leaving = [...chosen].map(async (session) => {
    // Some of them when the plug is pulled, some of them later.
    const toggleAt = killAt + (random() - 0.8) * target;
    while (acked() < Math.min(toggleAt, killAt)) await sleep(5);
    if (toggleAt > killAt) await sleep(random() * 200);
    await session.toggle(session.sources[Math.floor(random() * session.sources.length)]);
  });
  const stopped = Promise.all([...publishing, ...leaving]);
  // If a client fails before the kill, this is what says so.
  const due = async () => {
    while (acked() < killAt) await sleep(2);
  };
  await Promise.race([stopped, due()]);
  await Promise.race([stopped.then(() => new Promise(() => {})), pullThePlug()]);
  for (const source of sources) source.stop();
  await stopped;
}

/** Waits until every session has everything, and compares. */
async function settle(sources, sessions) {
  const logs = new Map();
  for (const source of sources) logs.set(source.path, await source.read());
  const deadline = performance.now() + SETTLE_MS;
  let waiting = sessions;
  while (waiting.length > 0) {
    await each(waiting, (session) => session.read());
    waiting = waiting.filter((session) => !session.hasAll(logs));
    if (waiting.length > 0 && performance.now() > deadline) {
      // Which messages are missing says more than that it took long.
      for (const session of waiting) session.check(logs);
      throw new Violation(`${waiting.length} sessions are not complete after ${SETTLE_MS} ms`);
    }
    if (waiting.length > 0) await sleep(200);
  }
  // Whatever were to come too much would come now.
  await sleep(500);
  await each(sessions, (session) => session.read());
  for (const session of sessions) session.check(logs);
}

/** A publish to each source tells of as many subscribers as there are. */
async function checkCounts(sources, sessions) {
  for (const source of sources) {
    const expected = sessions.filter((session) => session.isSubscribedTo(source)).length;
    for (let seq = 0; ; seq += 1) {
      const messages = [{ by: `${source.path}0`, n: seq, pad: "" }];
      const { headers } = await source.publish(messages[0].by, seq, messages);
      const count = Number(headers.get("stream-fanout-count"));
      if (count === expected) break;
      if (seq > 60) throw new Violation(`${source.path} has ${count} subscribers, not ${expected}`);
      await sleep(500);
    }
  }
}

async function soak({ url, rounds, sessions: count, seed }) {
  const random = seeded(seed);
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  const few = new Source(url, "few", JSON_TYPE, random);
  const many = new Source(url, "many", JSON_TYPE, random);
  const text = new Source(url, "text", TEXT_TYPE, random);
  const sources = [few, many, text];
  for (const source of sources) await source.create();
  const numbers = Array.from({ length: count }, (_, number) => number);
  const sessions = numbers.map((number) => sessionOf(url, number, { few, many, text }));
  await each(sessions, (session) => session.create());
  process.stdout.write(`${count} sessions after ${seconds()} s\n`);
  for (let n = 1; n <= rounds; n += 1) {
    await within(ROUND_MS, `round ${n}`, round(sources, sessions, random));
    if (n % SHOWN_EVERY === 0 || n === rounds) {
      process.stdout.write(`round ${n}: ${sentBy(sources)} messages, ${seconds()} s\n`);
    }
  }
  const loaded = performance.now();
  await settle(sources, sessions);
  const settled = ((performance.now() - loaded) / 1000).toFixed(1);
  await checkCounts(sources, sessions);
  await settle(sources, sessions);
  return (
    `${rounds} kills, ${sentBy(sources)} messages of ${sources.length} sources, ` +
    `${sessions.reduce((sum, { count }) => sum + count, 0)} deliveries to ${count} sessions, ` +
    `each there once and in order; publishes were ${modesOf(sources)}; ` +
    `${counts.answered} answers, ${counts.repeated} requests repeated; ` +
    `complete ${settled} s after the last round; ${seconds()} s`
  );
}

const sentBy = (sources) => sources.reduce((sum, { sent }) => sum + sent.size, 0);

function modesOf(sources) {
  const modes = {};
  for (const source of sources) {
    for (const [mode, n] of Object.entries(source.modes)) modes[mode] = (modes[mode] ?? 0) + n;
  }
  return Object.entries(modes).map(([mode, n]) => `${n} ${mode}`).join(", ");
}

async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Violation(`${what} takes longer than ${ms} ms`)), ms);
  });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const flags = parseFlags(process.argv.slice(2));
try {
  const text = flags.wide > 0 ? await wide(flags) : await soak(flags);
  process.stdout.write(`soak: ok: ${text}\n`, () => process.exit(0));
} catch (error) {
  const text = error instanceof Violation ? error.message : error.stack;
  process.stdout.write(`soak: FAILED (seed ${flags.seed}): ${text}\n`, () => process.exit(1));
}
