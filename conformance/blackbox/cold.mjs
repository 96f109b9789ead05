// Streams whose bytes have become segments, for suites whose hosts have small ones.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import {
  BINARY_TYPE,
  JSON_TYPE,
  appended,
  created,
  eventually,
  freshStream,
  positionOf,
} from "./client.mjs";

export const TEXT_TYPE = "text/plain";
export const SEGMENT_BYTES = 300;
/** Variables of a host that rotates every few appends and sweeps soon. */
export const COLD = { SEGMENT_BYTES: String(SEGMENT_BYTES), SEGMENT_GRACE_MS: "200" };

const WIDTHS = ["a", "é", "€", "😀"];

let count = 0;
function letters(random, longest) {
  const length = 1 + Math.floor(random() ** 2 * longest);
  return Array.from({ length }, () => "abcdefghijklmnopqrstuvwxyz"[(count += 1) % 26]).join("");
}

/** Bytes of a JSON stream as positions count them: each message and its end. */
export const wireOf = (messages) =>
  Buffer.from(messages.map((message) => `${JSON.stringify(message)},\n`).join(""));

const same = (bytes) => bytes;

/**
 * Kinds of streams: how a body is made, which bytes of the log it becomes, and which bytes of the
 * log a response and an event reader have got.
 */
export const KINDS = {
  binary: {
    type: BINARY_TYPE,
    body: (random) => Buffer.from(letters(random, 120)),
    wire: same,
    got: same,
    followed: ({ bytes }) => bytes,
  },
  text: {
    type: TEXT_TYPE,
    body: (random) =>
      Buffer.from([...letters(random, 40)].map((_, at) => WIDTHS[at % 4]).join("")),
    wire: same,
    got: same,
    followed: ({ bytes }) => bytes,
  },
  json: {
    type: JSON_TYPE,
    // Batches of one to three messages.
    body: (random) => {
      const messages = Array.from({ length: 1 + Math.floor(random() * 3) }, () => [
        letters(random, 30),
        WIDTHS[Math.floor(random() * 4)],
      ]);
      return Buffer.from(JSON.stringify(messages));
    },
    wire: (body) => wireOf(JSON.parse(body.toString())),
    got: (bytes) => wireOf(JSON.parse(bytes.toString())),
    followed: ({ messages }) => wireOf(messages),
  },
};

/** A stream of random appends: URL, the bytes of its log, and the offset after each append. */
export async function randomStream(host, kind, random, appends) {
  const url = freshStream("segments", host.url);
  const offsets = [await created(url, { type: kind.type })];
  const parts = [];
  for (let n = 0; n < appends; n += 1) {
    const body = kind.body(random);
    parts.push(kind.wire(body));
    offsets.push(await appended(url, body, { type: kind.type }));
  }
  return { url, whole: Buffer.concat(parts), offsets };
}

/** A text that is in no other stream: what finds a stream's bytes on the disk. */
export const markerOf = (url) => new URL(url).pathname.split("/").at(-1);

/** A stream of `appends` bodies of about 100 bytes, each with the stream's marker. */
export async function markedStream(host, appends, { type = BINARY_TYPE, ...options } = {}) {
  const url = freshStream("segments", host.url);
  await created(url, { type, ...options });
  return { url, ...(await markMore(url, appends, type)) };
}

/** Appends marked bodies; the bytes they become and the offset after each. */
export async function markMore(url, appends, type = BINARY_TYPE, word = "") {
  const parts = [];
  const offsets = [];
  for (let n = 0; n < appends; n += 1) {
    const text = `${markerOf(url)}.${word}${n}.`.padEnd(97, "x");
    const isJson = type === JSON_TYPE;
    const body = isJson ? JSON.stringify([text, n]) : `<${text}>\n`;
    parts.push(isJson ? wireOf([text, n]) : Buffer.from(body));
    offsets.push(await appended(url, body, { type }));
  }
  return { parts, offsets, whole: Buffer.concat(parts) };
}

/** What the host and its Worker have logged of a kind of event. */
export function logged(host, event) {
  const lines = host.console.split("\n").filter((line) => line.startsWith(`{`));
  const parsed = lines.flatMap((line) => {
    try {
      return [JSON.parse(line)];
    } catch {
      // The last line may not have arrived whole.
      return [];
    }
  });
  return parsed.filter((entry) => entry.event === event);
}

/** Segments that a stream has made, the oldest first, as the host's log tells. */
export function segmentsOf(host, url) {
  const object = new URL(url).pathname.replace(/^\/v1\/([^/]+)\/stream\//, "$1/");
  const own = ({ segment }) => segment.startsWith(`${object}//`);
  return logged(host, "rotated").filter(own).map(({ segment, number: bytes }) => {
    const [, generation, from] = /\/\/(\d+)\/(\d+)\.\d+$/.exec(segment);
    return {
      name: segment,
      generation: Number(generation),
      from: Number(from),
      to: Number(from) + bytes,
    };
  });
}

/** Where a stream's cold bytes end. */
export const coldEnd = (host, url) => segmentsOf(host, url).at(-1)?.to ?? 0;

/** Waits until less than a segment is hot before an offset; the stream's segments. */
export async function cooled(host, url, offset, hotBytes = SEGMENT_BYTES - 1) {
  const wanted = positionOf(offset) - hotBytes;
  await eventually(async () => coldEnd(host, url), (end) => end >= wanted, 10_000);
  return segmentsOf(host, url);
}

/** Files of the objects in the bucket. */
export function blobFiles(host) {
  const buckets = join(host.state, "r2");
  if (!existsSync(buckets)) return [];
  const directories = readdirSync(buckets).map((bucket) => join(buckets, bucket, "blobs"));
  return directories
    .filter((directory) => existsSync(directory))
    .flatMap((directory) => readdirSync(directory).map((name) => join(directory, name)));
}

/** Files of the objects that hold some text. One that is deleted meanwhile does not. */
export function blobsWith(host, text) {
  return blobFiles(host).filter((file) => {
    try {
      return readFileSync(file).includes(text);
    } catch {
      return false;
    }
  });
}

/** Waits until the bucket holds nothing of a stream any more. */
export const swept = (host, url) =>
  eventually(async () => blobsWith(host, markerOf(url)).length, (left) => left === 0, 20_000);

/** Runs `work` on every item, some at a time. */
export async function each(items, work, atOnce = 16) {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
