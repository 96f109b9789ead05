// Hosts the ceiling Worker the way wrangler/host.mjs hosts ours: the same Miniflare, the same
// workerd, a direct socket, real storage.
//
// usage: node host.mjs --port N --persist DIR [--until-eof]
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
    persist: { type: "string" },
    "until-eof": { type: "boolean", default: false },
  },
});
const require = createRequire(join(HERE, "../../../wrangler/package.json"));
const { Miniflare, Log, LogLevel } = require("miniflare");

const miniflare = new Miniflare({
  name: "ceiling",
  compatibilityDate: COMPATIBILITY_DATE,
  modulesRoot: HERE,
  modules: ["index.js", "edge.js"].map((file) => ({ type: "ESModule", path: join(HERE, file) })),
  r2Buckets: { BUCKET: "ceiling" },
  durableObjects: { BARE: { className: "Bare", useSQLite: true } },
  unsafeDirectSockets: [{ host: HOST, port: Number(flags.port) }],
  host: HOST,
  port: 0,
  cf: false,
  logRequests: false,
  log: new Log(LogLevel.NONE),
  defaultPersistRoot: flags.persist,
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
