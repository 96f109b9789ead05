// Hosts the built suites the way wrangler/host.mjs hosts the service: the same Miniflare, the same
// workerd, real storage in memory.
//
// usage: node host.mjs [--port N] [--until-eof]
//
// stdout carries one line, `ready http://127.0.0.1:PORT`.
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const HOST = "127.0.0.1";
// Of wrangler/wrangler.jsonc.
const COMPATIBILITY_DATE = "2026-03-10";

const { values: flags } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    "until-eof": { type: "boolean", default: false },
  },
});
const require = createRequire(join(HERE, "../../wrangler/package.json"));
const { Miniflare, Log, LogLevel } = require("miniflare");

const miniflare = new Miniflare({
  name: "contract",
  compatibilityDate: COMPATIBILITY_DATE,
  modulesRoot: join(HERE, "build"),
  modules: [
    { type: "ESModule", path: join(HERE, "build/index.js") },
    { type: "CompiledWasm", path: join(HERE, "build/index_bg.wasm") },
  ],
  r2Buckets: { SEGMENTS: "contract" },
  durableObjects: { CONTRACT: { className: "ContractObject", useSQLite: true } },
  unsafeDirectSockets: [{ host: HOST, port: Number(flags.port) }],
  host: HOST,
  port: 0,
  cf: false,
  logRequests: false,
  log: new Log(LogLevel.NONE),
  handleRuntimeStdio(stdout, stderr) {
    stdout.pipe(process.stderr, { end: false });
    stderr.pipe(process.stderr, { end: false });
  },
});
const stop = async () => {
  await miniflare.dispose().catch(() => {});
  process.exit(0);
};
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
if (flags["until-eof"]) process.stdin.resume().on("end", stop);
await miniflare.ready;
const url = await miniflare.unsafeGetDirectURL();
process.stdout.write(`ready http://${HOST}:${url.port}\n`);
