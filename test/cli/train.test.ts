import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ContextualEncoder } from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";
import { tinyPairs } from "../training/support.js";
import { cde, folderOf, start } from "./support.js";

const pairs = tinyPairs(60);
const lines = (records: readonly object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join("");
const training = { learningRate: 1e-3 };
const base = {
  model: "tiny",
  threads: 1,
  seed: 3,
  data: [{ jsonl: "pairs.jsonl" }],
  batches: { batchSize: 8 },
  training,
  evaluation: { dev: { share: 10 } },
};
const configs: Record<string, object> = {
  "whole.json": { ...base, output: "models/<b>whole", budget: { epochs: 2 } },
  "broken.json": { ...base, output: "out", budget: { epoch: 2 } },
  "taken.json": { ...base, output: "tiny" },
  "unbegun.json": { ...base, output: "unbegun" },
  "large.json": { ...base, output: "large", batches: { batchSize: 64 } },
  "faulty.json": { ...base, output: "faulty", data: [{ jsonl: "faulty.jsonl" }] },
  "nowhere.json": { ...base, output: "nowhere", data: [{ jsonl: "nowhere.jsonl" }] },
  "wild.json": {
    ...base,
    ...{ output: "wild", evaluation: false, checkpoints: { every: 1 }, budget: { epochs: 9 } },
    training: { learningRate: 1e30, schedule: "constant", warmupSteps: 1 },
  },
  "long.json": {
    ...base,
    ...{ output: "long", budget: { epochs: 10 }, checkpoints: { every: 8 } },
    evaluation: { dev: { share: 10 }, every: 10 },
  },
  "straight.json": {
    ...base,
    ...{ output: "straight", budget: { epochs: 10 } },
    evaluation: { dev: { share: 10 }, every: 10 },
  },
  "seeded.json": {
    ...base,
    ...{ output: "seeded", budget: { epochs: 10 }, seed: 4 },
    evaluation: { dev: { share: 10 }, every: 10 },
  },
  "mixed.json": {
    ...base,
    output: "mixed",
    data: [
      { csv: "pairs.csv", columns: { query: "asked", positive: "answer" }, dataset: "sheet" },
      { beir: "beir", dataset: "judged" },
      { documents: ["documents.jsonl"], dataset: "made" },
    ],
    batches: { strategy: "random", batchSize: 4 },
    budget: { minutes: 0.0001 },
    evaluation: { dev: { knownItems: "items.jsonl" }, queries: 3, metrics: ["mrr@10", "map"], best: "map" },
    training: {
      ...{ learningRate: 1e-4, schedule: "cosine", freeze: 1, layerCache: true, lora: { rank: 2 }, maxTokens: 16 },
      distillation: { weight: 0.5 },
    },
    export: { averageWithBase: 0.5, card: { name: "Mixed", licence: "mit", data: { sheet: { licence: "cc0-1.0" } } } },
  },
};
const half = (from: number, to: number) => pairs.slice(from, to);
const files: Record<string, string> = {
  ...Object.fromEntries(Object.entries(configs).map(([name, config]) => [name, JSON.stringify(config)])),
  "none.json": "{ data: }",
  "pairs.jsonl": lines(pairs.map(({ id, query, positive }) => ({ id, query, positive }))),
  "faulty.jsonl": lines([
    { query: "who pays", positive: "the tenant" },
    { query: "Rent!", positive: "rent" },
  ]),
  "pairs.csv": `asked,answer,other\n${half(0, 12)
    .map(({ query, positive }) => `${query},${positive},x\n`)
    .join("")}`,
  "beir/corpus.jsonl": lines(half(12, 24).map(({ id, positive }) => ({ _id: id, title: "", text: positive }))),
  "beir/queries.jsonl": lines(half(12, 24).map(({ id, query }) => ({ _id: id, text: query }))),
  "beir/qrels/train.tsv": `query-id\tcorpus-id\tscore\n${half(12, 24)
    .map(({ id }) => `${id}\t${id}\t1\n`)
    .join("")}`,
  "documents.jsonl": lines(half(24, 36).map(({ id, query, positive }) => ({ id, title: query, text: positive }))),
  "items.jsonl": lines(
    half(36, 44).map(({ id, query, positive }) => ({
      id,
      text: `The law of rent pays ${query}. The court of law and the tenant of ${positive}.`,
    })),
  ),
};

let folder: Awaited<ReturnType<typeof folderOf>>;
let cwd: string;
beforeAll(async () => {
  folder = await folderOf(files);
  cwd = folder.path;
  writeTinyModel(join(cwd, "tiny"));
});
afterAll(() => folder.remove());
const run = (...args: string[]) => cde(args, cwd);

interface Line {
  readonly step: number;
  readonly [figure: string]: unknown;
}
const logOf = async (runFolder: string): Promise<Line[]> =>
  (await readFile(join(cwd, runFolder, "log.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);

describe("a wrong command line ends with 2 and one line", () => {
  test.each([
    [["train"], "the configuration is missing"],
    [["train", "a.json", "b.json"], "more than one configuration"],
    [["mine", "pairs.jsonl"], "--out is missing"],
    [["mine", "pairs.jsonl", "--out", "x.jsonl", "--from", "9", "--to", "9"], "--from 9 should be below --to 9"],
    [["mine", "pairs.jsonl", "--out", "x.jsonl", "--sampling", "best"], "--sampling should be top or random"],
    [["mine", "pairs.jsonl", "--out", "x.jsonl", "--relative-margin", "2"], "should be a number from 0 to 1"],
    [["cluster"], "no file or folder of pairs is given"],
  ])("%j", async (args, message) => {
    const { code, stdout, stderr } = await run(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});

describe("bad input ends with 1", () => {
  test.each([
    ["gone.json", "there is no file gone.json that can be read (ENOENT)"],
    ["none.json", "none.json isn't JSON"],
    ["broken.json", 'broken.json: budget has no option "epoch"; did you mean epochs?'],
    ["taken.json", "tiny is there already and isn't empty"],
    ["large.json", "a batch of 64 is more than there is"],
    ["faulty.json", "faulty.jsonl, line 2 (2): is a faulty pair: query equals positive"],
    ["nowhere.json", "nowhere.jsonl"],
  ])("%s", async (config, message) => {
    const { code, stdout, stderr } = await run("train", config);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain(message);
  });

  test("data and options that are mended are taken by the same command, since nothing was trained yet", async () => {
    await writeFile(join(cwd, "mended.jsonl"), files["faulty.jsonl"]!);
    const config = { ...base, output: "mended", data: [{ jsonl: "mended.jsonl" }], budget: { steps: 1 } };
    const train = async (changed: object) => {
      await writeFile(join(cwd, "mended.json"), JSON.stringify({ ...config, ...changed }));
      return run("train", "mended.json");
    };
    expect((await train({})).stderr).toContain("query equals positive");
    await writeFile(join(cwd, "mended.jsonl"), files["pairs.jsonl"]!);
    expect((await train({ batches: { batchSize: 64 } })).stderr).toContain("a batch of 64 is more than there is");
    // The pairs are there now, and of a seed.
    expect((await train({ seed: 8 })).stderr).toContain("was begun with seed 3, the configuration now has 8.");
    const { code, stderr } = await train({});
    expect(code, stderr).toBe(0);
  });

  test("going on with a run that was never begun", async () => {
    const { code, stderr } = await run("train", "unbegun.json", "--resume");
    expect(code).toBe(1);
    expect(stderr).toContain("to go on with (ENOENT). Begin one: leave --resume out.");
    expect(existsSync(join(cwd, "unbegun-run"))).toBe(false);
  });

  test("a loss that is no number names step and pairs; the last good checkpoint stays, and the report says why", async () => {
    const { code, stderr } = await run("train", "wild.json");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /at step \d+ (the loss is NaN|the gradients aren't finite).* its batch holds the pairs pair-/,
    );
    const saved = JSON.parse(await readFile(join(cwd, "wild-run/checkpoint/checkpoint.json"), "utf8")) as {
      folder: string;
    };
    const step = Number(/at step (\d+)/.exec(stderr)![1]);
    expect(saved.folder).toMatch(new RegExp(`^step-${step - 1}-`));
    expect(existsSync(join(cwd, "wild"))).toBe(false);
    expect(await readFile(join(cwd, "wild-run/report.html"), "utf8")).toContain(`stopped: training: at step ${step}`);
  });
});

test("from pairs to a better model: figures before and after, a log of every step, a report, a directory to index with", async () => {
  const { code, stdout, stderr } = await run("train", "whole.json", "--json");
  expect(code, stderr).toBe(0);
  const output = join(cwd, "models/<b>whole");
  const answer = JSON.parse(stdout);
  // 50 pairs in batches of 8: 6 an epoch; a rest of 2 waits.
  expect(answer).toMatchObject({ steps: 12, epochs: 2, pairs: 50, devPairs: 10, ended: "complete", output, notes: [] });
  expect(answer.settings).toMatchObject({ ...training, seed: 3, schedule: "linear", totalSteps: 12, warmupSteps: 1 });
  const log = await logOf("models/<b>whole-run");
  expect(log.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(log.filter(({ metrics }) => metrics).map(({ step }) => step)).toEqual([0, 6, 12]);
  const { metric, before, exported, exportedStep, last } = answer.figures;
  expect(metric).toBe("dev/ndcg@10");
  expect(before).toEqual(log[0]!.metrics);
  expect(last).toEqual(log[12]!.metrics);
  expect(exported).toEqual(log[exportedStep]!.metrics);
  expect(exported[metric]).toBe(Math.max(log[6]!.metrics![metric as never], last[metric]));
  for (const line of log.slice(1)) {
    expect(line).toMatchObject({ pairs: 8, candidates: 56, documents: 8 });
    expect(line.difficulty).toBeGreaterThan(0);
    expect(line.difficulty).toBeLessThan(1);
    expect(line.falseNegatives).toBeGreaterThan(0);
  }
  // The batches of the second epoch are others.
  expect(log[7]!.difficulty).not.toBe(log[1]!.difficulty);

  const page = await readFile(answer.report, "utf8");
  expect(page).toContain("Training of &lt;b&gt;whole");
  expect(page).not.toContain("<b>whole");
  expect(page).not.toMatch(/<script|https?:/);
  expect(page).toMatch(/default-src 'none'/);
  expect([...page.matchAll(/<figcaption>([^<]+)/g)].map(([, caption]) => caption)).toEqual([
    ...["Loss", "dev/ndcg@10", "Batch difficulty", "False negatives filtered"],
    ...["Accuracy in the batch", "Learning rate", "Gradient norm", "Pairs a second"],
  ]);
  expect(page).toContain(`before training: ${Number(before[metric].toPrecision(4))}`);

  await writeFile(join(cwd, "lease.txt"), "The tenant pays the rent. The court of law.");
  const indexed = await run("index", "lease.txt", "--model", output, "--no-context", "--json");
  expect(indexed.code, indexed.stderr).toBe(0);
  expect(JSON.parse(indexed.stdout)).toMatchObject({ documents: 1, model: output });

  // The run is there: it isn't begun again over it.
  const again = await run("train", "whole.json");
  expect(again.code).toBe(1);
  expect(again.stderr).toContain("is there already and isn't empty");
});

test("Ctrl-C saves and says how to go on; that run, killed once more, ends in the bits of one that never stopped", async () => {
  const [first, straight, seeded] = [
    start(["train", "long.json"], cwd),
    run("train", "straight.json"),
    run("train", "seeded.json"),
  ];
  await first.said("step 10: dev/ndcg@10");
  first.child.kill("SIGINT");
  const stopped = await first.finished;
  expect({ code: stopped.code, stdout: stopped.stdout }).toEqual({ code: 130, stdout: "" });
  expect(stopped.stderr).toContain("stopping when this step is done");
  expect(stopped.stderr.trimEnd().split("\n").at(-1)).toMatch(
    /^cde: interrupted\. Saved after step (\d+) of 60\. Go on with: cde train --resume long\.json$/,
  );
  expect(await readFile(join(cwd, "long-run/report.html"), "utf8")).toContain("interrupted after step");

  // Not by another configuration, and not from the start.
  await writeFile(join(cwd, "changed.json"), JSON.stringify({ ...configs["long.json"], seed: 9 }));
  const changed = await run("train", "--resume", "changed.json");
  expect(changed.code).toBe(1);
  expect(changed.stderr).toContain("was begun with seed 3, the configuration now has 9. Put it back");
  const begun = await run("train", "long.json");
  expect(begun.code).toBe(1);
  expect(begun.stderr).toContain("holds a run already. Go on with it by --resume");

  const second = start(["train", "--resume", "long.json"], cwd);
  await second.said("step 30: dev/ndcg@10");
  const other = await run("train", "--resume", "long.json");
  expect(other.code).toBe(3);
  expect(other.stderr).toContain("another cde train (process");
  second.child.kill("SIGKILL");
  expect((await second.finished).code).toBe(null);

  const last = await run("train", "--resume", "long.json", "--json");
  expect(last.code, last.stderr).toBe(0);
  expect(last.stderr).toMatch(/going on behind step \d+/);
  expect(JSON.parse(last.stdout)).toMatchObject({ steps: 60, ended: "complete" });
  for (const { code, stderr } of [await straight, await seeded]) expect(code, stderr).toBe(0);
  const weights = (output: string) => readFile(join(cwd, output, "model.safetensors"));
  expect((await weights("long")).equals(await weights("straight"))).toBe(true);
  expect((await weights("long")).equals(await weights("seeded"))).toBe(false);
  // Every step stands in the log once, with the figures of the run that never stopped; only times are its own.
  const figures = async (run: string) =>
    (await logOf(run)).map(({ seconds: _, milliseconds: __, pairsPerSecond: ___, ...rest }) => rest);
  expect(await figures("long-run")).toEqual(await figures("straight-run"));
}, 120_000);

test("CSV, judgements and documents in one run; low-rank updates, cached layers, a budget of time, an average", async () => {
  const { code, stdout, stderr } = await run("train", "mixed.json", "--json");
  expect(code, stderr).toBe(0);
  const answer = JSON.parse(stdout);
  expect(stderr).toContain("sheet: 12 pairs of 12 different queries");
  expect(stderr).toContain("judged: 12 pairs");
  expect(stderr).toContain("made: 12 pairs");
  expect(stderr).toMatch(/a step takes about .* s: 1 fit in the time/);
  expect(answer).toMatchObject({ steps: 1, pairs: 36, devPairs: 0, figures: { metric: "dev/map", exportedStep: 1 } });
  expect(answer.dev).toContain("Synthetic queries: nobody judged anything.");
  expect(answer.settings).toMatchObject({
    ...{ freeze: 1, maxTokens: 16, schedule: "cosine", totalSteps: 1, lora: { rank: 2, alpha: 4, products: [] } },
    distillation: { weight: 0.5, temperature: 0.05 },
  });
  expect(answer.notes).toEqual([
    expect.stringContaining("The time was used up before the first step"),
    expect.stringContaining("averaged with the base (share 0.5)"),
  ]);
  expect(answer.figures.exported).toBeUndefined();
  // The trial's figures are those of the base, which a run without a trial measures itself.
  const plain = { ...configs["mixed.json"], output: "plain", budget: { steps: 1 } };
  await writeFile(join(cwd, "plain.json"), JSON.stringify(plain));
  const untimed = await run("train", "plain.json", "--json");
  expect(untimed.code, untimed.stderr).toBe(0);
  expect(JSON.parse(untimed.stdout).figures.before).toEqual(answer.figures.before);
  expect(untimed.stderr).not.toContain("fit in the time");
  // The trainer has the base's vectors for distillation, so it finds false negatives by them, and no surrogate is loaded.
  const batches = {
    strategy: "random",
    batchSize: 4,
    surrogate: "base",
    falseNegatives: { rule: "absolute", threshold: -1 },
  };
  await writeFile(join(cwd, "masked.json"), JSON.stringify({ ...plain, output: "masked", batches }));
  const masked = await run("train", "masked.json", "--json");
  expect(masked.code, masked.stderr).toBe(0);
  const [, maskedStep] = await logOf("masked-run");
  expect(maskedStep).toMatchObject({ falseNegatives: 12, candidates: 12 }); // all but four positives
  expect(existsSync(join(cwd, "masked-run/pairs/surrogates"))).toBe(false);
  const [, step] = await logOf("mixed-run");
  // Random batches without a surrogate: nothing is masked but what the data knows, and distillation has the base measure.
  expect(step).toMatchObject({ falseNegatives: 0, difficulty: expect.any(Number) });
  expect(existsSync(join(cwd, "mixed-run/pairs/surrogates"))).toBe(false);
  expect(existsSync(join(cwd, "mixed-run/layers"))).toBe(true);
  const card = await readFile(join(cwd, "mixed/README.md"), "utf8");
  expect(card).toContain("# Mixed");
  expect(card).toContain("license: mit");
  await using encoder = await ContextualEncoder.load(join(cwd, "mixed"));
  expect(encoder.dimensions).toBe(32);
});

test("mines hard negatives that train reads, clusters pairs, and says how hard batches are", async () => {
  const mined = await run(
    "mine",
    "pairs.jsonl",
    "--out",
    "mined.jsonl",
    "--model",
    "tiny",
    "--negatives",
    "2",
    "--json",
  );
  expect(mined.code, mined.stderr).toBe(0);
  const report = JSON.parse(mined.stdout);
  const records = (await readFile(join(cwd, "mined.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { id: string; positive: string; negatives?: string[] });
  expect(records.map(({ id }) => id)).toEqual(pairs.map(({ id }) => id));
  expect(records.reduce((sum, { negatives = [] }) => sum + negatives.length, 0)).toBe(report.mined);
  expect(report.mined).toBeGreaterThan(60);
  const positives = new Set(pairs.map(({ positive }) => positive));
  for (const { positive, negatives = [] } of records) {
    expect(negatives).not.toContain(positive);
    for (const negative of negatives) expect(positives).toContain(negative);
  }
  // A negative scores at most 95 % of its own positive, and so on average.
  expect(report.meanNegativeScore).toBeLessThan(report.meanPositiveScore);
  expect(existsSync(join(cwd, "mined.jsonl-work"))).toBe(false);
  const twice = await run("mine", "pairs.jsonl", "--out", "mined.jsonl", "--model", "tiny");
  expect(twice.code).toBe(1);
  expect(twice.stderr).toContain("mined.jsonl is there already");

  await writeFile(
    join(cwd, "hard.json"),
    JSON.stringify({
      ...base,
      ...{ data: [{ jsonl: "mined.jsonl" }], output: "hard", budget: { steps: 2 }, training: { preset: "paper" } },
    }),
  );
  const hard = await run("train", "hard.json", "--json");
  expect(hard.code, hard.stderr).toBe(0);
  expect(JSON.parse(hard.stdout)).toMatchObject({
    steps: 2,
    settings: { optimizer: "adam", warmupSteps: 1000 },
    notes: [expect.stringContaining("The warm-up of 1,000 steps is as long as the run of 2")],
  });
  const [, step] = await logOf("hard-run");
  // Eight positives, and the hard negatives of eight pairs beside them.
  expect(step!.documents).toBeGreaterThan(8);

  await mkdir(join(cwd, "kept"));
  const args = [
    "cluster",
    "pairs.jsonl",
    "--model",
    "tiny",
    "--batch-size",
    "8",
    "--cluster-size",
    "12",
    "--work",
    "kept/clusters",
  ];
  const clustered = await run(...args, "--out", "clusters.jsonl", "--json");
  expect(clustered.code, clustered.stderr).toBe(0);
  const { datasets, batches } = JSON.parse(clustered.stdout);
  expect(datasets).toMatchObject([{ dataset: "default", pairs: 60, trainedOn: 60 }]);
  // 60 pairs, 12 a cluster: k = 5.
  expect(datasets[0].clusters + datasets[0].empty).toBe(5);
  expect(batches.contextual.difficulty).toBeGreaterThan(batches.random.difficulty);
  const assigned = (await readFile(join(cwd, "clusters.jsonl"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { id: string; cluster: number });
  expect(assigned.map(({ id }) => id)).toEqual(pairs.map(({ id }) => id));
  const sizes = new Map<number, number>();
  for (const { cluster } of assigned) sizes.set(cluster, (sizes.get(cluster) ?? 0) + 1);
  expect(Math.max(...sizes.values())).toBe(datasets[0].largest);
  expect(sizes.size).toBe(datasets[0].clusters);
  const foreign = await run("cluster", "mined.jsonl", "--model", "tiny", "--work", "kept/clusters");
  expect(foreign.code).toBe(1);
  expect(foreign.stderr).toContain("holds pairs of other files");
  // Pairs and vectors that were kept serve another command, which says the same.
  expect(existsSync(join(cwd, "kept/clusters/pairs"))).toBe(true);
  const shown = await run(...args);
  expect(shown.stdout).toMatch(/^default: 60 pairs in \d clusters of \d+ to \d+/);
  expect(shown.stdout).toContain("contextual batches");
}, 60_000);

test("adapts to documents without labels: some are held back, never trained on, and measured before and after", async () => {
  const words = "flood damage rent tenant law court who pays for the of and".split(" ");
  const sentence = (i: number, n: number) =>
    `The ${words[(i + n) % 12]} of the ${words[(5 * i + 7 * n) % 12]} pays for ${words[(3 * i + n * n) % 12]} x${i}y${n}.`;
  const documents = Array.from({ length: 30 }, (_, i) => ({
    id: `doc ${i}`,
    title: `law ${words[i % 12]} x${i}`,
    text: Array.from({ length: 12 }, (_, n) => sentence(i, n)).join(" "),
  }));
  await writeFile(join(cwd, "corpus.jsonl"), lines(documents));
  const args = ["adapt", "corpus.jsonl", "--model", "tiny", "--layers", "1", "--batch-size", "8", "--held-back", "0.2"];
  const { code, stdout, stderr } = await run(...args, "--out", "adapted", "--minutes", "0.05", "--json");
  expect(code, stderr).toBe(0);
  const answer = JSON.parse(stdout);
  expect(answer).toMatchObject({
    ...{
      heldBack: 6,
      trainedOn: 24,
      devPairs: 0,
      configuration: join(cwd, "adapted-adapt/adapt.json"),
      output: join(cwd, "adapted"),
    },
    settings: {
      ...{ freeze: 1, learningRate: 1e-4, distillation: { weight: 0.3 }, maxTokens: 32 },
      spectral: { from: "corpus", documents: 512, smoothing: 0.3 },
    },
  });
  expect(answer.dev).toContain("Synthetic queries: nobody judged anything.");
  // The weights of the last step, whose figures no choice has flattered.
  expect(answer.figures.exportedStep).toBe(answer.steps);
  const textOf = (name: string) => readFile(join(cwd, "adapted-adapt", name), "utf8");
  const [trained, held, searched] = await Promise.all(
    ["documents.jsonl", "held-back.jsonl", "passages.jsonl"].map(textOf),
  );
  const idsOf = (text: string) =>
    text
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { id: string }).id);
  const back = new Set(idsOf(held!).map((id) => id.replace(/ \d+$/, "")));
  expect(back.size).toBe(6);
  expect(idsOf(trained!)).toEqual(documents.map(({ id }) => id).filter((id) => !back.has(id)));
  expect(idsOf(searched!).some((id) => back.has(id.replace(/ \d+$/, "")))).toBe(false);
  // No sentence of a document that was held back is in a pair.
  const pairs = await readFile(join(cwd, "adapted-adapt/run/pairs/records.jsonl"), "utf8");
  for (const { id } of documents) expect(pairs.includes(`x${id.replace("doc ", "")}y`), id).toBe(!back.has(id));
  expect(await readFile(join(cwd, "adapted/README.md"), "utf8")).toContain("Its figures are of synthetic queries.");

  await rm(join(cwd, "adapted"), { recursive: true });
  const again = await run(...args, "--out", "adapted");
  expect(again.code).toBe(1);
  expect(again.stderr).toContain("Go on with it by: cde train --resume");
  await writeFile(join(cwd, "few.jsonl"), lines(documents.slice(0, 4)));
  const taken = await run("adapt", "few.jsonl", "--out", "tiny");
  expect(taken.code).toBe(1);
  expect(taken.stderr).toContain("tiny is there already and isn't empty");
  expect(existsSync(join(cwd, "tiny-adapt"))).toBe(false);
  const few = await run("adapt", "few.jsonl", "--out", "few", "--model", "tiny");
  expect(few.code).toBe(1);
  expect(few.stderr).toContain("of 4 documents 0 would be held back");
  expect((await run("adapt", "corpus.jsonl")).code).toBe(2);
});
