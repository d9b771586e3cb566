import { expect, test } from "vitest";
import { assemble, f64, f64Lane, f64x2, i32, v128 } from "./assembler.js";
import { webAssembly } from "./web-assembly.js";

function instantiate(functions: Parameters<typeof assemble>[0]) {
  const wasm = webAssembly();
  const memory = new wasm.Memory({ initial: 1 });
  const instance = new wasm.Instance(new wasm.Module(assemble(functions)), { env: { memory } });
  return { exports: instance.exports as Record<string, (...values: number[]) => number>, memory };
}

test("encodes integer constants at the borders of their one, two and five byte forms", () => {
  const values = [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, -8193, 2 ** 31 - 1, -(2 ** 31)];
  const functions = Object.fromEntries(
    values.map((value, i) => [`f${i}`, { parameters: [], result: "i32", body: () => i32.const(value) } as const]),
  );
  const { exports } = instantiate(functions);
  expect(values.map((_, i) => exports[`f${i}`]!())).toEqual(values);
});

test("numbers locals behind parameters and reaches memory beyond an offset of one byte", () => {
  const { exports, memory } = instantiate({
    sum: {
      parameters: ["i32", "f64"],
      result: "f64",
      body: ([at, plus], local) => {
        const pair = local("v128");
        return [
          ...pair.set(f64x2.mul(v128.load(at!.get, 4096), f64x2.splat(plus!.get))),
          ...v128.store(at!.get, pair.get, 128),
          ...f64.add(f64Lane(pair.get, 0), f64Lane(pair.get, 1)),
        ];
      },
    },
  });
  new Float64Array(memory.buffer).set([3, 5], (4096 + 16) / 8);
  expect(exports.sum!(16, 10)).toBe(80);
  expect([...new Float64Array(memory.buffer, 144, 2)]).toEqual([30, 50]);
});
