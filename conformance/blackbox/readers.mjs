// Many readers of one stream, each with a connection of its own.
import { Agent, request } from "node:http";

/** A GET without the overhead of `fetch`: `{ status, headers, body }`. */
export function get(url, agent, headers = {}) {
  return new Promise((done, fail) => {
    const outgoing = request(url, { agent, headers }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        done({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) });
      });
      response.on("error", fail);
    });
    outgoing.on("error", fail);
    outgoing.end();
  });
}

/** A long-polling client that echoes cursors, as clients should. */
export class Poller {
  #url;
  #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #isStopped = false;
  offset;
  cursor;
  /** Bytes received, in order. */
  text = "";
  /** `Stream-Cache` of each answer with data. */
  sources = [];
  isClosed = false;

  constructor(url, offset) {
    this.#url = url;
    this.offset = offset;
  }

  /** Polls once. */
  async poll() {
    const cursor = this.cursor === undefined ? "" : `&cursor=${this.cursor}`;
    const target = `${this.#url}?offset=${this.offset}&live=long-poll${cursor}`;
    const { status, headers, body } = await get(target, this.#agent);
    if (status !== 200 && status !== 204) throw new Error(`${status} ${body}`);
    const next = headers["stream-cursor"];
    if (next !== undefined && next === this.cursor) throw new Error(`cursor ${next} came back`);
    if (status === 200) {
      if (headers["stream-next-offset"] <= this.offset) throw new Error("no progress");
      this.sources.push(headers["stream-cache"]);
    }
    this.cursor = next;
    this.offset = headers["stream-next-offset"];
    this.isClosed = headers["stream-closed"] === "true";
    this.text += body;
    return status;
  }

  /** Polls until the stream is closed, or `stop`. */
  async run() {
    while (!this.isClosed && !this.#isStopped) await this.poll();
    this.#agent.destroy();
  }

  stop() {
    this.#isStopped = true;
  }
}
