// The memory of the process that serves, from `/proc`: who listens on the port, and how much of
// it is resident.
import { readFileSync, readdirSync, readlinkSync } from "node:fs";

import { Violation, sleep } from "./http.mjs";

const MIB = 1 << 20;
const LISTENS = "0A";

/**
 * What a reader may cost: one that is idle, and one that has bytes on the way or does not read, on
 * each hop. The process that serves locally has both of them, the client's socket and the internal
 * one. It is the last third's median that is judged.
 */
const IDLE_BYTES = 67 * 1024;
const BULK_BYTES = 1.1 * MIB;
const HOPS = 2;
/**
 * What the runtime has not collected yet: a large append leaves a frame, an array and two strings
 * for every reader that it went to, and locally nothing limits an isolate's memory. It is the
 * comparison of the thirds that finds what is never given back.
 */
const UNCOLLECTED_BYTES = 256 * MIB;
/** How much more the last third of a run may have than the middle third. */
const GROWTH = 0.08;
const GROWTH_BYTES = 24 * MIB;
/** In fewer samples than these, the thirds differ by what was collected in one and not the other. */
const LONG_SAMPLES = 150;
const GROWTH_BYTES_SHORT = UNCOLLECTED_BYTES / 2;

export const inMib = (bytes) => `${Math.round(bytes / MIB)} MiB`;

/** The process that listens on a port of this machine; `undefined` where there is no `/proc`. */
export function listenerOf(port) {
  if (process.platform !== "linux") return undefined;
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = readFileSync("/proc/net/tcp", "utf8").trim().split("\n");
  const fields = rows.map((row) => row.trim().split(/\s+/));
  const row = fields.find(([, local, , state]) => local?.endsWith(wanted) && state === LISTENS);
  const socket = `socket:[${row?.[9]}]`;
  const owns = (id) => {
    try {
      return readdirSync(`/proc/${id}/fd`).some((fd) => linkOf(`/proc/${id}/fd/${fd}`) === socket);
    } catch {
      // It has ended meanwhile.
      return false;
    }
  };
  const id = readdirSync("/proc").find((name) => /^\d+$/.test(name) && owns(name));
  if (id === undefined) throw new Error(`nobody is found listening on port ${port}`);
  return id;
}

function linkOf(path) {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** Samples the resident size of a process. */
export class Memory {
  samples = [];
  base = 0;
  #isOver = false;

  constructor(id) {
    this.id = id;
  }

  /** Now, in bytes. */
  now() {
    if (this.id === undefined) return 0;
    const [, kib] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.id}/status`, "utf8"));
    return Number(kib) * 1024;
  }

  async run(everyMs) {
    while (!this.#isOver) {
      this.samples.push(this.now());
      await sleep(everyMs);
    }
  }

  stop() {
    this.#isOver = true;
  }

  /** Medians of the middle and the last third, and the largest. */
  get report() {
    const third = Math.floor(this.samples.length / 3);
    const middle = median(this.samples.slice(third, 2 * third));
    const last = median(this.samples.slice(-third));
    return { base: this.base, middle, last, peak: Math.max(...this.samples) };
  }

  /** Throws unless memory was flat and within bounds. */
  judge({ readers, bulk }) {
    if (this.id === undefined) return "memory is not known on this system";
    const { base, middle, last, peak } = this.report;
    const held = readers * IDLE_BYTES + bulk * BULK_BYTES * HOPS;
    const bound = base + held + UNCOLLECTED_BYTES;
    const text =
      `memory ${inMib(base)} at first, ${inMib(middle)} in the middle third, ${inMib(last)} in ` +
      `the last of ${inMib(bound)}, ${inMib(peak)} at most`;
    const isLong = this.samples.length >= LONG_SAMPLES;
    const slack = isLong ? GROWTH_BYTES : GROWTH_BYTES_SHORT;
    if (last > middle * (1 + GROWTH) + slack) throw new Violation(`memory grows: ${text}`);
    if (last > bound) throw new Violation(`too much memory: ${text}`);
    return text;
  }
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
