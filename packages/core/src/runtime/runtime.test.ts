import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Worker } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InvalidInputError, RuntimeFailureError } from "../errors.js";
import {
  add,
  type Float,
  gather,
  type Int,
  input,
  linear,
  matMul,
  mul,
  parameter,
  scale,
  where,
} from "../graph/index.js";
import type { Value } from "../graph/value.js";
import { encodeModel } from "../onnx/encode.js";
import { usableCores } from "./cores.js";
import { Runtime, type RuntimeOptions, type TensorData } from "./runtime.js";

const f32 = (shape: readonly number[], values: ArrayLike<number>): TensorData => ({
  dtype: "float32",
  shape,
  data: Float32Array.from(values),
});
const x = input("x", "float32", ["B", 2]);
const y = input("y", "float32", ["B", 2]);
const FLAT = f32([1, 2], [3, 4]);

let runtime: Runtime;
beforeAll(async () => {
  runtime = await Runtime.start();
});
afterAll(() => runtime.dispose());

/** A graph that takes at least a few hundred milliseconds: 40 products of 1024×1024 matrices. */
const SIDE = 1024;
function slowModel() {
  const start = input("x", "float32", [SIDE, SIDE]);
  let product: Float = start;
  for (let i = 0; i < 40; i++) product = matMul(product, start);
  const counter = input("count", "float32", [1]);
  return encodeModel({ product: scale(product, 0), next: add(counter, input("one", "float32", [1])) });
}
const slowFeeds = () => ({ x: f32([SIDE, SIDE], new Float32Array(SIDE * SIDE)), one: f32([1], [1]) });

describe("a run", () => {
  test("computes with every type of input", async () => {
    const ids = input("ids", "int64", ["N"]) as Int;
    const rows = gather(input("table", "float64", [3, 2]) as Float, ids);
    const chosen = where(
      input("keep", "bool", ["N", 1]) as Value<"bool">,
      rows,
      input("other", "float64", []) as Float,
    );
    const session = await runtime.open(encodeModel({ chosen }));
    const result = await session.run({
      ids: { dtype: "int64", shape: [2], data: BigInt64Array.of(2n, 0n) },
      table: { dtype: "float64", shape: [3, 2], data: Float64Array.of(1, 2, 3, 4, 5, 6) },
      keep: { dtype: "bool", shape: [2, 1], data: Uint8Array.of(1, 0) },
      other: { dtype: "float64", shape: [], data: Float64Array.of(-1) },
    });
    expect(result).toEqual({ chosen: { dtype: "float64", shape: [2, 2], data: Float64Array.of(5, 6, -1, -1) } });
  });

  test("serves every size of a symbol, none as well", async () => {
    const session = await runtime.open(encodeModel({ sum: add(x, y) }));
    for (const size of [1, 5, 2, 0]) {
      const values = Array.from({ length: 2 * size }, (_, i) => i);
      const { sum } = await session.run({ x: f32([size, 2], values), y: f32([size, 2], values) });
      expect(sum).toEqual(
        f32(
          [size, 2],
          values.map((v) => 2 * v),
        ),
      );
    }
  });

  test("leaves the caller's arrays alone, also a part of a larger one, unless they are given away", async () => {
    const session = await runtime.open(encodeModel({ double: scale(x, 2) }));
    const large = Float32Array.of(9, 9, 1, 2, 9);
    const part: TensorData = { dtype: "float32", shape: [1, 2], data: large.subarray(2, 4) };
    expect((await session.run({ x: part })).double!.data).toEqual(Float32Array.of(2, 4));
    expect(large).toEqual(Float32Array.of(9, 9, 1, 2, 9));
    expect((await session.run({ x: part }, { transfer: true })).double!.data).toEqual(Float32Array.of(2, 4));
    expect(large).toHaveLength(0);
  });

  test.each<[string, Record<string, TensorData>, string]>([
    ["a missing input", { x: FLAT }, 'the input "y" is missing'],
    ["an unknown input", { x: FLAT, y: FLAT, z: FLAT }, 'has no input "z", only: x, y'],
    [
      "another type",
      { x: { dtype: "float64", shape: [1, 2], data: new Float64Array(2) }, y: FLAT },
      '"x" is float64[1, 2], the graph wants float32[B, 2]',
    ],
    ["another rank", { x: f32([2], [1, 2]), y: FLAT }, '"x" is float32[2], the graph wants float32[B, 2]'],
    ["another size", { x: f32([1, 3], [1, 2, 3]), y: FLAT }, '"x" is float32[1, 3], the graph wants float32[B, 2]'],
    [
      "two sizes of one symbol",
      { x: f32([2, 2], [1, 2, 3, 4]), y: FLAT },
      '"y" is float32[1, 2], the graph wants float32[B, 2] (B = 2)',
    ],
    ["too few numbers", { x: f32([2, 2], [1, 2]), y: FLAT }, "x: shape [2, 2] holds 4 numbers, got 2"],
  ])("refuses %s, naming both", async (_, feeds, message) => {
    const session = await runtime.open(encodeModel({ sum: add(x, y) }));
    await expect(session.run(feeds)).rejects.toThrow(message);
    await expect(session.run(feeds)).rejects.toThrow(InvalidInputError);
    expect((await session.run({ x: FLAT, y: FLAT })).sum!.data).toEqual(Float32Array.of(6, 8));
  });

  test("holds a product of symbols against their sizes", async () => {
    const flat = input("flat", "float32", ["B*S", 2]);
    const ids = input("ids", "int32", ["B", "S"]);
    const session = await runtime.open(encodeModel({ ids, flat }));
    const given = { dtype: "int32", shape: [2, 3], data: new Int32Array(6) } as const;
    await expect(session.run({ ids: given, flat: f32([5, 2], new Float32Array(10)) })).rejects.toThrow(
      '"flat" is float32[5, 2], the graph wants float32[B*S, 2] (B = 2, S = 3',
    );
    expect((await session.run({ ids: given, flat: f32([6, 2], new Float32Array(12)) })).flat!.shape).toEqual([6, 2]);
  });

  test("that fails in ONNX Runtime names the node, prints nothing, and the session goes on", async () => {
    const ids = input("ids", "int32", ["N"]) as Int;
    const session = await runtime.open(encodeModel({ rows: gather(input("table", "float32", [2, 2]), ids) }));
    const table = f32([2, 2], [1, 2, 3, 4]);
    const run = (id: number) => session.run({ table, ids: { dtype: "int32", shape: [1], data: Int32Array.of(id) } });
    await expect(run(7)).rejects.toThrow(/Gather_0.*idx=7/s);
    await expect(run(7)).rejects.toThrow(RuntimeFailureError);
    expect((await run(1)).rows!.data).toEqual(Float32Array.of(3, 4));
  });

  test("on a closed session is an error", async () => {
    const session = await runtime.open(encodeModel({ double: scale(x, 2) }));
    await session.close();
    await expect(session.run({ x: FLAT })).rejects.toThrow("the session was closed");
  });
});

describe("the store", () => {
  test("gives back what was written, as copies", async () => {
    const store = runtime.createStore();
    await store.write({ a: f32([2], [1, 2]), b: { dtype: "int8", shape: [], data: Int8Array.of(-3) } });
    const first = await store.read("a");
    (first.data as Float32Array)[0] = 99;
    expect(await store.read("a")).toEqual(f32([2], [1, 2]));
    expect(await store.read("b")).toEqual({ dtype: "int8", shape: [], data: Int8Array.of(-3) });
    await expect(runtime.createStore().read("a")).rejects.toThrow('no tensor is stored as "a"');
    await store.drop();
    await expect(store.read("a")).rejects.toThrow('no tensor is stored as "a"');
    await expect(store.write({ a: f32([3], [1, 2]) })).rejects.toThrow(
      "TensorStore.write: a: shape [3] holds 3 numbers, got 2",
    );
  });

  test("reads one part of a buffer that was given away without the rest of it", async () => {
    const store = runtime.createStore();
    const buffer = Float32Array.from({ length: 1000 }, (_, i) => i);
    const parts = { a: buffer.subarray(10, 12), b: buffer.subarray(500, 503) };
    await store.write(
      { a: { dtype: "float32", shape: [2], data: parts.a }, b: { dtype: "float32", shape: [3], data: parts.b } },
      { transfer: true },
    );
    expect(buffer).toHaveLength(0);
    const { data } = await store.read("b");
    expect(data).toEqual(Float32Array.of(500, 501, 502));
    expect(data.buffer.byteLength).toBe(12);
  });

  test("is added to in place: several runs equal the sum in JS, bit for bit", async () => {
    const store = runtime.createStore();
    const w = parameter("w", [2, 2]);
    const session = await runtime.open(
      encodeModel({ total: add(input("total", "float32", ["B", 2]), linear(x, w)), seen: x }),
      {
        weights: store,
      },
    );
    await store.write({ w: f32([2, 2], [1, 0, 0, 1]), sum: f32([1, 2], [0, 0]) });
    const expected = new Float32Array(2);
    for (let run = 1; run <= 7; run++) {
      const feed = f32([1, 2], [0.1 * run, 1 / (3 * run)]);
      const result = await session.run(
        { x: feed },
        { stored: { total: store.at("sum") }, into: { total: store.at("sum") } },
      );
      expect(result).toEqual({ seen: feed }); // what went into the store is not returned
      expected.forEach((_, i) => {
        expected[i]! += (feed.data as Float32Array)[i]!;
      });
    }
    expect((await store.read("sum")).data).toEqual(expected);
    expect(expected[0]).toBeGreaterThan(2.7);
  });

  test("feeds weights of every run, so a changed one is seen, where constants keep their values", async () => {
    const graph = { y: linear(x, parameter("w", [1, 2])) };
    const store = runtime.createStore();
    await store.write({ w: f32([1, 2], [1, 10]) });
    const fed = await runtime.open(encodeModel(graph), { weights: store });
    const fixed = await runtime.open(encodeModel(graph, { weights: { kind: "external" } }), { weights: store });
    const results = async () => [(await fed.run({ x: FLAT })).y!.data[0], (await fixed.run({ x: FLAT })).y!.data[0]];
    expect(await results()).toEqual([43, 43]);
    await store.write({ w: f32([1, 2], [2, 20]) });
    expect(await results()).toEqual([86, 43]);
    await store.drop();
    expect((await fixed.run({ x: FLAT })).y!.data[0]).toBe(43);
  });

  test("refuses what doesn't fit the graph, and keeps its tensors", async () => {
    const store = runtime.createStore();
    await store.write({ small: f32([1, 2], [0, 0]), other: f32([3, 2], [0, 0, 0, 0, 0, 0]) });
    const session = await runtime.open(encodeModel({ sum: add(x, y) }));
    const feeds = { x: FLAT, y: FLAT };
    await expect(session.run(feeds, { into: { total: store.at("small") } })).rejects.toThrow(
      'has no output "total", only: sum',
    );
    await expect(session.run(feeds, { into: { sum: store.at("other") } })).rejects.toThrow(/shape \{3,2\}/);
    const three = { x: f32([3, 2], [1, 2, 3, 4, 5, 6]) };
    await expect(session.run(three, { stored: { y: store.at("small") } })).rejects.toThrow(
      '"y" is float32[1, 2], the graph wants float32[B, 2] (B = 3)', // ONNX would broadcast it
    );
    await expect(session.run(feeds, { stored: { y: store.at("small") } })).rejects.toThrow('"y" is given twice');
    await expect(session.run({ x: FLAT }, { stored: { y: store.at("missing") } })).rejects.toThrow(
      'stored as "missing"',
    );
    expect((await store.read("other")).data).toEqual(new Float32Array(6));
    const w = encodeModel({ y: linear(x, parameter("w", [1, 2])) });
    await expect(runtime.open(w)).rejects.toThrow("the model reads 1 weights, and no store was given");
  });
});

describe("aborting", () => {
  const reason = new Error("enough");

  test("before, while waiting and during a run rejects with the reason; what waited never runs", async () => {
    const session = await runtime.open(slowModel());
    const store = runtime.createStore();
    await store.write({ count: f32([1], [0]) });
    const run = (signal?: AbortSignal) =>
      session.run(slowFeeds(), { signal, stored: { count: store.at("count") }, into: { next: store.at("count") } });

    await expect(run(AbortSignal.abort(reason))).rejects.toBe(reason);

    const [during, waiting] = [new AbortController(), new AbortController()];
    const running = expect(run(during.signal)).rejects.toBe(reason);
    const waits = expect(run(waiting.signal)).rejects.toBe(reason);
    waiting.abort(reason);
    await waits;
    await new Promise((resolve) => setTimeout(resolve, 30)); // now the first one runs
    during.abort(reason);
    await running;

    expect((await run()).product!.data[0]).toBe(0);
    // One run, and the one that was under way when it was aborted, at most.
    expect((await store.read("count")).data[0]).toBeLessThanOrEqual(2);
    expect((await store.read("count")).data[0]).toBeGreaterThanOrEqual(1);
    during.abort();
    await session.close();
  });
});

describe("the end of a runtime", () => {
  test("disposing rejects what runs and what waits, and later calls", async () => {
    const own = await Runtime.start();
    const session = await own.open(slowModel());
    const feeds = () => ({ ...slowFeeds(), count: f32([1], [0]) });
    const results = Promise.allSettled([session.run(feeds()), session.run(feeds()), own.createStore().read("a")]);
    await own.dispose();
    for (const result of await results) {
      expect(result).toMatchObject({
        status: "rejected",
        reason: { code: "RUNTIME", message: expect.stringContaining("disposed") },
      });
    }
    await expect(session.run(feeds())).rejects.toThrow(RuntimeFailureError);
    await own.dispose();
  });

  test("a worker that dies rejects what waits and what comes later", async () => {
    let worker: Worker | undefined;
    const keep = (created: Worker) => {
      worker = created;
    };
    process.on("worker", keep);
    const own = await Runtime.start();
    process.off("worker", keep);
    const store = own.createStore();
    await store.write({ a: f32([1], [1]) });
    // Not during a run: ONNX Runtime would take the process with it.
    void worker!.terminate();
    const reads = Promise.allSettled(Array.from({ length: 100 }, () => store.read("a")));
    const error = expect.objectContaining({ code: "RUNTIME", message: expect.stringContaining("has ended") });
    expect((await reads).at(-1)).toEqual({ status: "rejected", reason: error });
    await expect(store.read("a")).rejects.toEqual(error);
    await own.dispose();
  });

  test("an unknown provider and an impossible number of threads are refused", async () => {
    await expect(Runtime.start({ provider: "abacus" })).rejects.toThrow(/"abacus" is not in this build.*cpu/);
    await expect(Runtime.start({ threads: -1 })).rejects.toThrow("threads must be a whole number from 0, got -1");
    await expect(Runtime.start({ threads: 1.5 })).rejects.toThrow(InvalidInputError);
  });

  test.skipIf(!existsSync("/proc/self/task"))("the number of threads is the one asked for (needs Linux)", async () => {
    const threads = () => readdirSync("/proc/self/task").length;
    const added = async (count: number, ofSession?: number) => {
      await using own = await Runtime.start({ threads: count });
      const before = threads();
      await own.open(encodeModel({ double: scale(x, 2) }), { threads: ofSession });
      return threads() - before;
    };
    await added(1); // what is started once a process is there now
    expect(await added(1)).toBe(0);
    expect(await added(4)).toBe(3); // the worker is one of the four
    expect(await added(4, 2)).toBe(1);
  });

  test.skipIf(!existsSync("/sys/devices/system/cpu/cpu0/topology"))(
    "without a number there is one for each core, and none is bound to one, as 0 binds them (needs Linux)",
    async () => {
      const tasks = () => new Set(readdirSync("/proc/self/task"));
      const allowed = (task: string) =>
        /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync(`/proc/self/task/${task}/status`, "latin1"))?.[1];
      const main = allowed(String(process.pid));
      /** Of the threads that a session brings. One binds itself when it begins to run: some time is given to it. */
      const cores = async (options: RuntimeOptions, milliseconds: number) => {
        await using own = await Runtime.start(options);
        const before = tasks();
        await own.open(encodeModel({ double: scale(x, 2) }));
        const until = performance.now() + milliseconds;
        for (;;) {
          const found = [...tasks()].filter((task) => !before.has(task)).map(allowed);
          if (performance.now() > until || found.some((list) => list !== main)) return found;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      await cores({ threads: 1 }, 0); // what is started once a process is there now
      const free = await cores({}, 500);
      expect(free).toEqual(new Array(usableCores() - 1).fill(main));
      if (usableCores() < 2) return;
      const bound = await cores({ threads: 0 }, 10_000);
      expect(bound.some((list) => list !== main)).toBe(true);
    },
  );

  const script = (end: string) => `
    import { Runtime } from ${JSON.stringify(new URL("./runtime.js", import.meta.url).href)};
    import { input, matMul, scale } from ${JSON.stringify(new URL("../graph/index.js", import.meta.url).href)};
    import { encodeModel } from ${JSON.stringify(new URL("../onnx/encode.js", import.meta.url).href)};
    const runtime = await Runtime.start();
    const session = await runtime.open(encodeModel({ y: scale(input("x", "float32", [1]), 2) }));
    const { y } = await session.run({ x: { dtype: "float32", shape: [1], data: Float32Array.of(21) } });
    ${end}
    process.stdout.write(String(y.data[0]));`;

  test.each([
    ["without dispose", ""],
    ["after dispose", "await runtime.dispose();"],
    [
      "after something that can't be sent",
      'await session.run({ x: { dtype: "float32", shape: [1], data: new Float32Array(new SharedArrayBuffer(4)) } }, { transfer: true }).then(() => { throw new Error("was sent"); }, () => {});',
    ],
    [
      "after a failed run",
      'await session.run({ x: { dtype: "float32", shape: [1], data: Float64Array.of(1) } }).catch(() => {});',
    ],
  ])("a process that ran once ends by itself %s, and nothing is printed", async (_, end) => {
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      ["--input-type=module", "--eval", script(end)],
      {
        timeout: 50_000,
      },
    );
    expect(stdout).toBe("42");
    expect(stderr).toBe("");
  });

  test.each([
    ["process.exit", "process.exit(3);", 3],
    ["an error that nobody catches", "throw new Error('x');", 1],
    ["dispose", "await runtime.dispose(); process.exitCode = 4;", 4],
    ["abort", "controller.abort(); process.exitCode = 5;", 5],
  ])("a process that ends during a run, by %s, ends in order", async (_, end, code) => {
    const slow = `
      const x = input("x", "float32", [1024, 1024]);
      let product = x;
      for (let i = 0; i < 30; i++) product = matMul(product, x);
      const long = await runtime.open(encodeModel({ product }));
      const feed = { dtype: "float32", shape: [1024, 1024], data: new Float32Array(1024 * 1024) };
      const controller = new AbortController();
      for (let i = 0; i < 2; i++) long.run({ x: feed }, { signal: controller.signal }).catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 50));
      ${end}`;
    const run = promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script(slow)], {
      timeout: 50_000,
    });
    const { code: exitCode, signal } = await run.then(
      () => ({ code: 0, signal: null }),
      (error: { code: number; signal: string | null }) => error,
    );
    expect({ exitCode, signal }).toEqual({ exitCode: code, signal: null });
  });
});

describe("the caller's thread", () => {
  /** Turns of the event loop until `work` is done. */
  async function turnsDuring(work: Promise<unknown>): Promise<number> {
    let turns = 0;
    let done = false;
    const count = () => {
      turns++;
      if (!done) setImmediate(count);
    };
    setImmediate(count);
    await work;
    done = true;
    return turns;
  }

  test("stays free during a long run; the same run on this thread would block it", async () => {
    const model = slowModel();
    const feeds = { ...slowFeeds(), count: f32([1], [0]) };
    const session = await runtime.open(model);
    expect(await turnsDuring(session.run(feeds))).toBeGreaterThan(100);
    await session.close();

    const blocking = await InferenceSession.create(model.bytes, {
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    });
    const tensors = Object.entries(feeds).map(([name, { shape, data }]) => [
      `in/${name}`,
      new Tensor("float32", data as Float32Array, shape),
    ]);
    expect(await turnsDuring(blocking.run(Object.fromEntries(tensors)))).toBeLessThan(10);
    await blocking.release();
  });

  test("200 runs that pass 1.6 GB through the worker don't keep it", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const size = 1 << 20;
    const square = input("x", "float32", ["N"]);
    const session = await runtime.open(encodeModel({ y: mul(square, square) }));
    const runs = async (count: number) => {
      for (let i = 0; i < count; i++) await session.run({ x: f32([size], new Float32Array(size)) });
      collect();
      return process.memoryUsage().rss;
    };
    const before = await runs(20);
    const after = await runs(200);
    expect((after - before) / 2 ** 20).toBeLessThan(400);
  });
});
