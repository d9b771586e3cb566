import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { add, cast, type Float, type FloatType, input } from "../graph/index.js";
import { encodeModel } from "../onnx/encode.js";
import { Runtime, type Session, type TensorData } from "../runtime/runtime.js";
import { textInputs } from "./biencoder.js";
import { keptStage } from "./kept-stage.js";

const IDS = [Int32Array.of(1, 2), Int32Array.of(3, 4)];
let runtime: Runtime;
let session: Session;

/** vectors = ids + shift, where ids are two tokens long. */
beforeAll(async () => {
  runtime = await Runtime.start({ threads: 1 });
  const { ids, mask } = textInputs();
  const shift = input("shift", "float32", [1]) as Float;
  const vectors = add(add(cast(ids, "float32") as Float, shift), add(mask, input("minusOne", "float32", [1]) as Float));
  session = await runtime.open(encodeModel({ vectors }));
});
afterAll(() => runtime.dispose());

function tensors(shift: number): Record<string, TensorData> {
  const one = (value: number): TensorData => ({
    dtype: "float32" satisfies FloatType,
    shape: [1],
    data: Float32Array.of(value),
  });
  return { shift: one(shift), minusOne: one(-1) };
}

describe("a kept stage", () => {
  test("makes its tensors once, at the first use, for calls that come together too", async () => {
    let made = 0;
    const stage = keptStage(runtime, session, {
      padId: 0,
      make: async () => {
        made++;
        return tensors(10);
      },
    });
    expect(made).toBe(0);
    const [a, b] = await Promise.all([stage.encode(IDS), stage.encode(IDS)]);
    expect(a.map((row) => [...row])).toEqual([
      [11, 12],
      [13, 14],
    ]);
    expect(b).toEqual(a);
    expect(made).toBe(1);
  });

  test("makes them again after it failed", async () => {
    let made = 0;
    const stage = keptStage(runtime, session, {
      padId: 0,
      make: async () => {
        if (++made === 1) throw new Error("no memory");
        return tensors(20);
      },
    });
    await expect(stage.encode(IDS)).rejects.toThrow("no memory");
    expect([...(await stage.encode(IDS))[0]!]).toEqual([21, 22]);
  });

  test("frees them in the worker once it is out of reach, and another's stay", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const kept = keptStage(runtime, session, { padId: 0, make: async () => tensors(30) });
    await kept.encode(IDS);
    const before = new Set(runtime.stored.keys());
    await (async () => {
      await keptStage(runtime, session, { padId: 0, make: async () => tensors(40) }).encode(IDS);
    })();
    const added = [...runtime.stored.keys()].filter((id) => !before.has(id));
    expect(added).toHaveLength(1);
    for (let i = 0; i < 200 && runtime.stored.has(added[0]!); i++) {
      collect();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(runtime.stored.has(added[0]!)).toBe(false);
    expect([...(await kept.encode(IDS))[0]!]).toEqual([31, 32]);
  });
});
