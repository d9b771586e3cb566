/** Drift on the scale of other corpora: with the bundled model, and with the sample that any model's directory may hold. */
import { cp, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ContextualEncoder, CorpusContext, CorruptFileError, createRandom } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeTinyModel } from "../support/tiny-model.js";

const rooms = ["kitchen", "bathroom", "cellar", "attic", "hall", "garage", "garden", "roof"];
const duties = [
  "has to be swept every week",
  "is heated in winter",
  "may be painted by the tenant",
  "is insured against fire",
  "must not be sublet",
  "is inspected once a year",
  "was renovated by the landlord",
  "is lit at night",
  "belongs to the tenant alone",
  "is locked after ten",
];
const proteins = ["kinase", "receptor", "enzyme", "antibody", "hormone", "ligase", "membrane channel", "transporter"];
const findings = [
  "was inhibited in mice",
  "binds to the cell wall",
  "is expressed in the liver",
  "lowered the risk of infection",
  "was measured in plasma",
  "is encoded by one gene",
  "reduced the size of tumours",
  "failed in the second trial",
];
const corpus = rooms.flatMap((room) => duties.map((duty) => ({ id: `${room} ${duty}`, text: `The ${room} ${duty}.` })));
const science = proteins.flatMap((protein) =>
  findings.map((finding) => ({ id: `${protein} ${finding}`, text: `The ${protein} ${finding}.` })),
);

const FILE = "other-corpora.safetensors";

test("the bundled model brings a sample, by which another subject is told from more of the same", async () => {
  await using encoder = await ContextualEncoder.load(modelDirectory);
  const reference = await CorpusContext.load(join(modelDirectory, FILE));
  expect(reference.identity.model).toBe(encoder.withoutContext().fingerprint);
  expect(reference.size).toBeGreaterThanOrEqual(128);

  const shuffled = createRandom(3).shuffle(corpus);
  const [settled, added] = [shuffled.slice(0, 50), shuffled.slice(50)];
  const context = await encoder.buildContext(settled.map(({ text }) => text));
  const build = () => CorpusIndex.build(encoder.withContext(context), settled, { lexical: false });
  await using same = await build();
  await same.upsert(added);
  const more = await same.drift();
  expect(Math.abs(more.relative as number)).toBeLessThan(0.1);
  expect(await same.drift({ reference })).toEqual(more);
  // Of an index whose tokens have weights the samples are embedded without, as the reference was.
  const weighted = await encoder.buildContext(
    settled.map(({ text }) => text),
    { strength: "off", tokenWeights: { smoothing: 0.1 } },
  );
  await using other = await CorpusIndex.build(encoder.withContext(weighted), settled, { lexical: false });
  await other.upsert(added);
  const { relative: plain, distance } = await other.drift();
  const alone = await other.drift({ reference: false });
  if (context.tokenWeights === undefined) expect(distance).toBeCloseTo(more.distance as number, 6);
  expect(plain).toBeCloseTo(more.relative as number, 6);
  expect(Math.abs((alone.distance as number) - (distance as number))).toBeGreaterThan(1e-4);
  expect(alone.relative).toBeUndefined();
  await using moved = await build();
  await moved.upsert(science);
  const { relative } = await moved.drift();
  // A corpus of one subject is farther away than the mixture of nine that is 1.
  expect(relative).toBeGreaterThan(1);
});

test("the bundled model run in another way has no sample: multiples of the split-half distance alone", async () => {
  await using encoder = await ContextualEncoder.load(modelDirectory, { maxTokens: 64 });
  await using index = await CorpusIndex.build(encoder.withoutContext(), corpus, { lexical: false });
  await index.upsert(science);
  const { drift, relative } = await index.drift();
  expect(drift).toBeGreaterThan(1);
  expect(relative).toBeUndefined();
});

describe("the sample of a model's directory", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "cde-other-corpora-"));
    await sampled("sampled");
    await sampled("stranger", 2);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const others = Array.from({ length: 24 }, (_, i) => `query ${i} law court damage ${i * i}`);
  /** A model with a sample that it made itself. */
  const sampled = async (name: string, seed = 1): Promise<string> => {
    const directory = writeTinyModel(join(folder, name), { seed });
    await using encoder = await ContextualEncoder.load(directory);
    await (await encoder.buildContext(others, { strength: "off" })).save(join(directory, FILE));
    return directory;
  };
  const copied = async (name: string): Promise<string> => {
    await cp(join(folder, "sampled"), join(folder, name), { recursive: true });
    return join(folder, name);
  };
  const measured = async (directory: string, options: Parameters<CorpusIndex["drift"]>[0] = {}) => {
    await using encoder = await ContextualEncoder.load(directory);
    const context = await encoder.buildContext(
      corpus.map(({ text }) => text),
      { tokenWeights: "off" },
    );
    await using index = await CorpusIndex.build(encoder.withContext(context), corpus, { lexical: false });
    await index.upsert(science);
    return await index.drift(options);
  };

  test("is what drift takes by itself; without one, and with false, there are only multiples", async () => {
    const directory = join(folder, "sampled");
    const byItself = await measured(directory);
    expect(byItself.relative).toEqual(expect.any(Number));
    expect(await measured(directory, { reference: await CorpusContext.load(join(directory, FILE)) })).toEqual(byItself);
    const multiples = { ...byItself, relative: undefined };
    expect(await measured(directory, { reference: false })).toEqual(multiples);
    expect(await measured(writeTinyModel(join(folder, "plain")))).toEqual(multiples);
  });

  test("is none where another model made it", async () => {
    const directory = await copied("mixed");
    await cp(join(folder, "stranger", FILE), join(directory, FILE));
    const { drift, relative } = await measured(directory);
    expect(drift).toEqual(expect.any(Number));
    expect(relative).toBeUndefined();
  });

  test("is read when drift is measured and not before, and damage is an error then", async () => {
    const cut = await copied("cut");
    await truncate(join(cut, FILE), 1000);
    await using encoder = await ContextualEncoder.load(cut);
    await using index = await CorpusIndex.build(encoder.withoutContext(), corpus, { lexical: false });
    await index.upsert(science);
    await expect(index.drift()).rejects.toBeInstanceOf(CorruptFileError);
    expect((await index.drift({ reference: false })).drift).toEqual(expect.any(Number));
    // Mended, it is read anew.
    await cp(join(folder, "sampled", FILE), join(cut, FILE));
    expect((await index.drift()).relative).toEqual(expect.any(Number));
    // And once: what becomes of the file then is nothing to this encoder.
    await rm(join(cut, FILE));
    expect((await index.drift()).relative).toEqual(expect.any(Number));
  });

  test("is refused where a number was altered, where it is far too large, and where it is a folder", async () => {
    const altered = await copied("altered");
    const bytes = await readFile(join(altered, FILE));
    bytes[bytes.length - 3]! ^= 1;
    await writeFile(join(altered, FILE), bytes);
    await expect(measured(altered)).rejects.toThrow(/altered/);
    const large = await copied("large");
    await truncate(join(large, FILE), 16 * 2 ** 20 + 1);
    await expect(measured(large)).rejects.toThrow(/has 16777217 bytes, a sample of other corpora at most 16777216/);
    const nested = writeTinyModel(join(folder, "nested"));
    await mkdir(join(nested, FILE));
    await expect(measured(nested)).rejects.toThrow(/is not a file/);
  });
});
