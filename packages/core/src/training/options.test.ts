import { describe, expect, test } from "vitest";
import { InvalidInputError } from "../errors.js";
import { usableCores } from "../runtime/cores.js";
import { threadsOfWorkers } from "./options.js";

describe("workers", () => {
  test("are two with half of an even number of threads each, and one with all of an odd number", () => {
    const of = (threads: number) => threadsOfWorkers({ runtime: { threads } });
    expect([1, 2, 3, 8].map(of)).toEqual([[1], [1, 1], [3], [4, 4]]);
  });

  test("are as many as asked for, with at least a thread each", () => {
    expect(threadsOfWorkers({ runtime: { threads: 8 }, workers: 1 })).toEqual([8]);
    expect(threadsOfWorkers({ runtime: { threads: 5 }, workers: 2 })).toEqual([2, 2]);
    expect(threadsOfWorkers({ runtime: { threads: 1 }, workers: 2 })).toEqual([1, 1]);
    expect(() => threadsOfWorkers({ workers: 3 as 2 })).toThrow(InvalidInputError);
    expect(() => threadsOfWorkers({ workers: 3 as 2 })).toThrow("1 or 2, got 3");
  });

  test("without a number of threads go by the cores, and are one on another provider", () => {
    const cores = usableCores();
    const half = cores / 2;
    expect(threadsOfWorkers({})).toEqual(cores > 0 && cores % 2 === 0 ? [half, half] : [undefined]);
    expect(threadsOfWorkers({ runtime: { provider: "cuda", threads: 4 } })).toEqual([4]);
  });
});
