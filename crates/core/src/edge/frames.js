// Messages of sockets in one crossing between wasm and JavaScript each: with thousands of readers,
// crossings are what a broadcast costs.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

// All bytes of a message; the first of them also go into `head`, which is memory of wasm. A text is
// no message of the object's.
export function takeMessage(event, head) {
  const { data } = event;
  if (!(data instanceof ArrayBuffer)) return undefined;
  const bytes = new Uint8Array(data);
  head.set(bytes.length > head.length ? bytes.subarray(0, head.length) : bytes);
  return bytes;
}

// Sends UTF-8 bytes as a text frame, and a control frame if there is one. `texts` is what stands
// before the bytes, what stands behind them, and the control frame.
export function sendText(socket, texts, headLength, tailLength, bytes) {
  const behind = headLength + tailLength;
  socket.send(texts.slice(0, headLength) + decoder.decode(bytes) + texts.slice(headLength, behind));
  if (texts.length > behind) socket.send(texts.slice(behind));
}

// Sends bytes as a binary frame, and a control frame if there is one.
export function sendBytes(socket, bytes, control) {
  socket.send(bytes);
  if (control !== "") socket.send(control);
}
