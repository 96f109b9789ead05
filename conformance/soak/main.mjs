// The soak under kills: the host dies again and again while it moves bytes to the object store.
//
//   node main.mjs --url http://127.0.0.1:PORT [--rounds N] [--seed N] [--hurry]
//
// Each round loads the service, pulls the plug at a random moment, and asks on until everything
// is answered; then every stream must hold what it has to. In the end the object store must hold
// what the streams reference and nothing else, and nothing at all once they are deleted. In a
// hurry, nobody waits for uploads that were cut off: the streams are deleted right away.
//
// Who started this process pulls the plug: a line `@kill` on stdout asks for it, a line
// `restarted` on stdin says that the host is back. Exit code: 0 when everything holds, 1 when
// not, 2 for a bad flag.
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { seeded } from "../random.mjs";
import { Violation, counts, sleep } from "./http.mjs";
import { Load } from "./load.mjs";
import { reconciledUntil } from "./store.mjs";

const PROJECTS = ["soak-a", "soak-b"];
const KILL_MS = { least: 100, most: 700 };
const SHOWN_EVERY = 10;
// An interrupted upload is looked for after a minute, and deleted some seconds later.
const SETTLE_MS = 120_000;
const ROUND_MS = 30_000;
const USAGE = "usage: node main.mjs --url URL [--rounds N] [--seed N] [--hurry]";

function parseFlags(args) {
  const options = {
    url: { type: "string" },
    rounds: { type: "string", default: "100" },
    seed: { type: "string", default: "1" },
    hurry: { type: "boolean", default: false },
  };
  try {
    const { values } = parseArgs({ args, options });
    const number = (name) => {
      if (!/^\d+$/.test(values[name])) throw new Error(`--${name} is no number`);
      return Number(values[name]);
    };
    if (!URL.canParse(values.url)) throw new Error("--url is missing or no URL");
    const { url, hurry } = values;
    return { url, rounds: number("rounds"), seed: number("seed"), hurry };
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

async function round(load, random) {
  const stopped = load.run();
  // If a client fails before the kill, this is what says so.
  const wait = KILL_MS.least + random() * (KILL_MS.most - KILL_MS.least);
  await Promise.race([stopped, sleep(wait)]);
  await Promise.race([stopped, pullThePlug()]);
  load.stop();
  await stopped;
  await load.check();
}

async function soak({ url, rounds, seed, hurry }) {
  const random = seeded(seed);
  const load = new Load(url, PROJECTS, random);
  const started = performance.now();
  const seconds = () => ((performance.now() - started) / 1000).toFixed(1);
  await load.prepare();
  const where = { url, projects: PROJECTS, timeoutMs: SETTLE_MS };
  // Objects whose upload the kill cut off before the stream knew of it.
  const cutOff = new Set();
  for (let n = 1; n <= rounds; n += 1) {
    await within(ROUND_MS, `round ${n}`, round(load, random));
    const { intended } = await reconciledUntil(() => true, where);
    for (const name of intended) cutOff.add(name);
    if (n % SHOWN_EVERY === 0 || n === rounds) {
      const text = `round ${n}: ${acked(load)} messages, ${load.logs.size} streams`;
      process.stdout.write(`${text}, ${load.removed} deleted, ${seconds()} s\n`);
    }
  }
  for (const log of load.logs) await log.recheck();
  const { states } = await reconciledUntil(() => true, where);
  if (!hurry) {
    await reconciledUntil(({ states }) => !states.intended && !states.marked, where);
    for (const log of load.logs) await log.recheck();
  }
  const total = acked(load);
  await deleteAll(load);
  await reconciledUntil(({ objects }) => objects === 0, where);
  return (
    `${rounds} kills, ${total} messages in streams that were left, each there once and in its ` +
    `place; ${counts.answered} answers, ${counts.repeated} requests repeated; ` +
    `${cutOff.size} objects were uploaded and not yet known when the host died; ` +
    `objects: ${inWords(states)}, none orphaned or missing, and none left in the end; ` +
    `${seconds()} s`
  );
}

async function deleteAll(load) {
  const logs = [...load.logs];
  for (const log of logs) await load.remove(log);
  for (const log of logs) {
    for (let n = 0; !(await log.isGone()); n += 1) {
      if (n > 1200) throw new Violation(`${log.url} is not gone`);
      await sleep(100);
    }
  }
}

const inWords = (states) =>
  Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ") || "none";

const acked = (load) => [...load.logs].reduce((sum, log) => sum + log.acked, 0);

async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Violation(`${what} takes longer than ${ms} ms`)), ms);
  });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const flags = parseFlags(process.argv.slice(2));
try {
  const text = await soak(flags);
  process.stdout.write(`soak: ok: ${text}\n`, () => process.exit(0));
} catch (error) {
  const text = error instanceof Violation ? error.message : error.stack;
  process.stdout.write(`soak: FAILED (seed ${flags.seed}): ${text}\n`, () => process.exit(1));
}
