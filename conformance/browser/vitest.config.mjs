// The example page in a real browser, against the served Worker, whose URL is CONFORMANCE_TEST_URL.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: dirname(fileURLToPath(import.meta.url)),
  test: {
    include: ["*.test.mjs"],
    // A browser under load on two cores is slow, and one of them is enough.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    maxWorkers: 1,
  },
});
