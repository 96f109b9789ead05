// The hot path of an append in three crossings between wasm and JavaScript instead of dozens:
// each getter of a request and each string that crosses costs more than the engine's own work.

// Objects call each other with PATCH, which the edge refuses to clients: a POST is an append.
export function isAppend(request) {
  return request.method === "POST";
}

const field = (value) => (value === null ? "\n" : `=${value}\n`);

// The headers of an append, one a line, `=` before each that is present. No header value
// contains a line end. The order is that of `HEADERS` in appends.rs.
export function appendHeaders(request) {
  const { headers } = request;
  return (
    field(headers.get("content-length")) +
    field(headers.get("content-type")) +
    field(headers.get("producer-id")) +
    field(headers.get("producer-epoch")) +
    field(headers.get("producer-seq")) +
    field(headers.get("stream-seq")) +
    field(headers.get("stream-closed")) +
    field(headers.get("origin")) +
    field(headers.get("stream-timing")) +
    field(headers.get("traceparent")) +
    field(headers.get("x-durable-streams-audience")) +
    field(headers.get("x-durable-streams-publish"))
  );
}

// Answers an append that succeeded. A negative epoch stands for an append without producer.
export function answerAppend(resolve, status, next, closed, epoch, seq) {
  const headers = {
    "stream-next-offset": next,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "cross-origin",
  };
  if (closed) headers["stream-closed"] = "true";
  if (epoch >= 0) {
    headers["producer-epoch"] = String(epoch);
    headers["producer-seq"] = String(seq);
  }
  resolve(new Response(null, { status, headers }));
}
