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

interface Phase {
  readonly label: string;
  readonly start: number;
  /** What was done when it began, where it goes on after another phase: no part of the rate. */
  readonly from: number;
  /** Milliseconds before that. */
  readonly spent: number;
  shown: number;
  state: ProgressState;
}

/** Milliseconds between two states that are shown. */
const ON_TERMINAL = 100;
const PIPED = 5000;
const BAR = 24;

export class Progress {
  readonly #stream: ProgressStream;
  readonly #now: () => number;
  readonly #terminal: boolean;
  #phase: Phase | undefined;
  /** How far each phase had come when another began, and in how many milliseconds: it may go on later. */
  readonly #ended = new Map<string, { readonly done: number; readonly spent: number }>();

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
      const ended = this.#ended.get(label) ?? { done: 0, spent: 0 };
      const goesOn = ended.done > 0 && state.done > ended.done;
      this.#phase = {
        label,
        start: now,
        from: goesOn ? state.done : 0,
        spent: goesOn ? ended.spent : 0,
        shown: now,
        state,
      };
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
    const spent = this.#phase.spent + this.#now() - start;
    this.#phase = undefined;
    this.#ended.set(label, { done: state.done, spent });
    this.#line(`${label}: ${counted(state.done, state.noun)} in ${clock(spent / 1000)}`);
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
    const { label, start, from, state } = this.#phase!;
    const { done, noun, total, fraction = total ? done / total : undefined, details = [] } = state;
    const earlier = Math.max(from, state.earlier ?? 0);
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
