// Our own suites against the served Worker, whose URL is CONFORMANCE_TEST_URL.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: dirname(fileURLToPath(import.meta.url)),
  test: {
    include: ["*.test.mjs"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // The tests wait more than they compute; more workers than this only wait for the server.
    maxWorkers: 2,
  },
});
