/** Says on stderr where a long command stands: a bar with rate and time left on a terminal, plain lines elsewhere. */
import { clock, counted, grouped, oneLine } from "./printable.js";

export interface ProgressState {
  /** Things done so far, and their name in the singular. */
  readonly done: number;
  readonly noun: string;
  readonly total?: number;
  /** Part of the work, from 0 to 1; `done / total` where it is left out. */
  readonly fraction?: number;
  /** Of `done`, what an earlier run had done: it tells nothing of the rate. @default 0 */
  readonly earlier?: number;
  /** Shown behind, such as "loss 0.41". */
  readonly details?: readonly string[];
}

export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Milliseconds between two states that are shown. */
const ON_TERMINAL = 100;
const PIPED = 5000;
const BAR = 24;

export class Progress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  readonly #terminal: boolean;
  #phase: { readonly label: string; readonly start: number; shown: number; state: ProgressState } | undefined;

  /** `now` in milliseconds. */
  constructor(stream: ProgressStream, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#now = now;
    this.#terminal = stream.isTTY === true;
  }

  /** The state of the phase `label`; a new label ends the phase before. */
  update(label: string, state: ProgressState): void {
    const now = this.#now();
    if (this.#phase?.label !== label) {
      this.end();
      this.#phase = { label, start: now, shown: now, state };
      if (this.#terminal) this.#show();
      return;
    }
    this.#phase.state = state;
    if (now - this.#phase.shown < (this.#terminal ? ON_TERMINAL : PIPED)) return;
    this.#phase.shown = now;
    this.#show();
  }

  /** Ends the phase with a line that stays. */
  end(): void {
    if (!this.#phase) return;
    const { label, start, state } = this.#phase;
    this.#phase = undefined;
    this.#line(`${label}: ${counted(state.done, state.noun)} in ${clock((this.#now() - start) / 1000)}`);
  }

  /** Gives up the phase, as after an error. */
  clear(): void {
    if (this.#phase && this.#terminal) this.#stream.write("\r\x1b[K");
    this.#phase = undefined;
  }

  /** A line of its own. */
  note(text: string): void {
    this.end();
    this.#line(text);
  }

  #line(text: string): void {
    this.#stream.write(`${this.#terminal ? "\r\x1b[K" : ""}${oneLine(text)}\n`);
  }

  #show(): void {
    const { label, start, state } = this.#phase!;
    const { done, noun, total, fraction = total ? done / total : undefined, earlier = 0, details = [] } = state;
    const before = total ? earlier / total : 0;
    const seconds = (this.#now() - start) / 1000;
    const parts = [total === undefined ? counted(done, noun) : `${grouped(done)}/${counted(total, noun)}`];
    const rate = (done - earlier) / seconds;
    // Of slow things, such as steps, the details say how fast they are.
    if (seconds > 0.5 && Math.round(rate) > 0) parts.push(`${grouped(Math.round(rate))}/s`);
    if (fraction !== undefined && fraction - before > 0.02 && fraction < 1 && seconds > 1) {
      parts.push(`${clock((seconds * (1 - fraction)) / (fraction - before))} left`);
    }
    parts.push(...details);
    if (!this.#terminal) {
      this.#line(`${label}: ${parts.join(", ")}`);
      return;
    }
    const filled = Math.round(BAR * (fraction ?? 0));
    const bar = fraction === undefined ? "" : `[${"█".repeat(filled)}${"·".repeat(BAR - filled)}] `;
    const line = `${label} ${bar}${parts.join("  ")}`;
    this.#stream.write(`\r${line.slice(0, (this.#stream.columns || 80) - 1)}\x1b[K`);
  }
}
