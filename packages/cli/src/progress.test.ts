import { expect, test } from "vitest";
import { Progress } from "./progress.js";

function record(isTTY: boolean, columns = 80) {
  const written: string[] = [];
  let now = 0;
  const progress = new Progress({ isTTY, columns, write: (text) => written.push(text) }, () => now);
  return { progress, written, wait: (milliseconds: number) => (now += milliseconds) };
}

test("a terminal gets a bar with rate and time left, ten times a second at most", () => {
  const { progress, written, wait } = record(true);
  for (let done = 0; done <= 1000; done++) {
    progress.update("indexing", { done, total: 4000, noun: "passage" });
    wait(10);
  }
  // 10 s for a quarter: 100 a second, 30 s to go.
  expect(written.at(-1)).toBe(
    `\rindexing [${"█".repeat(6)}${"·".repeat(18)}] 1,000/4,000 passages  100/s  0:30 left\x1b[K`,
  );
  expect(written.length).toBeLessThanOrEqual(102);
  progress.end();
  expect(written.at(-1)).toBe("\r\x1b[Kindexing: 1,000 passages in 0:10\n");
});

test("a line never wraps on a narrow terminal, or it could not be drawn over", () => {
  const { progress, written } = record(true, 20);
  progress.update("indexing", { done: 1, total: 4000, noun: "passage" });
  expect(written.at(-1)).toBe("\rindexing [·········\x1b[K");
});

test("a pipe gets plain lines, one every five seconds and one at the end of a phase", () => {
  const { progress, written, wait } = record(false);
  for (let done = 0; done <= 12; done++) {
    progress.update("indexing", { done, noun: "passage", fraction: done / 24 });
    wait(1000);
  }
  progress.update("saving", { done: 0, noun: "file" });
  expect(written).toEqual([
    "indexing: 5 passages, 1/s, 0:19 left\n",
    "indexing: 10 passages, 1/s, 0:14 left\n",
    "indexing: 12 passages in 0:13\n",
  ]);
});

test("a run that goes on counts its own steps for rate and time left, and shows details behind", () => {
  const { progress, written, wait } = record(false);
  progress.update("training", { done: 100, earlier: 100, total: 200, noun: "step" });
  wait(10_000);
  progress.update("training", { done: 120, earlier: 100, total: 200, noun: "step", details: ["loss 0.400"] });
  // 20 in 10 s: 2 a second, and 40 s for the 80 that are left.
  expect(written).toEqual(["training: 120/200 steps, 2/s, 0:40 left, loss 0.400\n"]);
});

test("a phase that goes on after another one has the rate of its own steps, and ends with the time of both parts", () => {
  const { progress, written, wait } = record(false);
  progress.update("training", { done: 0, total: 100, noun: "step" });
  wait(40_000);
  progress.update("training", { done: 40, total: 100, noun: "step" });
  progress.update("measuring", { done: 1, noun: "text" });
  wait(7000);
  progress.update("training", { done: 41, total: 100, noun: "step" });
  wait(10_000);
  progress.update("training", { done: 51, total: 100, noun: "step" });
  progress.update("measuring", { done: 1, noun: "text" }); // another time, not the same that goes on
  wait(3000);
  progress.end();
  expect(written).toEqual([
    "training: 40/100 steps, 1/s, 1:00 left\n",
    "training: 40 steps in 0:40\n",
    "measuring: 1 text in 0:07\n",
    "training: 51/100 steps, 1/s, 0:49 left\n",
    "training: 51 steps in 0:50\n",
    "measuring: 1 text in 0:03\n",
  ]);
});
