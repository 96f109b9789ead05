// HTTP/1.1 by hand over a raw socket, for requests that no proper client sends.
import { connect } from "node:net";

const ANSWER_TIMEOUT_MS = 10_000;

/** An open connection to the server. */
export function open(server) {
  const { hostname, port } = new URL(server);
  return new Promise((done, fail) => {
    const socket = connect(Number(port), hostname, () => done(socket));
    socket.once("error", fail);
  });
}

/** The text of a request head; `target` goes out as it is. */
export function requestHead(method, target, headers = {}) {
  const lines = Object.entries({ host: "localhost", origin: "https://example.com", ...headers });
  const fields = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return Buffer.from(`${method} ${target} HTTP/1.1\r\n${fields}\r\n`, "latin1");
}

/**
 * Sends the parts one after the other and reads one answer: `{ status, headers, body }`.
 * With `end`, our side of the connection is then closed.
 */
export async function exchange(server, parts, { end = false } = {}) {
  const socket = await open(server);
  try {
    const answer = readAnswer(socket);
    for (const part of parts) socket.write(part);
    if (end) socket.end();
    return await answer;
  } finally {
    socket.destroy();
  }
}

/** Sends the parts and breaks the connection off: orderly (`fin`) or at once (`rst`). */
export async function abandon(server, parts, ending) {
  const socket = await open(server);
  socket.on("error", () => {});
  for (const part of parts) {
    await new Promise((done) => socket.write(part, done));
  }
  // What was written should be on its way before the connection breaks.
  await new Promise((done) => setTimeout(done, 50));
  if (ending === "rst") {
    socket.resetAndDestroy();
    return;
  }
  socket.end();
  socket.resume();
  await new Promise((done) => {
    socket.once("close", done);
    setTimeout(() => socket.destroy(), 2000);
  });
}

/** A request and its one answer, as a `Response` like that of `fetch`. */
export async function send(server, method, target, headers = {}, body) {
  const framing = { connection: "close" };
  if (body !== undefined) framing["content-length"] = Buffer.byteLength(body);
  const parts = [requestHead(method, target, { ...framing, ...headers })];
  if (body !== undefined) parts.push(body);
  const answer = await exchange(server, parts);
  const isBare = method === "HEAD" || [101, 204, 205, 304].includes(answer.status);
  return new Response(isBare ? null : answer.body, answer);
}

/** Reads one answer from a socket; what a body needs is told by its framing. */
export function readAnswer(socket, timeoutMs = ANSWER_TIMEOUT_MS) {
  return new Promise((done, fail) => {
    let received = Buffer.alloc(0);
    const timer = setTimeout(() => fail(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    const settle = (isOver) => {
      let answer;
      try {
        answer = parseAnswer(received, isOver);
      } catch (error) {
        fail(error);
      }
      if (answer === undefined && !isOver) return;
      clearTimeout(timer);
      if (answer === undefined) fail(new Error("the connection ended before the answer did"));
      else done(answer);
    };
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      settle(false);
    });
    socket.on("close", () => settle(true));
    socket.on("error", () => settle(true));
  });
}

function parseAnswer(bytes, isOver) {
  const headEnd = bytes.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const [first, ...lines] = bytes.subarray(0, headEnd).toString("latin1").split("\r\n");
  const status = Number(first.split(" ")[1]);
  const headers = new Headers();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const rest = bytes.subarray(headEnd + 4);
  const body = parseBody(rest, status, headers, isOver);
  return body === undefined ? undefined : { status, headers, body };
}

function parseBody(rest, status, headers, isOver) {
  if ([204, 304].includes(status)) return Buffer.alloc(0);
  if (headers.get("transfer-encoding") === "chunked") return parseChunks(rest);
  const length = headers.get("content-length");
  if (length === null) return isOver ? rest : undefined;
  // The answer to a HEAD declares a body that does not come.
  if (isOver && rest.length === 0) return rest;
  return rest.length < Number(length) ? undefined : rest.subarray(0, Number(length));
}

function parseChunks(rest) {
  const parts = [];
  for (let at = 0; ; ) {
    const lineEnd = rest.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(rest.subarray(at, lineEnd).toString("latin1"), 16);
    const end = lineEnd + 2 + size;
    if (rest.length < end + 2) return undefined;
    if (size === 0) return Buffer.concat(parts);
    parts.push(rest.subarray(lineEnd + 2, end));
    at = end + 2;
  }
}
