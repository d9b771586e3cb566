/** Subjects are processes that answer requests, one JSON object a line; only one of them works at a time. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

/** Between two turns, so that the thread pool of the one before has stopped spinning. */
const PAUSE_MS = 30;

/** One process, seen from the program that compares. */
export class Subject {
  #process;
  #answers;
  #failed;

  constructor(command, args) {
    this.#process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#answers = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
    this.#process.stdin.on("error", () => undefined); // the answer that doesn't come says it
    this.#failed = new Promise((_, reject) => {
      this.#process.on("error", reject);
      this.#process.on("exit", (code) => reject(new Error(`${[command, ...args].join(" ")} ended with ${code}.`)));
    });
    this.#failed.catch(() => undefined);
  }

  /** A Node program of `subjects/`. */
  static node(name, ...args) {
    return new Subject(process.execPath, [new URL(`../subjects/${name}.mjs`, import.meta.url).pathname, ...args]);
  }

  async ask(request) {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    for (;;) {
      const { value, done } = await Promise.race([this.#answers.next(), this.#failed]);
      if (done) await this.#failed;
      if (!value.startsWith("{")) continue; // something that a library printed
      const answer = JSON.parse(value);
      if (answer.error) throw new Error(answer.error);
      return answer;
    }
  }

  end() {
    this.#process.stdin.end();
  }
}

/** Answers requests by their `do` until the input ends. For the subjects' side. */
export async function serve(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const answer = await commands[request.do](request).catch((error) => ({ error: error.stack }));
    process.stdout.write(`${JSON.stringify(answer ?? {})}\n`);
  }
  process.exit(0);
}

/** Wall time and processor time of all threads, in milliseconds. */
export async function timed(work) {
  const start = performance.now();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { ms: performance.now() - start, cpu: (user + system) / 1000 };
}

/**
 * Lets every entry of `works` (name → function that gives an object of figures) have its turn, `rounds` times, after one
 * round that isn't counted where `warmUp` is set. Gives name → what was given, by round.
 */
export async function takeTurns(works, rounds, { warmUp = false, onTurn } = {}) {
  const figures = Object.fromEntries(Object.keys(works).map((name) => [name, []]));
  for (let round = warmUp ? -1 : 0; round < rounds; round++) {
    for (const [name, work] of Object.entries(works)) {
      await pause(PAUSE_MS);
      const figure = await work(Math.max(0, round));
      if (round >= 0) figures[name].push(figure);
      onTurn?.(name, figure);
    }
  }
  return figures;
}
