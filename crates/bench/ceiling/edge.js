// The edge in front of live readers, at its barest: for each client it opens a socket to the
// object and turns every message into what the client reads. No positions, no encoding, no
// credit; a client that does not read is not noticed.
//
//   /edge/sse/NAME?SEEN        an event a message
//   /edge/ws/NAME?SEEN         a frame a message
//   /edge/long-poll/NAME?SEEN  the first message is the answer
//   /edge/ack/NAME             frames both ways
const encoder = new TextEncoder();

// A socket to the object. What arrives before the listeners are there waits for `accept`.
async function attach(request, env) {
  const { url } = request;
  const end = url.indexOf("?");
  const name = url.slice(url.lastIndexOf("/") + 1, end < 0 ? undefined : end);
  const headers = { upgrade: "websocket" };
  const object = env.BARE.getByName(`/object/live/${name}`);
  return (await object.fetch(url, { headers })).webSocket;
}

function events(upstream) {
  const { readable, writable } = new IdentityTransformStream();
  const writer = writable.getWriter();
  const leave = () => upstream.close();
  // The response's head goes out with its first bytes.
  writer.write(encoder.encode(":\n\n")).catch(leave);
  upstream.addEventListener("message", ({ data }) => {
    writer.write(encoder.encode(`data: ${data}\n\n`)).catch(leave);
  });
  upstream.accept();
  return new Response(readable, { headers: { "content-type": "text/event-stream" } });
}

function frames(upstream) {
  const [client, server] = Object.values(new WebSocketPair());
  upstream.addEventListener("message", ({ data }) => server.send(data));
  server.addEventListener("message", ({ data }) => upstream.send(data));
  server.addEventListener("close", () => upstream.close());
  server.accept();
  upstream.accept();
  return new Response(null, { status: 101, webSocket: client });
}

function first(upstream) {
  return new Promise((answer) => {
    upstream.addEventListener("message", ({ data }) => {
      upstream.close();
      answer(new Response(data));
    });
    upstream.accept();
  });
}

export async function serve(request, env) {
  const upstream = await attach(request, env);
  const { url } = request;
  if (url.includes("/edge/sse/")) return events(upstream);
  if (url.includes("/edge/long-poll/")) return first(upstream);
  return frames(upstream);
}
