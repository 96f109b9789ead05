// Answers as plain data, and the platform's cache of pages. A response belongs to the request that
// it was made in; header pairs and bytes belong to nobody.

// What is said of one transfer and not of the page, and what the object tells the edge only.
const OWN = [
  "age",
  "cf-cache-status",
  "content-length",
  "date",
  "x-asked-at",
  "x-client-cache-control",
  "x-stream-lasts",
  "x-was-up-to-date",
];

export function headersOf(response) {
  return [...response.headers].filter(([name]) => !OWN.includes(name));
}

// What the edge looks at, one a line: see `Facts`.
export function factsOf({ headers }) {
  const get = (name) => headers.get(name) ?? "";
  return [
    get("stream-next-offset"),
    headers.get("x-was-up-to-date") ?? get("stream-up-to-date"),
    get("stream-closed"),
    get("stream-cursor"),
    get("etag"),
    headers.get("x-client-cache-control") ?? get("cache-control"),
    get("x-stream-lasts"),
    get("x-asked-at"),
  ].join("\n");
}

// Sets headers from a text: name and value in turn, one a line. An empty value removes the header.
function dressed(pairs, set) {
  const headers = new Headers(pairs);
  const lines = set.split("\n");
  for (let at = 0; at + 1 < lines.length; at += 2) {
    const [name, value] = [lines[at], lines[at + 1]];
    if (value === "") headers.delete(name);
    else headers.set(name, value);
  }
  return headers;
}

export function answer(status, pairs, body, set) {
  return new Response(body ?? null, { status, headers: dressed(pairs, set) });
}

// The same response for the client; its body passes through unless `status` has none.
export function rewrap(response, status, set) {
  let { body } = response;
  if (status === 304 && body !== null) {
    // Nobody reads it: what fails now is nobody's concern.
    body.cancel().catch(() => {});
    body = null;
  }
  return new Response(body, { status, headers: dressed(headersOf(response), set) });
}

export async function findPage(key) {
  const cache = await caches.open("pages");
  return cache.match(key);
}

// The lifetime in the cache is ours; what the client is told stays with the page. An end that is not
// final is the end of now only: that it was, is kept for the edge, which knows of later writes.
export async function keepPage(key, seconds, askedAt, pairs, body) {
  const headers = new Headers(pairs);
  headers.set("x-client-cache-control", headers.get("cache-control") ?? "no-store");
  headers.set("x-asked-at", String(askedAt));
  if (headers.has("stream-up-to-date") && !headers.has("stream-closed")) {
    headers.delete("stream-up-to-date");
    headers.set("x-was-up-to-date", "true");
  }
  headers.set("cache-control", `public, max-age=${seconds}`);
  const cache = await caches.open("pages");
  await cache.put(key, new Response(body, { headers }));
}

// Passes a write's answer on, after telling what it says: see `News`. A call that failed may have
// done its work all the same.
export function noted(promise, stream, isAppend, wrote) {
  const told = (response) => {
    const { status, headers } = response;
    const next = headers.get("stream-next-offset") ?? "";
    if (!isAppend || next !== "") {
      wrote(stream, isAppend, status, next, headers.has("stream-closed"));
    }
    return response;
  };
  const failed = (error) => {
    wrote(stream, isAppend, 503, "", false);
    throw error;
  };
  return promise.then(told, failed);
}
