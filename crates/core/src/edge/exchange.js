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

// Bits of `flags`: see `Exchange::flags` in exchange.rs.
const LOGS_ALL = 1;
const LOGS_ERRORS = 2;
const VARIES = 4;
const IS_PRIVATE = 8;
const TIMES = 16;

// Completes responses on their way to the client: CORS, privacy, timing, the request id of an
// error; then tells of the request.
//
// unavailable  turns a rejection into a response
// flags        what is to be done
// started      when the request came, in milliseconds
// told         request id, operation, project, stream, trace id, the origin that may read the answer,
//              and the code of a refusal, one a line; empty for none
// exposed      response headers that this origin may read
// dataset      of Analytics Engine, or undefined
export function finish(promise, unavailable, flags, started, told, exposed, dataset) {
  return promise.catch(unavailable).then((response) => {
    const { status } = response;
    if (dataset !== undefined) count(dataset, told, status, Date.now() - started);
    if (flags & LOGS_ALL || (flags & LOGS_ERRORS && status >= 500)) {
      tell(told, status, Date.now() - started);
    }
    if (status < 400 && flags < VARIES) return response;
    return status === 101 ? response : completed(response, flags, started, told, exposed);
  });
}

function count(dataset, told, status, duration) {
  const [, operation, project, stream] = told.split("\n");
  const blobs = ["request", operation, stream, String(status)];
  try {
    dataset.writeDataPoint({ blobs, doubles: [1, duration], indexes: [project] });
  } catch (error) {
    // What was done is done; a point is missing in a chart.
    console.error(JSON.stringify({ event: "point_failed", cause: String(error) }));
  }
}

// One line of JSON. Never the query: it may hold a token.
function tell(told, status, durationMs) {
  const [requestId, operation, project, stream, traceId, , code] = told.split("\n");
  const line = { event: "request", requestId };
  if (traceId !== "") line.traceId = traceId;
  line.operation = operation;
  if (project !== "") line.project = project;
  if (stream !== "") line.stream = stream;
  if (code !== "") line.code = code;
  const text = JSON.stringify({ ...line, status, durationMs });
  if (status >= 500) console.error(text);
  else console.log(text);
}

function completed(response, flags, started, told, exposed) {
  const [requestId, , , , , origin] = told.split("\n");
  const cacheControl = flags & IS_PRIVATE ? response.headers.get("cache-control") : null;
  const hides = cacheControl !== null && cacheControl.startsWith("public");
  const isError = response.status >= 400;
  const changed = new Response(response.body, response);
  const { headers } = changed;
  if (origin !== "") {
    headers.set("access-control-allow-origin", origin);
    headers.set("access-control-expose-headers", exposed);
  }
  if (flags & VARIES) headers.append("vary", "origin");
  if (hides) {
    headers.set("cache-control", cacheControl.replace("public", "private"));
    headers.append("vary", "authorization");
  }
  if (flags & TIMES) headers.append("server-timing", `edge;dur=${Date.now() - started}`);
  if (isError || flags & TIMES) headers.set("x-request-id", requestId);
  return changed;
}
