// What Linux knows of a host's runtime: its memory, and which objects it holds in memory.
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";

import { eventually } from "./client.mjs";

// The host writes its process id here; the runtime is its child.
const MARKER = ".durable-streams-state";

function statusOf(pid) {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  return Object.fromEntries(text.split("\n").map((line) => line.split(/:\s+/)));
}

/** Process id of the host's workerd. */
export function runtimeOf(host) {
  const parent = readFileSync(join(host.state, MARKER), "utf8").trim();
  const isRuntime = (pid) => {
    try {
      const status = statusOf(pid);
      return status.PPid === parent && status.Name === "workerd";
    } catch {
      // A process that ended meanwhile.
      return false;
    }
  };
  const pid = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).find(isRuntime);
  if (pid === undefined) throw new Error(`no workerd of process ${parent}`);
  return pid;
}

/** Resident memory of the host's workerd. */
export function residentBytes(host) {
  return Number.parseInt(statusOf(runtimeOf(host)).VmRSS, 10) * 1024;
}

/** Samples resident memory until `stop`, which tells the largest. */
export function watchMemory(host) {
  const pid = runtimeOf(host);
  let largest = 0;
  const sample = () => {
    largest = Math.max(largest, Number.parseInt(statusOf(pid).VmRSS, 10) * 1024);
  };
  sample();
  const timer = setInterval(sample, 50);
  return {
    stop() {
      clearInterval(timer);
      sample();
      return largest;
    },
  };
}

/** Databases that the runtime has open: each is of an object that is in memory. */
export function objectsInMemory(host) {
  const directory = `/proc/${runtimeOf(host)}/fd`;
  const files = readdirSync(directory).flatMap((descriptor) => {
    try {
      return [readlinkSync(join(directory, descriptor))];
    } catch {
      // Closed meanwhile.
      return [];
    }
  });
  const isDatabase = (file) =>
    file.startsWith(join(host.state, "do")) && /\/[0-9a-f]{64}\.sqlite$/.test(file);
  return [...new Set(files.filter(isDatabase))];
}

/** Waits until the runtime has no object in memory. */
export function asleep(host, timeoutMs = 20_000) {
  return eventually(async () => objectsInMemory(host).length, (left) => left === 0, timeoutMs);
}
