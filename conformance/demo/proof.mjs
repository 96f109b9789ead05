// What was read against what was sent, message for message.

/**
 * Reads a closed stream from an offset on by catch-up GETs, without the client: the texts of its
 * messages in order.
 */
export function readBack(url, offset = "-1") {
  return readUntil(url, offset, "stream-closed");
}

/** The same of a stream that nobody appends to any more. */
export function readToTail(url) {
  return readUntil(url, "-1", "stream-up-to-date");
}

async function readUntil(url, offset, header) {
  const messages = [];
  for (;;) {
    const response = await fetch(`${url}?offset=${offset}`);
    if (response.status !== 200) throw new Error(`GET ${url}: status ${response.status}`);
    for (const item of await response.json()) messages.push(JSON.stringify(item));
    const next = response.headers.get("stream-next-offset");
    if (response.headers.get(header) === "true") return messages;
    if (next === offset) throw new Error(`GET ${url}: stays at ${offset} without ${header}`);
    offset = next;
  }
}

/** What differs, in words; `undefined` when both are the same, in the same order. */
export function difference(sent, read) {
  const at = sent.findIndex((message, index) => message !== read[index]);
  if (at < 0 && sent.length === read.length) return undefined;
  const first = at < 0 ? sent.length : at;
  const known = new Set(sent);
  const seen = new Set(read);
  const counts = [
    `${sent.filter((message) => !seen.has(message)).length} lost`,
    `${read.length - seen.size} repeated`,
    `${[...seen].filter((message) => !known.has(message)).length} never sent`,
  ];
  const show = (message) => message ?? "nothing";
  return (
    `sent ${sent.length}, read ${read.length} (${counts.join(", ")}); ` +
    `message ${first} should be ${show(sent[first])} and is ${show(read[first])}`
  );
}
