// The soak of live readers: thousands of them, of all modes, some of whom stop reading.
//
//   node readers.mjs --url http://127.0.0.1:PORT [--readers N] [--seconds S] [--seed N]
//                    [--modes long-poll,sse,ws] [--stalled PERCENT] [--large SECONDS]
//
// A few streams are appended to all the time while readers come, leave and come back. Every reader
// that reads gets every byte in order, each once, and is never far behind; those with credit get no
// frame more than they granted; in the end all reach the tail. The memory of the process that
// serves stays flat and within what readers may cost. Readers that stop reading may be sent away;
// they hurt nobody else. `--large` says how often there is an append of more than a megabyte, 0 for
// never: by default 15 s, and longer for many readers, since each such append is a megabyte for
// every reader of its stream. Both flags help to find what a failure comes from. The seed makes the same decisions; when
// they are taken is up to the clock.
//
// Exit code: 0 when everything holds, 1 when not, 2 for a bad flag.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";

import { seeded } from "../random.mjs";
import { Violation, ask, counts, sleep } from "./http.mjs";
import { longPoll, sse } from "./readers_http.mjs";
import { Load } from "./readers_load.mjs";
import { Memory, inMib, listenerOf } from "./readers_memory.mjs";
import { HEALTHY, PAUSING, Reader, STUCK, STUCK_FOR_EVER, Totals } from "./readers_reader.mjs";
import { Watch } from "./readers_watch.mjs";
import { wsAppend, wsCredit, wsPaced } from "./readers_ws.mjs";

const MODES = {
  "long-poll": [{ name: "long-poll", connect: longPoll, share: 15 }],
  sse: [{ name: "sse", connect: sse, share: 25 }],
  ws: [
    { name: "ws", connect: wsPaced, share: 25 },
    { name: "ws-credit", connect: wsCredit, share: 25 },
    { name: "ws-append", connect: wsAppend, share: 10 },
  ],
};
const BUSY_SHARE = 0.6;
/** Appends a second that all sockets make together. */
const SOCKET_APPENDS = 4;
const PAUSE_MS = 900;
const WARM_READERS = 60;
const WARM_PAUSE_MS = 2000;
const RAMP_MS = 30_000;
const RAMP_MS_MAX = 600_000;
/** Readers that may be on their way to the tail while others start. */
const ARRIVING_MAX = 150;
const SAMPLE_MS = 2000;
const SHOWN_MS = 10_000;
const SETTLE_MS = 180_000;
const USAGE =
  "usage: node readers.mjs --url URL [--readers N] [--seconds S] [--seed N] " +
  `[--modes ${Object.keys(MODES).join(",")}] [--stalled PERCENT] [--large SECONDS]`;

function parseFlags(args) {
  const options = {
    url: { type: "string" },
    readers: { type: "string", default: "2000" },
    seconds: { type: "string", default: "600" },
    seed: { type: "string", default: "1" },
    stalled: { type: "string", default: "5" },
    large: { type: "string" },
    modes: { type: "string", default: Object.keys(MODES).join(",") },
  };
  try {
    const { values } = parseArgs({ args, options });
    values.large ??= String(Math.max(15, Math.ceil(values.readers / 20)));
    const number = (name) => {
      if (!/^\d+$/.test(values[name])) throw new Error(`--${name} is no number`);
      return Number(values[name]);
    };
    if (!URL.canParse(values.url)) throw new Error("--url is missing or no URL");
    const modes = values.modes.split(",");
    const unknown = modes.find((mode) => MODES[mode] === undefined);
    if (unknown !== undefined) throw new Error(`--modes ${unknown}: no such mode`);
    const numbers = ["readers", "seconds", "seed", "stalled", "large"];
    return { url: values.url, modes, ...Object.fromEntries(numbers.map((n) => [n, number(n)])) };
  } catch (error) {
    process.stderr.write(`soak: ${error.message.split(". ")[0]}; ${USAGE}\n`);
    process.exit(2);
  }
}

/** So many readers, spread over modes, streams and tempers. */
function makeReaders({ readers, modes, stalled }, load, random, totals) {
  const kinds = modes.flatMap((mode) => MODES[mode]);
  const busy = load.truths.filter(({ isBusy }) => isBusy);
  const quiet = load.truths.filter(({ isBusy }) => !isBusy);
  const oneOf = (list) => list[Math.floor(random() * list.length)];
  return Array.from({ length: readers }, (_, number) => {
    const mode = weighted(kinds, random);
    const isStalled = random() < stalled / 100;
    const temper = isStalled ? oneOf([PAUSING, PAUSING, STUCK, STUCK, STUCK_FOR_EVER]) : HEALTHY;
    const truth = oneOf(isStalled || random() < BUSY_SHARE ? busy : quiet);
    const { connect } = mode;
    const name = `${mode.name} reader ${number}`;
    const reader = new Reader({ name, connect, truth, temper, random, totals });
    return Object.assign(reader, { mode: mode.name, load, by: `socket${number}` });
  });
}

function weighted(kinds, random) {
  const sum = kinds.reduce((all, { share }) => all + share, 0);
  let at = random() * sum;
  return kinds.find(({ share }) => (at -= share) < 0) ?? kinds[0];
}

async function soak(flags) {
  const random = seeded(flags.seed);
  const totals = new Totals();
  const appending = flags.modes.includes("ws") ? flags.readers / 10 : 0;
  const load = new Load(flags.url, random, {
    pauseMs: PAUSE_MS,
    largeEveryMs: flags.large * 1000,
    socketPauseMs: (appending * 1000) / SOCKET_APPENDS,
  });
  await load.prepare();
  await warmUp(flags, load, random);
  const readers = makeReaders(flags, load, random, totals);
  const memory = new Memory(listenerOf(Number(new URL(flags.url).port)));
  memory.base = memory.now();
  const watch = new Watch(readers, load.truths);
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  const run = { flags, load, readers, memory, watch, totals };
  const { reading } = await ramp(readers, flags.seconds);
  const cpuBefore = process.cpuUsage();
  await Promise.race([reading, play(run)]);
  const cpu = process.cpuUsage(cpuBefore);
  await Promise.race([reading, settle(run)]);
  for (const truth of load.truths) truth.settle();
  const stalled = readers.filter(({ temper }) => temper !== HEALTHY).length;
  const perStream = load.truths.map((truth) => readers.filter((one) => one.truth === truth).length);
  const bulk = stalled + Math.max(...perStream);
  const judged = memory.judge({ readers: flags.readers, bulk });
  for (const reader of readers) reader.finish();
  await reading;
  const busy = (cpu.user + cpu.system) / 1e4 / flags.seconds;
  return (
    `${flags.readers} readers, ${stalled} of them stalled; ${summary(run)}; ${watch.summary}; ` +
    `${judged}; the readers' own process used ${busy.toFixed(0)} % of a core, ` +
    `99 % of its delays were below ${(delay.percentile(99) / 1e6).toFixed(0)} ms`
  );
}

/**
 * A few readers read everything while the largest appends are made, and leave: what the process has
 * then it needs for itself.
 */
async function warmUp(flags, load, random) {
  const some = { ...flags, readers: WARM_READERS, stalled: 0 };
  const readers = makeReaders(some, load, random, new Totals());
  for (const reader of readers) {
    reader.beginAnew("-1");
    reader.by = `warm${reader.by}`;
  }
  const { reading } = await ramp(readers, 1);
  await Promise.race([reading, load.appendLarge()]);
  await Promise.race([reading, settle({ load, readers })]);
  for (const reader of readers) reader.finish();
  await reading;
  await sleep(WARM_PAUSE_MS);
}

/** Starts the readers one after the other; what is returned fails with the first of them. */
async function ramp(readers, seconds) {
  const rampMs = Math.min(RAMP_MS, (seconds * 1000) / 4);
  const started = performance.now();
  const running = [];
  let failure;
  const shown = setInterval(() => {
    const text = `${running.length} readers started, ${arriving(readers)} on their way`;
    process.stdout.write(`${text} to the tail\n`);
  }, SHOWN_MS);
  for (const [number, reader] of readers.entries()) {
    running.push(reader.run().catch((error) => {
      failure ??= error;
      throw error;
    }));
    const ahead = started + (rampMs * number) / readers.length - performance.now();
    if (ahead > 5) await sleep(ahead);
    while (number % 10 === 0 && arriving(readers) > ARRIVING_MAX && failure === undefined) {
      await sleep(100);
      if (performance.now() - started > RAMP_MS_MAX) throw new Violation("readers do not arrive");
    }
    if (failure !== undefined) throw failure;
  }
  clearInterval(shown);
  return { reading: Promise.all(running) };
}

const arriving = (readers) =>
  readers.filter((one) => one.truth.followers.has(one) && !one.isAtTail).length;

/** Appends while everybody reads. */
async function play({ flags, load, memory, watch, totals }) {
  const started = performance.now();
  const writing = load.run();
  const sampling = Promise.all([memory.run(SAMPLE_MS), watch.run()]);
  const shown = setInterval(() => {
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    const where = `${summary({ load, totals })}; ${load.takeLatency()}`;
    process.stdout.write(`${seconds} s: ${where}; ${watch.summary}; ${inMib(memory.now())}\n`);
  }, SHOWN_MS);
  await Promise.race([writing, sampling, sleep(flags.seconds * 1000)]);
  clearInterval(shown);
  load.stop();
  memory.stop();
  watch.stop();
  await Promise.all([writing, sampling]);
}

/** Everybody who reads must reach the tail, and every byte be somebody's append. */
async function settle({ load, readers }) {
  for (const reader of readers) reader.settle();
  const waiting = () =>
    readers.filter((one) => !one.isStuck && (!one.isAtTail || one.appends?.open.length > 0));
  const deadline = performance.now() + SETTLE_MS;
  while (waiting().length > 0) {
    if (performance.now() > deadline) {
      const [first] = waiting();
      throw new Violation(
        `${waiting().length} readers did not reach the tail within ${SETTLE_MS} ms: ` +
          `${first.truth.url}: ${first.who} is at ${first.position} of ${first.truth.length}`,
      );
    }
    await sleep(100);
  }
  for (const truth of load.truths) {
    const { next } = await ask(truth.url, { first: [200] }, { method: "HEAD" });
    if (next !== truth.acked.offset) truth.fail(`the tail is ${next}, not ${truth.acked.offset}`);
  }
}

function summary({ load, totals }) {
  const appends = load.truths.reduce((sum, truth) => sum + truth.appends, 0);
  const bytes = load.truths.reduce((sum, truth) => sum + truth.length, 0);
  const endings = Object.entries(totals.endings).map(([how, count]) => `${count} × ${how}`);
  return (
    `${appends} appends of ${inMib(bytes)}, read as ${totals.frames} frames of ` +
    `${inMib(totals.bytes)} over ${totals.connections} connections ` +
    `(${endings.join(", ") || "none ended by the service"}; ${counts.repeated} appends repeated)`
  );
}

const flags = parseFlags(process.argv.slice(2));
try {
  const text = await soak(flags);
  process.stdout.write(`soak: ok: ${text}\n`, () => process.exit(0));
} catch (error) {
  const text = error instanceof Violation ? error.message : error.stack;
  process.stdout.write(`soak: FAILED (seed ${flags.seed}): ${text}\n`, () => process.exit(1));
}
