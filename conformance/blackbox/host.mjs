// A host of one's own, for tests that need other variables, restarts or an empty state.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "../../wrangler/host.mjs");
// Below the ports that the system takes for outgoing connections: one of those could be gone, or
// connect to itself, while the host is down.
const PORTS = { first: 4620, perWorker: 40 };
const READY_TIMEOUT_MS = 30_000;
const ATTEMPTS = 5;

function isFree(port) {
  return new Promise((done) => {
    const probe = createServer();
    probe.once("error", () => done(false));
    probe.listen({ port, host: "127.0.0.1", exclusive: true }, () => {
      probe.close(() => done(true));
    });
  });
}

// A port that is free only because its host is being restarted must not be taken by another: each
// place among vitest's workers has ports of its own, and each host of a worker takes the next one.
const firstPort = PORTS.first + (Number(process.env.VITEST_POOL_ID ?? 1) - 1) * PORTS.perWorker;
let taken = 0;

async function freePort() {
  for (let step = 0; step < PORTS.perWorker; step += 1) {
    const port = firstPort + (taken % PORTS.perWorker);
    taken += 1;
    if (await isFree(port)) return port;
  }
  throw new Error(`all ports from ${firstPort} are taken`);
}

/** A running host with a state of its own. `stop` it in the end. */
export class Host {
  #directory;
  #port;
  #flags;
  #child;
  /** What host and Worker wrote to the console. */
  console = "";

  /** Starts a host; `vars` overrides variables of the Worker. */
  static async start(vars = {}) {
    const host = new Host();
    host.#directory = mkdtempSync(join(tmpdir(), "durable-streams-"));
    host.#flags = Object.entries(vars).flatMap(([name, value]) => ["--var", `${name}=${value}`]);
    for (let attempt = 1; ; attempt += 1) {
      host.#port = await freePort();
      try {
        await host.#spawn();
        return host;
      } catch (error) {
        // Somebody else has found the same port free.
        if (attempt === ATTEMPTS || !host.console.includes("already in use")) throw error;
        host.console = "";
      }
    }
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Pulls the plug and starts again on the same port and state. */
  async restart() {
    await this.#kill();
    await this.#spawn();
  }

  /** Ends the host and removes its state. */
  async stop() {
    await this.#kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #spawn() {
    const flags = ["--port", this.#port, "--persist", join(this.#directory, "state")];
    this.#child = spawn(
      process.execPath,
      [SCRIPT, "--until-eof", ...flags.map(String), ...this.#flags],
      { detached: true, stdio: ["pipe", "pipe", "pipe"] },
    );
    this.#child.stderr.on("data", (text) => (this.console += text));
    await new Promise((done, fail) => {
      const failed = (why) => fail(new Error(`the host ${why}: ${this.console}`));
      const timer = setTimeout(() => failed("is not ready"), READY_TIMEOUT_MS);
      this.#child.once("exit", () => failed("has ended"));
      createInterface({ input: this.#child.stdout }).once("line", () => {
        clearTimeout(timer);
        done();
      });
    });
  }

  // Node and workerd are one process group, so nothing is left.
  async #kill() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((done) => this.#child.once("exit", done));
    process.kill(-this.#child.pid, "SIGKILL");
    await ended;
    const deadline = performance.now() + 5000;
    while (!(await isFree(this.#port)) && performance.now() < deadline) {
      await new Promise((done) => setTimeout(done, 20));
    }
  }
}
