// A proxy on 127.0.0.1 that adds a token to each request, as a client's own HTTP layer would:
// everything else passes as it came, in both directions, streams and aborts included.
import { Agent, createServer, request } from "node:http";

export async function startProxy(target, token) {
  const { hostname, port } = new URL(target);
  const agent = new Agent({ keepAlive: true });
  const server = createServer((incoming, outgoing) => {
    const headers = [...incoming.rawHeaders, "Authorization", `Bearer ${token}`];
    const { method, url: path } = incoming;
    const upstream = request({ agent, hostname, port, method, path, headers, setHost: false });
    upstream.on("response", (response) => {
      outgoing.writeHead(response.statusCode, response.statusMessage, response.rawHeaders);
      outgoing.flushHeaders();
      response.on("error", () => outgoing.destroy());
      response.pipe(outgoing);
    });
    upstream.on("error", () => outgoing.destroy());
    outgoing.on("close", () => upstream.destroy());
    incoming.pipe(upstream);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}`, server };
}
