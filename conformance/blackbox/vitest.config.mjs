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
    // Files run side by side, as many as the smallest machine has cores for. Tests marked
    // `concurrent` mostly wait, so many of them may.
    maxWorkers: 2,
    maxConcurrency: 20,
  },
});
