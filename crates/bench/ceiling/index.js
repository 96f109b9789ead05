// What the platform allows at best: a Worker and an object that do one thing each.
//
//   POST /object/row/NAME      the object stores the body as one row and answers 204
//   POST /object/body/NAME     the object reads the body, touches no SQL and answers 204
//   POST /object/fan/NAME?N    the object has N others store the body as one row each, all at
//                              once, and answers 204 when they have
//   GET  /object/bytes/NAME?N  the object answers with N bytes
//   GET  /worker/bytes?N       the Worker answers with N bytes, without an object
//   PUT  /worker/r2/NAME       the Worker stores the body in the bucket and answers 204
//   GET  /worker/r2/NAME?FROM-LENGTH  the Worker passes a range of it on, unread
//   POST /object/live/NAME     the object stores the body as one row, sends it to every
//                              reader and answers 204
//   GET  /edge/sse/NAME?SEEN, /edge/ws/NAME?SEEN, /edge/long-poll/NAME?SEEN
//                              the Worker in edge.js reads on from the body of that number
//   GET  /edge/ack/NAME        a WebSocket whose every frame the object acks
//
// The Worker in front forwards to the object exactly as ours does: by name, with the
// request as it came. Plain JavaScript without headers or checks, so the stricter ceiling.
import { serve } from "./edge.js";

const ACK = '{"ack":{"id":0}}';
const bytesBySize = new Map();

function bytes(query) {
  let found = bytesBySize.get(query);
  if (found === undefined) {
    found = new Uint8Array(Number(query)).fill(0x61);
    bytesBySize.set(query, found);
  }
  return new Response(found);
}

function queryOf(url) {
  return url.slice(url.indexOf("?") + 1);
}

export class Bare {
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
    this.sql = ctx.storage.sql;
    this.ready = false;
    // What was sent to readers: a long-poll may come between two of them.
    this.bodies = [];
    this.readers = new Set(ctx.getWebSockets());
  }

  async fetch(request) {
    const { url } = request;
    if (url.includes("/edge/")) return this.accept(url);
    if (url.includes("/object/live/")) return this.broadcast(await request.text());
    if (url.includes("/object/row/")) return this.row(await request.arrayBuffer());
    if (url.includes("/object/fan/")) return this.fan(url, await request.arrayBuffer());
    if (url.includes("/object/body/")) {
      await request.arrayBuffer();
      return new Response(null, { status: 204 });
    }
    return bytes(queryOf(url));
  }

  row(body) {
    if (!this.ready) {
      this.sql.exec("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)");
      this.ready = true;
    }
    this.sql.exec("INSERT INTO rows (body) VALUES (?)", body);
    return new Response(null, { status: 204 });
  }

  async fan(url, body) {
    const end = url.indexOf("?");
    const name = url.slice(url.indexOf("/object/fan/") + 12, end);
    const store = async (_, number) => {
      const other = this.env.BARE.getByName(`${name}-${number}`);
      const { status } = await other.fetch("http://object/object/row/", { method: "POST", body });
      if (status !== 204) throw new Error(`status ${status}`);
    };
    await Promise.all(Array.from({ length: Number(url.slice(end + 1)) }, store));
    return new Response(null, { status: 204 });
  }

  accept(url) {
    const [client, server] = Object.values(new WebSocketPair());
    this.ctx.acceptWebSocket(server);
    if (!url.includes("/edge/ack/")) this.readers.add(server);
    const missed = this.bodies.slice(Number(queryOf(url)));
    if (missed.length > 0) server.send(missed.join(""));
    return new Response(null, { status: 101, webSocket: client });
  }

  broadcast(body) {
    const stored = this.row(body);
    this.bodies.push(body);
    for (const reader of this.readers) reader.send(body);
    return stored;
  }

  webSocketMessage(socket) {
    socket.send(ACK);
  }

  webSocketClose(socket) {
    this.readers.delete(socket);
  }
}

async function bucket(request, env) {
  const { url } = request;
  const query = url.indexOf("?");
  const name = url.slice(url.indexOf("/worker/r2/") + 11, query < 0 ? undefined : query);
  if (request.method === "PUT") {
    await env.BUCKET.put(name, request.body);
    return new Response(null, { status: 204 });
  }
  const [offset, length] = queryOf(url).split("-").map(Number);
  const object = await env.BUCKET.get(name, { range: { offset, length } });
  return new Response(object.body);
}

export default {
  fetch(request, env) {
    const { url } = request;
    if (url.includes("/worker/r2/")) return bucket(request, env);
    if (url.includes("/edge/")) return serve(request, env);
    const at = url.indexOf("/object/");
    if (at < 0) return bytes(queryOf(url));
    const end = url.indexOf("?", at);
    return env.BARE.getByName(url.slice(at, end < 0 ? undefined : end)).fetch(request);
  },
};
