// Our own suites against the served Worker, whose URL is CONFORMANCE_TEST_URL.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const WAITING = ["timers.test.mjs", "sleeping.test.mjs"];

// Tests that measure time go first and have the machine to themselves.
const project = (name, groupOrder, files) => ({
  extends: true,
  test: { name, sequence: { groupOrder }, ...files },
});

export default defineConfig({
  root: dirname(fileURLToPath(import.meta.url)),
  test: {
    projects: [
      project("waiting", 1, { include: WAITING }),
      project("working", 2, { include: ["*.test.mjs"], exclude: WAITING }),
    ],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Files run side by side, as many as the smallest machine has cores for. Tests marked
    // `concurrent` mostly wait, so many of them may.
    maxWorkers: 2,
    maxConcurrency: 20,
  },
});
