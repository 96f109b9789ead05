// Requests that outlive the host: asked again until there is an answer.
const PAUSE_MS = 50;
const TIMEOUT_MS = 60_000;

/** Something does not hold. */
export class Violation extends Error {}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export const counts = { answered: 0, repeated: 0 };

/**
 * Asks once: `{ status, next, headers, bytes }`, or `undefined` when the connection broke or the
 * service could not say whether it did what was asked.
 */
export async function attempt(url, { method = "GET", headers, body, timeoutMs = TIMEOUT_MS } = {}) {
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await fetch(url, { method, headers, body, signal });
    const bytes = Buffer.from(await response.arrayBuffer());
    if (response.status === 503) return undefined;
    counts.answered += 1;
    const next = response.headers.get("stream-next-offset");
    return { status: response.status, next, headers: response.headers, bytes };
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw new Violation(`${method} ${url}: ${error.message}`);
  }
}

/** Asks until there is an answer, which must have one of the wanted statuses. */
export async function ask(url, wanted, request = {}) {
  for (let isRepeated = false; ; isRepeated = true) {
    const answer = await attempt(url, request);
    if (answer === undefined) {
      counts.repeated += 1;
      await sleep(PAUSE_MS);
      continue;
    }
    const { first, again = first } = wanted;
    const allowed = isRepeated ? [...first, ...again] : first;
    if (allowed.includes(answer.status)) return answer;
    const method = request.method ?? "GET";
    throw new Violation(
      `${method} ${url}: ${answer.status}, wanted ${allowed.join(" or ")}: ` +
        answer.bytes.toString().slice(0, 300),
    );
  }
}

export const positionOf = (offset) => Number(offset.split("_")[1]);
