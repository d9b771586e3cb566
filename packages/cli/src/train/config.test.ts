import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { planOf, TRAIN_SCHEMA } from "./config.js";
import { FULL_CONFIG, OTHER_CONFIG, THIRD_CONFIG } from "./full-config.test.support.js";
import { optionsOf, problemsOf, type Schema } from "./schema.js";

const plan = (config: unknown) => planOf(config, "/srv/law", "train.json");
const minimal = { data: [{ jsonl: "pairs.jsonl" }], output: "out" };

/** "data[].jsonl" and its like, of every value that a configuration names. */
function pathsOf(value: unknown, path = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((entry) => pathsOf(entry, `${path}[]`));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const named = /prompts$|card\.data$/.test(path) ? `${path}.*` : path === "" ? key : `${path}.${key}`;
    return [named, ...pathsOf(inner, named)];
  });
}

describe("the schema and the configurations that types allow", () => {
  test("three configurations name every option of the schema, and are accepted", () => {
    const named = new Set([FULL_CONFIG, OTHER_CONFIG, THIRD_CONFIG].flatMap((config) => pathsOf(config)));
    for (const { path } of optionsOf(TRAIN_SCHEMA)) expect(named, path).toContain(path);
    for (const config of [FULL_CONFIG, OTHER_CONFIG, THIRD_CONFIG]) {
      expect(problemsOf(TRAIN_SCHEMA, config)).toEqual([]);
      expect(() => plan(config)).not.toThrow();
    }
  });

  test("the schema uses no keyword that the checker would pass over", () => {
    const known = new Set([
      ...["$schema", "title", "description", "default", "type", "enum", "const", "oneOf", "properties", "required"],
      ...["additionalProperties", "items", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength"],
      ...["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
    ]);
    const visit = (schema: Schema): void => {
      for (const key of Object.keys(schema)) expect(known, JSON.stringify(schema)).toContain(key);
      for (const inner of Object.values(schema.properties ?? {})) visit(inner);
      for (const inner of schema.oneOf ?? []) visit(inner);
      if (schema.items) visit(schema.items);
      if (schema.additionalProperties) visit(schema.additionalProperties);
      // An object that takes any key would take a misspelt one.
      if (schema.type === "object") expect(schema.additionalProperties, JSON.stringify(schema)).toBeDefined();
    };
    visit(TRAIN_SCHEMA);
  });

  test("every default is a value that the schema takes", () => {
    for (const { path, schema } of optionsOf(TRAIN_SCHEMA)) {
      if ("default" in schema) expect(problemsOf(schema, schema.default), path).toEqual([]);
    }
  });

  test("the checker and a validator of JSON Schema agree on every option with values of every kind", () => {
    const validate = new Ajv2020({ strict: true, strictTypes: false, allowUnionTypes: true }).compile(TRAIN_SCHEMA);
    const values = [
      undefined,
      null,
      true,
      false,
      -1,
      0,
      0.5,
      1,
      3,
      "",
      "x",
      "epoch",
      "all",
      "map",
      [],
      [["?"]],
      ["x"],
      {},
    ];
    const objects = [
      { unknown: 1 },
      { share: 0.1 },
      { beir: "x" },
      { initial: 1 },
      { rule: "absolute" },
      { kind: "prefix" },
    ];
    const counts = { accepted: 0, refused: 0 };
    const compare = (config: unknown, place: string) => {
      const problems = problemsOf(TRAIN_SCHEMA, config);
      expect(problems.length === 0, `${place}: ${problems[0] ?? "accepted"}`).toBe(validate(config));
      counts[problems.length === 0 ? "accepted" : "refused"]++;
    };
    for (const config of [FULL_CONFIG, OTHER_CONFIG, THIRD_CONFIG]) {
      compare(config, "as it is");
      for (const place of placesOf(config)) {
        for (const value of [...values, ...objects]) {
          // Through JSON, in which undefined is no member.
          const changed = JSON.parse(JSON.stringify(replaced(config, place, value))) as unknown;
          compare(changed, `${place.join(".")} = ${JSON.stringify(value)}`);
        }
      }
    }
    expect(counts.accepted).toBeGreaterThan(300);
    expect(counts.refused).toBeGreaterThan(1500);
  });
});

type Place = readonly (string | number)[];

function placesOf(value: unknown): Place[] {
  if (typeof value !== "object" || value === null) return [];
  const entries: [string | number, unknown][] = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return entries.flatMap(([key, inner]) => [[key], ...placesOf(inner).map((rest) => [key, ...rest])]);
}

function replaced(value: unknown, [key, ...rest]: Place, by: unknown): unknown {
  if (key === undefined) return by;
  if (Array.isArray(value)) return value.map((entry, i) => (i === key ? replaced(entry, rest, by) : entry));
  const object = value as Readonly<Record<string, unknown>>;
  return { ...object, [key]: replaced(object[key], rest, by) };
}

describe("what is wrong is named, with what is there and what to do", () => {
  test.each([
    [{}, "train.json: data is missing; output is missing."],
    [[], "train.json: the file should be an object, got []."],
    [{ ...minimal, epochs: 3 }, 'the file has no option "epochs"; there is budget.epochs.'],
    [
      { ...minimal, training: { learning_rate: 1 } },
      'training has no option "learning_rate"; did you mean learningRate?',
    ],
    [{ ...minimal, training: { learningRate: -1 } }, "training.learningRate should be a number above 0, got -1."],
    [{ ...minimal, training: { learningRate: "1" } }, 'training.learningRate should be a number above 0, got "1".'],
    [{ ...minimal, batches: { batchSize: 1 } }, "batches.batchSize should be an integer from 2, got 1."],
    [{ ...minimal, training: { schedule: "step" } }, 'should be "linear" or "cosine" or "constant", got "step".'],
    [{ ...minimal, data: [] }, "data should have at least 1 entry, got 0."],
    [{ ...minimal, data: [{ path: "x" }] }, "data[0] should have one of jsonl, csv, beir, documents."],
    [
      { ...minimal, data: [{ jsonl: "x", beir: "y" }] },
      "data[0] has jsonl and beir, which exclude each other; give one.",
    ],
    [{ ...minimal, data: [{ jsonl: "x", splits: ["dev"] }] }, 'data[0] has no option "splits"'],
    [{ ...minimal, evaluation: true }, "evaluation should be false, or an object, got true."],
    [{ ...minimal, training: { betas: [0.9, 1] } }, "training.betas[1] should be a number from 0 to below 1, got 1."],
    [{ ...minimal, batches: { surrogate: false } }, 'batches.strategy "contextual" clusters by one.'],
    [
      { ...minimal, batches: { strategy: "random", clusterSize: 8 } },
      'batches.clusterSize is for strategy "contextual"',
    ],
    [
      { ...minimal, batches: { strategy: "random", falseNegatives: { rule: "positive" } } },
      "there is none. Name batches.surrogate",
    ],
    [{ ...minimal, batches: { falseNegatives: { rule: "absolute" } } }, 'of rule "absolute" needs a threshold.'],
    [{ ...minimal, training: { layerCache: true } }, "training.freeze is 0. Freeze some, or leave it out."],
    [{ ...minimal, evaluation: { best: "map" } }, "none of evaluation.metrics: ndcg@10, recall@10."],
    [
      { ...minimal, evaluation: false, export: { weights: "best" } },
      'export.weights is "best", and evaluation is false',
    ],
  ])("%j", (config, message) => {
    expect(() => plan(config)).toThrow(message);
  });
});

test("paths are relative to the configuration, and what is no directory stays the name of a repository", () => {
  expect(plan({ ...minimal, output: "models/mine/", model: "owner/name" })).toMatchObject({
    model: "owner/name",
    output: "/srv/law/models/mine",
    run: "/srv/law/models/mine-run",
    data: [{ jsonl: "/srv/law/pairs.jsonl" }],
  });
  expect(plan(OTHER_CONFIG).data).toEqual([{ documents: ["/srv/law/folder"] }]);
  expect(plan(FULL_CONFIG)).toMatchObject({
    run: "/srv/law/runs/mine",
    batches: { surrogate: { vectors: "/srv/law/gtr.safetensors", texts: "/srv/law/gtr.jsonl" } },
  });
});
