// Whether readers keep up: nobody who is behind goes without news for long. By how much readers are
// behind is reported; how fast they come up to the tail depends on the machine.
import { Violation, sleep } from "./http.mjs";
import { HEALTHY } from "./readers_reader.mjs";

const SILENCE_MS_MAX = 60_000;
const LAG_MS_MAX = 60_000;
const SAMPLE_MS = 1000;
const SAMPLES = LAG_MS_MAX / SAMPLE_MS;

export class Watch {
  /** How many samples of readers were so many seconds behind. */
  #lags = new Array(SAMPLES + 1).fill(0);
  #tails;
  #isOver = false;

  constructor(readers, truths) {
    this.readers = readers.filter(({ temper }) => temper === HEALTHY);
    this.#tails = new Map(truths.map((truth) => [truth, []]));
  }

  async run() {
    while (!this.#isOver) {
      for (const reader of this.readers) this.#look(reader);
      for (const [truth, tails] of this.#tails) {
        tails.unshift(truth.length);
        if (tails.length > SAMPLES) tails.pop();
      }
      await sleep(SAMPLE_MS);
    }
  }

  stop() {
    this.#isOver = true;
  }

  get summary() {
    const all = this.#lags.reduce((sum, count) => sum + count, 0);
    const at = (share) => {
      let left = all * share;
      return Math.max(0, this.#lags.findIndex((count) => (left -= count) <= 0));
    };
    return `behind by at most ${at(0.5)} s (half), ${at(0.99)} s (99 %), ${at(1)} s (all)`;
  }

  #look({ truth, position = -1, since, movedAt, who }) {
    const tails = this.#tails.get(truth);
    const age = Math.floor((performance.now() - since) / SAMPLE_MS);
    const reached = tails.findIndex((tail) => position >= tail);
    const lag = Math.min(reached < 0 ? tails.length : reached, age);
    this.#lags[Math.min(lag, SAMPLES)] += 1;
    const silence = performance.now() - movedAt;
    if (lag * SAMPLE_MS >= LAG_MS_MAX && silence > SILENCE_MS_MAX) {
      throw new Violation(
        `${truth.url}: ${who} stands at ${position} and has got nothing for ` +
          `${Math.round(silence)} ms; ${LAG_MS_MAX} ms ago the tail was ${tails.at(-1)} already`,
      );
    }
  }
}
