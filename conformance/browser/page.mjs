// The example page in headless Chromium: how to open it, use it, and see what it shows.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const PAGE = join(dirname(fileURLToPath(import.meta.url)), "../../docs/examples/live.html");
/** Debian's package installs it there. */
const EXECUTABLE = process.env.CHROMIUM || "/usr/bin/chromium";
/** How long the page may take to show something, on a machine under load. */
const WAIT_MS = 45_000;
/** What the browser itself writes when a connection fails; a page cannot prevent it. */
const NETWORK = /^(Failed to load resource: |WebSocket connection to )/;

/** A server of the page, on another origin than the service, and the browser. */
export class Browser {
  #server;
  #browser;
  #origin;

  static async start() {
    const browser = new Browser();
    const html = await readFile(PAGE);
    browser.#server = createServer((request, response) => {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(html);
    });
    await new Promise((done) => browser.#server.listen(0, "127.0.0.1", done));
    browser.#origin = `http://127.0.0.1:${browser.#server.address().port}`;
    // Chromium has no sandbox for root, which CI is.
    const options = { executablePath: EXECUTABLE, args: ["--no-sandbox"], timeout: 90_000 };
    browser.#browser = await chromium.launch(options);
    return browser;
  }

  async stop() {
    await this.#browser?.close();
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  /** Opens the page in a fresh window; with a stream's URL it follows that. */
  async open(url, { viewport, ...query } = {}) {
    const context = await this.#browser.newContext({ viewport });
    const tab = await context.newPage();
    tab.setDefaultTimeout(WAIT_MS);
    const page = new Page(context, tab);
    if (url !== undefined) {
      const { origin, pathname } = new URL(url);
      Object.assign(query, { server: origin, stream: pathname });
    }
    await tab.goto(`${this.#origin}/live.html?${new URLSearchParams(query)}`);
    return page;
  }
}

/** The page in one window. */
export class Page {
  #context;
  /** Messages of the console that are errors, but for the browser's own about the network. */
  errors = [];
  /** The browser's own, about connections that failed. */
  networkErrors = [];

  constructor(context, tab) {
    this.#context = context;
    this.tab = tab;
    tab.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    tab.on("console", (message) => {
      if (!["error", "warning"].includes(message.type())) return;
      const text = message.text();
      (NETWORK.test(text) ? this.networkErrors : this.errors).push(text);
    });
    this.sse = new Column(this, "#sse");
    this.ws = new Column(this, "#ws");
    this.columns = [this.sse, this.ws];
  }

  close() {
    return this.#context.close();
  }

  /** Waits until both columns are in a state. */
  async untilBoth(state) {
    for (const column of this.columns) await column.until(state);
  }

  /** Waits until both columns show so many messages. */
  async untilBothShow(count) {
    for (const column of this.columns) await column.untilShown(count);
  }

  /** Appends by the form, and returns the item that shows the answer. */
  async append(text, { close = false } = {}) {
    await this.tab.getByLabel("Append", { exact: true }).fill(text);
    await this.tab.getByLabel("and close").setChecked(close);
    await this.tab.getByRole("button", { name: "Append" }).click();
    return this.tab.locator(".appends li").first();
  }

  /** Waits until the newest append has an answer: `{ kind, text }`. */
  async untilAnswered() {
    const item = this.tab.locator('.appends li:first-child:not([data-answer="sending"])');
    await item.waitFor();
    const kind = await item.getAttribute("data-answer");
    return { kind, text: await item.locator(".answer").textContent() };
  }

  async grant(frames) {
    await this.tab.getByLabel("Frames").fill(String(frames));
    await this.tab.getByRole("button", { name: "Grant" }).click();
  }

  credit() {
    return this.tab.locator("#left").textContent();
  }
}

class Column {
  #page;
  #root;
  #selector;

  constructor(page, selector) {
    this.#page = page;
    this.#selector = selector;
    this.#root = page.tab.locator(selector);
  }

  /** Waits for a state of the connection. */
  async until(state) {
    try {
      await this.#page.tab.locator(`${this.#selector}[data-state="${state}"]`).waitFor();
    } catch (error) {
      throw new Error(`${this.#selector} is ${await this.state()}, not ${state}`, { cause: error });
    }
  }

  /** Waits until at least so many messages are shown. */
  async untilShown(count) {
    const items = this.#root.locator(".messages li");
    try {
      await items.nth(count - 1).waitFor({ state: "attached" });
    } catch (error) {
      const shown = await items.count();
      const state = await this.state();
      throw new Error(`${this.#selector} shows ${shown} of ${count}: ${state}`, { cause: error });
    }
  }

  /** State and cause, as they are read. */
  async state() {
    const name = await this.#root.getAttribute("data-state");
    return `${name} (${await this.cause()})`;
  }

  cause() {
    return this.#root.locator(".cause").textContent();
  }

  next() {
    return this.#root.locator(".next").textContent();
  }

  /** What is shown, from the first to the last: `{ offset, text }`. */
  messages() {
    return this.#root.locator(".messages li").evaluateAll((items) =>
      items.map((item) => ({
        offset: item.querySelector(".offset").textContent,
        text: item.querySelector(".text").textContent,
      })),
    );
  }

  async texts() {
    return (await this.messages()).map(({ text }) => text);
  }

  toggle() {
    return this.#root.locator(".toggle").click();
  }
}
