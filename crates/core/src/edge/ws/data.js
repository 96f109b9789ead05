// A data frame of a JSON stream, without its bytes passing through wasm.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export function sendText(socket, head, bytes, tail) {
  socket.send(head + decoder.decode(bytes) + tail);
}
