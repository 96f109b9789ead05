// The hot path of an append in a few crossings between wasm and JavaScript instead of dozens:
// each getter of a request and each string that crosses costs more than the engine's own work.

const DELIVERY = "http://object/internal/deliver?";

// Objects call each other with PATCH, which the edge refuses to clients: a POST is an append (1), a
// PATCH to that URL a range for a session (2).
export function kindOf(request) {
  const { method } = request;
  if (method === "POST") return 1;
  return method === "PATCH" && request.url.startsWith(DELIVERY) ? 2 : 0;
}

// Reads a delivery and hands it to `take`: the message, the bytes unless they broke off, and what
// resolves the promise of the answer.
export function receiveDelivery(request, take) {
  const message = request.url.slice(DELIVERY.length);
  return new Promise((resolve) => {
    request.arrayBuffer().then(
      (buffer) => take(message, new Uint8Array(buffer), resolve),
      () => take(message, undefined, resolve),
    );
  });
}

// Sends a range to a session's stream: nothing when it has the range, otherwise what it says.
export function sendRange(streams, object, message, bytes) {
  const init = { method: "PATCH", body: bytes };
  const sent = streams.getByName(object).fetch(DELIVERY + message, init);
  return sent.then((answer) => (answer.status === 204 ? undefined : said(answer)));
}

async function said(answer) {
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`status ${answer.status}`);
  return text;
}

// The session has the range.
export function answerDelivered(resolve) {
  resolve(new Response(null, { status: 204 }));
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
