// What the edge does for every request, in one crossing between wasm and JavaScript at its begin
// and one at its end: each getter of a request and each string that crosses costs more than what is
// decided there.

// The order is that of `Preamble` in exchange.rs.
const HEADERS = [
  "origin",
  "authorization",
  "sec-websocket-protocol",
  "stream-forked-from",
  "traceparent",
  "cf-ray",
  "cf-connecting-ip",
  "stream-timing",
];

// Method, URL, length of the header section, and some headers, one a line; `=` stands before each
// header that is present. No header value contains a line end.
export function preamble(request) {
  let bytes = 0;
  const found = new Array(HEADERS.length).fill("");
  for (const [name, value] of request.headers) {
    bytes += name.length + value.length + 4;
    const at = HEADERS.indexOf(name);
    if (at >= 0) found[at] = `=${value}`;
  }
  return `${request.method}\n${request.url}\n${bytes}\n${found.join("\n")}`;
}

// Completes responses on their way to the client: CORS, privacy, timing, the request id of an
// error; then tells of the request.
//
// plan.cors       headers to add, or null
// plan.vary       whether the answer depends on the origin
// plan.isPrivate  whether what is cacheable may be kept by the client only
// plan.timing     whether the client asked for Server-Timing
// plan.id         request id
// plan.log        "all", "errors" or "none"
// plan.line       the log line's first fields, as JSON without braces
// plan.point      [dataset, blobs, index], or null
// plan.started    when the request came, in milliseconds
export function finish(promise, unavailable, plan) {
  return promise.catch(unavailable).then((response) => {
    const { status } = response;
    const duration = Date.now() - plan.started;
    if (plan.log === "all" || (plan.log === "errors" && status >= 500)) {
      const line = `{"event":"request",${plan.line},"status":${status},"durationMs":${duration}}`;
      if (status >= 500) console.error(line);
      else console.log(line);
    }
    if (plan.point !== null) {
      const [dataset, blobs, index] = plan.point;
      const blobsOfStatus = [...blobs, String(status)];
      dataset.writeDataPoint({ blobs: blobsOfStatus, doubles: [1, duration], indexes: [index] });
    }
    return status === 101 ? response : completed(response, plan, duration);
  });
}

function completed(response, plan, duration) {
  const isError = response.status >= 400;
  const cacheControl = plan.isPrivate ? response.headers.get("cache-control") : null;
  const hides = cacheControl !== null && cacheControl.startsWith("public");
  if (!isError && !hides && plan.cors === null && !plan.vary && !plan.timing) return response;
  const changed = new Response(response.body, response);
  const { headers } = changed;
  if (plan.cors !== null) for (const name in plan.cors) headers.set(name, plan.cors[name]);
  if (plan.vary) headers.append("vary", "origin");
  if (hides) headers.set("cache-control", cacheControl.replace("public", "private"));
  if (plan.timing) headers.append("server-timing", `edge;dur=${duration}`);
  if (isError || plan.timing) headers.set("x-request-id", plan.id);
  return changed;
}
