// One source with thousands of subscribers: how long it takes, and that everybody has everything.
import { Violation, ask, sleep } from "./http.mjs";
import { JSON_TYPE } from "./log.mjs";
import { PROJECT, readOn } from "./fanout_sources.mjs";

const MESSAGES = 20;
/** Requests in one go, as a client that has many sessions to make would send them. */
const BATCH = 50;
/** Everything runs on one thread here, and a slow machine delivers for minutes. */
const SETTLE_MS = 900_000;
/**
 * After so long a local object sleeps and gives its files back, three for each that is awake: with the sessions'
 * objects awake beside their streams, a limit of 20,000 open files is not enough for 5,000 sessions.
 */
const SLEEP_MS = 12_000;
const OK = { first: [200] };
const HEADERS = { "content-type": JSON_TYPE };

async function inBatches(items, work) {
  for (let at = 0; at < items.length; at += BATCH) {
    await Promise.all(items.slice(at, at + BATCH).map(work));
  }
}

/** Runs `work`; seconds that it took. */
async function timed(work) {
  const started = performance.now();
  await work();
  return ((performance.now() - started) / 1000).toFixed(1);
}

async function statsOf(url) {
  const { bytes } = await ask(`${url}?stats`, OK);
  return JSON.parse(bytes.toString());
}

/** Subscribes everybody, publishes, and waits until everybody has everything; what to say of it. */
export async function wide({ url, wide: count }) {
  const base = `${url}/v1/${PROJECT}`;
  const source = `${base}/stream/wide`;
  await ask(source, { first: [201], again: [200] }, { method: "PUT", headers: HEADERS });
  const sessions = Array.from({ length: count }, (_, at) => `wide-${at}`);
  const subscribing = await timed(() =>
    inBatches(sessions, (sessionId) => {
      const body = JSON.stringify({ sessionId, streamId: "wide" });
      return ask(`${base}/subscribe`, OK, { method: "POST", headers: HEADERS, body });
    }),
  );
  process.stdout.write(`${count} sessions are subscribed after ${subscribing} s\n`);
  await sleep(SLEEP_MS);
  const modes = new Set();
  const answers = [];
  const started = performance.now();
  for (let n = 0; n < MESSAGES; n += 1) {
    const asked = performance.now();
    const producer = { "producer-id": "wide", "producer-epoch": "0", "producer-seq": String(n) };
    const sending = { method: "POST", headers: { ...HEADERS, ...producer } };
    const request = { ...sending, body: JSON.stringify({ n }), timeoutMs: SETTLE_MS };
    const wanted = { first: [200], again: [204] };
    const { headers } = await ask(`${base}/publish/wide`, wanted, request);
    answers.push(performance.now() - asked);
    modes.add(headers.get("stream-fanout-mode"));
    const told = Number(headers.get("stream-fanout-count"));
    if (told !== count) throw new Violation(`a publish tells of ${told} subscribers, not ${count}`);
  }
  const deadline = performance.now() + SETTLE_MS;
  for (let waiting = sessions; waiting.length > 0; ) {
    const left = [];
    await inBatches(waiting, async (session) => {
      if (!(await isComplete(`${base}/stream/session/${session}`))) left.push(session);
    });
    waiting = left;
    if (waiting.length > 0 && performance.now() > deadline) {
      throw new Violation(`${waiting.length} sessions are not complete after ${SETTLE_MS} ms`);
    }
    if (waiting.length > 0) await sleep(500);
  }
  const settled = ((performance.now() - started) / 1000).toFixed(1);
  answers.sort((a, b) => a - b);
  const { hot: atSource } = await statsOf(source);
  const { hot: atSession } = await statsOf(`${base}/stream/session/${sessions[0]}`);
  return (
    `${count} sessions subscribed in ${subscribing} s; ${MESSAGES} messages published ` +
    `(${[...modes].join(", ")}), answered within ${answers[MESSAGES >> 1].toFixed(0)} ms in the ` +
    `middle and ${answers.at(-1).toFixed(0)} ms at most; all ${count * MESSAGES} were read ` +
    `${settled} s after the first publish; ${atSource.rows} rows at the source, ` +
    `${atSession.rows} at a session`
  );
}

/** Whether a session has everything; that it has anything else is a violation. */
async function isComplete(url) {
  const { messages } = await readOn(url, JSON_TYPE, "-1");
  const isInOrder = messages.every(({ n }, at) => n === at);
  if (!isInOrder || messages.length > MESSAGES) {
    throw new Violation(`${url}: ${JSON.stringify(messages).slice(0, 300)}`);
  }
  return messages.length === MESSAGES;
}
