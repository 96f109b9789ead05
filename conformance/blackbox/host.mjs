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
const PORTS = { first: 4620, count: 80 };
const READY_TIMEOUT_MS = 30_000;

/** A server that listens on the port, or `undefined` when somebody else does. */
function listen(port) {
  return new Promise((done) => {
    const server = createServer().unref();
    server.once("error", () => done(undefined));
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => done(server));
  });
}

function closed(server) {
  return new Promise((done) => server.close(done));
}

async function isFree(port) {
  const server = await listen(port);
  if (server !== undefined) await closed(server);
  return server !== undefined;
}

// A port can be free only because its host is being restarted by a test in another process. So
// every port has a twin that its owner listens on for as long as it owns the port.
async function claimPort() {
  for (let port = PORTS.first; port < PORTS.first + PORTS.count; port += 1) {
    const claim = await listen(port + PORTS.count);
    if (claim === undefined) continue;
    if (await isFree(port)) return { port, claim };
    await closed(claim);
  }
  throw new Error(`all ports from ${PORTS.first} are taken`);
}

const varFlags = (vars) =>
  Object.entries(vars).flatMap(([name, value]) => ["--var", `${name}=${value}`]);

/** A running host with a state of its own. `stop` it in the end. */
export class Host {
  #directory;
  #port;
  #claim;
  #flags;
  #child;
  /** What host and Worker wrote to the console. */
  console = "";

  /**
   * Starts a host; `vars` overrides variables of the Worker. `env`: an environment of
   * wrangler.jsonc; `rateLimit`: requests of one token or address in a minute; `without`: bindings
   * to leave out.
   */
  static async start(vars = {}, { env, rateLimit, without = [] } = {}) {
    const host = new Host();
    host.#directory = mkdtempSync(join(tmpdir(), "durable-streams-"));
    host.#flags = varFlags(vars);
    if (env !== undefined) host.#flags.push("--env", env);
    if (rateLimit !== undefined) host.#flags.push("--rate-limit", String(rateLimit));
    host.#flags.push(...without.flatMap((name) => ["--without", name]));
    const { port, claim } = await claimPort();
    host.#port = port;
    host.#claim = claim;
    await host.#spawn();
    return host;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Directory of the durable state. */
  get state() {
    return join(this.#directory, "state");
  }

  /** Pulls the plug and starts again on the same port and state; `vars` overrides more variables. */
  async restart(vars = {}) {
    await this.#kill();
    // The last flag of a name counts.
    this.#flags.push(...varFlags(vars));
    await this.#spawn();
  }

  /** Ends the host and removes its state. */
  async stop() {
    await this.#kill();
    await closed(this.#claim);
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
