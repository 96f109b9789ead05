// The object store compared with the streams, by the operators' route.
import { Violation, ask, sleep } from "./http.mjs";

const PAGE = 500;

/** Objects by state, and the names that are wrong, over all projects. */
export async function reconcile(url, projects) {
  const report = { states: {}, objects: 0, intended: [], wrong: [] };
  for (const project of projects) {
    for (let after; after !== null; ) {
      const query = new URLSearchParams({ limit: String(PAGE) });
      if (after !== undefined) query.set("after", after);
      const answer = await ask(`${url}/v1/${project}/reconcile?${query}`, { first: [200] });
      const { objects, missing, next } = JSON.parse(answer.bytes.toString());
      for (const { name, state } of objects) {
        report.objects += 1;
        report.states[state] = (report.states[state] ?? 0) + 1;
        if (state === "intended") report.intended.push(name);
        if (state === "orphaned") report.wrong.push(`orphaned ${name}`);
      }
      report.wrong.push(...missing.map((name) => `missing ${name}`));
      after = next;
    }
  }
  return report;
}

/** Reconciles until the report satisfies; nothing may be wrong on the way. */
export async function reconciledUntil(satisfies, { url, projects, timeoutMs }) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const report = await reconcile(url, projects);
    if (report.wrong.length > 0) {
      throw new Violation(`${report.wrong.length} wrong: ${report.wrong.slice(0, 5).join(", ")}`);
    }
    if (satisfies(report)) return report;
    if (performance.now() > deadline) {
      throw new Violation(`not settled after ${timeoutMs} ms: ${JSON.stringify(report.states)}`);
    }
    await sleep(500);
  }
}
