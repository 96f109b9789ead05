// Progress on stderr: one line that is rewritten on a terminal, a line now and then elsewhere.

const TERMINAL_MS = 100;
const LOG_MS = 2000;

export class Progress {
  #started = performance.now();
  #line;
  #timer;

  /** `line` makes the text from the seconds since the start. */
  start(line) {
    this.#line = line;
    this.#started = performance.now();
    this.#timer = setInterval(() => this.#show(), process.stderr.isTTY ? TERMINAL_MS : LOG_MS);
  }

  /** Writes a line that stays. */
  note(text) {
    const clear = process.stderr.isTTY ? "\r\x1b[K" : "";
    process.stderr.write(`${clear}${text}\n`);
  }

  stop() {
    clearInterval(this.#timer);
    if (this.#line !== undefined) this.note(this.#text());
    this.#line = undefined;
  }

  #show() {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${this.#text()}`);
    else this.note(this.#text());
  }

  #text() {
    return this.#line((performance.now() - this.#started) / 1000);
  }
}
