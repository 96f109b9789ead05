// Hosts the built Worker on workerd, straight through Miniflare's API.
//
// `wrangler dev` proxies every request through two more processes; here the public
// port is a direct socket into the user Worker, so a request meets nothing but workerd.
// The configuration is wrangler.jsonc, the one that is deployed.
//
// stdout carries one line, `ready http://127.0.0.1:PORT`; everything else goes to
// stderr. Exit code: 0 after SIGTERM or SIGINT, 1 when hosting fails, 2 for a bad flag.
// workerd stays in this process's group: kill the group and nothing is left.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const CONFIG = join(HERE, "wrangler.jsonc");
const HOST = "127.0.0.1";
const PORT_DEFAULT = 4437;
// Marks a directory of state, and holds the id of the process that serves it.
const MARKER = ".durable-streams-state";
const USAGE =
  "usage: node host.mjs [--port N] [--persist DIR [--fresh]] [--var KEY=VALUE]... [--env NAME] " +
  "[--rate-limit N] [--without BINDING]...";
// Seconds: the longer of the two periods that the platform has.
const RATE_LIMIT_PERIOD = 60;

class Failure extends Error {
  constructor(message, code = 1) {
    super(message);
    this.code = code;
  }
}

function parseFlags(args) {
  const options = {
    port: { type: "string", default: String(PORT_DEFAULT) },
    persist: { type: "string" },
    fresh: { type: "boolean", default: false },
    var: { type: "string", multiple: true, default: [] },
    env: { type: "string" },
    // For tests: requests of one token or address in a minute, whatever the configuration says.
    "rate-limit": { type: "string" },
    // For tests: a binding of the configuration that the Worker does not get.
    without: { type: "string", multiple: true, default: [] },
    // Stop when stdin ends, so that a host does not outlive the test that started it.
    "until-eof": { type: "boolean", default: false },
  };
  let values;
  try {
    ({ values } = parseArgs({ args, options }));
  } catch (error) {
    throw new Failure(`${error.message.split(". ")[0]}; ${USAGE}`, 2);
  }
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535) {
    throw new Failure(`--port ${values.port}: not a port (0 takes a free one)`, 2);
  }
  if (!/^\d+$/.test(values["rate-limit"] ?? "1")) {
    throw new Failure(`--rate-limit ${values["rate-limit"]}: not a number of requests`, 2);
  }
  if (values.fresh && values.persist === undefined) {
    throw new Failure("--fresh wipes the directory of --persist, which is missing", 2);
  }
  const vars = Object.fromEntries(values.var.map(parseVar));
  return { ...values, port, vars };
}

function parseVar(text) {
  const at = text.indexOf("=");
  if (at < 1) throw new Failure(`--var ${text}: not KEY=VALUE`, 2);
  return [text.slice(0, at), text.slice(at + 1)];
}

function assertPortFree(port) {
  return new Promise((done, fail) => {
    const probe = createServer();
    probe.once("error", (error) => {
      const why = error.code === "EADDRINUSE" ? "already in use" : error.message;
      fail(new Failure(`port ${port} on ${HOST}: ${why}`));
    });
    probe.listen({ port, host: HOST, exclusive: true }, () => probe.close(done));
  });
}

async function workerOptions(flags) {
  const { unstable_getMiniflareWorkerOptions, unstable_readConfig } = await import("wrangler");
  const read = (env) => unstable_readConfig({ config: CONFIG, env }, { hideWarnings: true });
  const { definedEnvironments: known = [] } = read(undefined);
  if (flags.env !== undefined && !known.includes(flags.env)) {
    throw new Failure(`--env ${flags.env}: wrangler.jsonc has ${known.join(", ")}`, 2);
  }
  const { workerOptions: found, main } = unstable_getMiniflareWorkerOptions(
    read(flags.env),
    flags.env,
  );
  const { modulesRules: _, ...options } = found;
  const modulesRoot = dirname(main);
  const wasm = join(modulesRoot, "index_bg.wasm");
  for (const path of [main, wasm]) {
    if (!existsSync(path)) throw new Failure(`${path} is missing: run cargo xtask build first`);
  }
  return {
    ...withoutBindings(options, flags.without),
    ...rateLimit(flags),
    name: "durable-streams",
    modulesRoot,
    modules: [
      { type: "ESModule", path: main },
      { type: "CompiledWasm", path: wasm },
    ],
    bindings: { ...options.bindings, ...flags.vars },
    unsafeDirectSockets: [{ host: HOST, port: flags.port }],
  };
}

function rateLimit({ "rate-limit": limit }) {
  if (limit === undefined) return {};
  const simple = { limit: Number(limit), period: RATE_LIMIT_PERIOD };
  return { ratelimits: { RATE_LIMITER: { simple } } };
}

function withoutBindings(options, names) {
  for (const name of names) {
    const { kvNamespaces, r2Buckets, analyticsEngineDatasets, queueProducers } = options;
    const kinds = [kvNamespaces, r2Buckets, analyticsEngineDatasets, queueProducers];
    const kind = kinds.find((bindings) => name in bindings);
    if (kind === undefined) throw new Failure(`--without ${name}: no such binding`, 2);
    delete kind[name];
  }
  return options;
}

// Wipes only what an earlier host made: a directory without the marker is refused, so
// that `--persist ~ --fresh` costs nobody a home. Two hosts on one state would each
// believe to be the only instance of every object, so the second is refused as well.
function claimState(directory, fresh) {
  const marker = join(directory, MARKER);
  mkdirSync(directory, { recursive: true });
  if (existsSync(marker)) {
    const pid = Number(readFileSync(marker, "utf8"));
    if (pid !== process.pid && isHost(pid)) {
      throw new Failure(`${directory} is in use by process ${pid}`);
    }
  } else if (readdirSync(directory).length > 0) {
    throw new Failure(`${directory} is neither empty nor a directory of state`);
  }
  if (fresh) {
    for (const name of readdirSync(directory)) {
      rmSync(join(directory, name), { recursive: true, force: true });
    }
  }
  writeFileSync(marker, `${process.pid}\n`);
}

function isHost(pid) {
  try {
    process.kill(pid, 0);
    const commandLine = `/proc/${pid}/cmdline`;
    return !existsSync("/proc/self/cmdline") || readFileSync(commandLine, "utf8").includes("host.mjs");
  } catch {
    return false;
  }
}

function onRuntimeStdio(stdout, stderr) {
  stdout.pipe(process.stderr, { end: false });
  stderr.pipe(process.stderr, { end: false });
}

async function host(flags) {
  if (flags.port !== 0) await assertPortFree(flags.port);
  const options = await workerOptions(flags);
  const persist = flags.persist === undefined ? undefined : resolve(flags.persist);
  if (persist !== undefined) claimState(persist, flags.fresh);

  const { Miniflare, Log, LogLevel } = await import("miniflare");
  let stopping = false;
  const miniflare = new Miniflare({
    ...options,
    host: HOST,
    port: 0,
    cf: false,
    logRequests: false,
    log: new Log(LogLevel.NONE),
    defaultPersistRoot: persist,
    handleRuntimeStdio(stdout, stderr) {
      onRuntimeStdio(stdout, stderr);
      // Ctrl-C reaches workerd as well and may do so first: wait for our own signal.
      stdout.once("end", () => {
        setTimeout(() => stopping || fail(new Failure("workerd has ended")), 100);
      });
    },
  });
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    await miniflare.dispose().catch(() => {});
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  if (flags["until-eof"]) process.stdin.resume().on("end", stop);
  await miniflare.ready;
  const url = await miniflare.unsafeGetDirectURL();
  process.stdout.write(`ready http://${HOST}:${url.port}\n`);
}

function fail(error) {
  const [first] = String(error?.message ?? error).split("\n");
  process.stderr.write(`host: ${first}\n`);
  process.exit(error instanceof Failure ? error.code : 1);
}

process.on("unhandledRejection", fail);
try {
  await host(parseFlags(process.argv.slice(2)));
} catch (error) {
  fail(error);
}
