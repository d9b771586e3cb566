import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CorpusContext, createRandom } from "@cde-js/core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CorpusIndex } from "./corpus-index.js";
import type { CorpusDocument } from "./documents.js";
import { energyDistance } from "./drift.js";
import { naiveVectorIndex, spectralStub } from "./spectral-stub.test.support.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cde-recontext-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
let folders = 0;
const newFolder = (): string => join(folder, `i${folders++}`);

/** Sentences of these words: two lists of words are two kinds of corpora. */
const law = "tenant landlord rent lease flood damage roof notice court party deposit clause".split(" ");
const sea = "ship harbour sail wind anchor captain storm compass tide crew deck cargo".split(" ");
function sentences(name: string, words: readonly string[], count: number, seed: number): CorpusDocument[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, (_, i) => {
    const picked = Array.from({ length: 8 }, () => words[random.integer(words.length)] as string);
    return { id: `${name}${i}`, text: `${picked.join(" ")} ${name}${i}.` };
  });
}

const stub = spectralStub();
const corpus = sentences("law", law, 200, 1);
const context = await stub.buildContext(corpus.slice(0, 40).map(({ text }) => text));
const bound = stub.withContext(context);
const options = { vectorIndex: naiveVectorIndex } as const;

describe.each(["in memory", "in a folder"])("recontext of an index %s", (kind) => {
  const place = (): { directory?: string } => (kind === "in memory" ? {} : { directory: newFolder() });

  test("chooses anew how mixes are weighed, and embeds nothing for it", async () => {
    const large = sentences("law", law, 600, 3);
    await using index = await CorpusIndex.build(bound, large, { ...options, ...place() });
    const before = index.fusion;
    stub.embedded.length = 0;
    await index.recontext({ contextSize: 64, seed: 5 });
    expect(stub.embedded).toEqual([]);
    await using fresh = await CorpusIndex.build(index.embedder, large, options);
    expect(index.fusion).toEqual(fresh.fusion);
    expect(index.fusion).not.toEqual(before);
    await index.rollback();
    expect(index.fusion).toEqual(before);
  });

  test("maps the base vectors that are kept: nothing is embedded, and it answers as one built under that context", async () => {
    await using index = await CorpusIndex.build(bound, corpus, { ...options, ...place() });
    await index.upsert(sentences("sea", sea, 100, 2));
    stub.embedded.length = 0;
    const report = await index.recontext({ contextSize: 64, seed: 5 });
    expect(stub.embedded).toEqual([]);
    expect(report).toMatchObject({ embedded: false, before: { fingerprint: bound.fingerprint } });
    expect(index.fingerprint).toBe(report.after.fingerprint);
    expect(index.fingerprint).not.toBe(bound.fingerprint);
    expect(index.context?.size).toBe(64);
    expect(report.choice).toMatchObject({ seen: 300 });
    // The same context from the encoder, which embeds its texts, has the same fingerprint and the same rows.
    const made = await stub.buildContext(report.choice?.chosen.map(({ text }) => text) as string[]);
    expect(made.fingerprint).toBe(index.fingerprint);
    const documents: CorpusDocument[] = [];
    for await (const document of index.documents()) documents.push(document);
    await using fresh = await CorpusIndex.build(stub.withContext(made), documents, options);
    for (const query of ["harbour storm", "rent of the lease"]) {
      const hits = async (one: CorpusIndex) =>
        (await one.search(query, { k: 20, mode: "dense" })).map(({ id, score }) => `${id} ${score.toFixed(6)}`);
      expect(await hits(index)).toEqual(await hits(fresh));
      // The control: the old context ranks with other scores.
      await using old = await CorpusIndex.build(bound, documents, options);
      expect(await hits(old)).not.toEqual(await hits(fresh));
    }
  });

  test("is rolled back with the documents of now, and forward again", async () => {
    const at = place();
    const index = await CorpusIndex.build(bound, corpus, { ...options, ...at });
    expect(index.canRollBack).toBe(false);
    await expect(index.rollback()).rejects.toThrow(/no context before/);
    const { after } = await index.recontext({ seed: 9, contextSize: 50 });
    await index.upsert([{ id: "late", text: "The captain came late." }]);
    await index.delete({ ids: ["law3"] });
    let one = index;
    if (at.directory) {
      await index.close();
      one = await CorpusIndex.open(at.directory, stub, options);
    }
    stub.embedded.length = 0;
    await one.rollback();
    expect(stub.embedded).toEqual([]);
    expect([one.fingerprint, one.count]).toEqual([bound.fingerprint, 200]);
    expect((await one.search("The captain came late.", { mode: "dense", k: 1 }))[0]).toMatchObject({ id: "late" });
    // 200 were there when that context was chosen, one of them is gone since, and one came.
    expect((await one.drift()).documents).toEqual({ settled: 199, added: 1 });
    await one.delete({ ids: ["law4"] });
    await one.compact();
    await one.rollback();
    expect([one.fingerprint, one.count]).toEqual([after.fingerprint, 199]);
    expect((await one.drift()).documents).toEqual({ settled: 198, added: 1 });
    await one.close();
  });

  test("takes a context or a strength that is given, and the null context", async () => {
    await using index = await CorpusIndex.build(stub.withoutContext(), corpus, { ...options, ...place() });
    await index.recontext({ context });
    expect(index.fingerprint).toBe(bound.fingerprint);
    const strength = { a: 1, s: 0.1, b: 1 };
    await index.recontext({ context, strength });
    expect(index.fingerprint).toBe(context.withStrength(strength).fingerprint);
    await index.rollback();
    expect(index.fingerprint).toBe(bound.fingerprint);
    await index.recontext({ embedder: stub.withoutContext() });
    expect(index.fingerprint).toBe(stub.withoutContext().fingerprint);
    await index.rollback();
    await index.rollback();
    expect(index.fingerprint).toBe(stub.withoutContext().fingerprint);
    await expect(index.recontext({ embedder: bound, context })).rejects.toThrow(/has its own context/);
  });

  test("chooses a strength anew where it is asked to, as a context that is built now does, and embeds for nothing else", async () => {
    const others = sentences("sea", sea, 200, 2);
    const two = corpus.map(({ id, text }, i) => ({ id, text: `${text} ${others[i]?.text}` })); // sentences to ask with
    await using index = await CorpusIndex.build(bound, two, { ...options, ...place() });
    const before = stub.embedded.length;
    await index.recontext({ seed: 3 });
    expect(stub.embedded.length).toBe(before);
    expect(index.embedder.context?.identity.strength).toEqual(context.identity.strength);
    expect(index.embedder.context?.calibration).toBeUndefined();
    await index.recontext({ seed: 3, strength: "auto" });
    const { calibration, identity } = index.embedder.context as CorpusContext;
    expect(calibration).toMatchObject({ strength: identity.strength, documents: identity.texts.length });
    expect(stub.embedded.length - before).toBe((calibration?.pseudoQueries as number) * 5);
    expect(calibration?.pseudoQueries).toBeGreaterThan(0);
    await expect(index.recontext({ context, strength: "auto" })).rejects.toThrow(/Use calibrateContext/);
  });

  test("says what it does to judged queries, before it takes the place of the old one", async () => {
    await using index = await CorpusIndex.build(bound, corpus, { ...options, ...place() });
    const judged = [
      { query: corpus[7]?.text as string, relevant: { law7: 1 } },
      { query: corpus[9]?.text as string, relevant: { nothing: 1 } },
    ];
    const { before, after } = await index.recontext({ judged });
    // One query finds its document first, the other none: (1 + 0) / 2.
    expect([before.ndcg10, after.ndcg10]).toEqual([0.5, 0.5]);
    // A query whose nearest document is another one under another context: each figure is of its own index.
    const other = await stub.buildContext(sentences("other", sea, 60, 70).map(({ text }) => text));
    await using moved = await CorpusIndex.build(stub.withContext(other), corpus, { ...options, ...place() });
    const ranks = async (of: CorpusIndex, query: string) =>
      (await of.search(query, { k: 10, mergeByDocument: true })).map(({ id }) => id);
    let [query, found, present]: [string, string, string[]] = ["", "", []];
    for (const asked of law.flatMap((one) => law.map((two) => `${one} ${two} ship`))) {
      [query, present] = [asked, await ranks(index, asked)];
      found = (await ranks(moved, query))[0] as string;
      if (present[0] !== found) break;
    }
    const rank = present.indexOf(found);
    const second = await index.recontext({ judged: [{ query, relevant: { [found]: 1 } }], context: other });
    expect(rank).not.toBe(0);
    expect(second.before.ndcg10).toBeCloseTo(rank < 0 ? 0 : 1 / Math.log2(rank + 2), 10);
    expect(second.after.ndcg10).toBe(1);
    const stop = AbortSignal.abort(new Error("enough"));
    await expect(index.recontext({ judged, signal: stop, seed: 3 })).rejects.toThrow("enough");
    expect(index.fingerprint).toBe(second.after.fingerprint);
  });
});

test("an encoder is bound to the context that the folder keeps; others are refused with both fingerprints", async () => {
  const directory = newFolder();
  await (await CorpusIndex.build(bound, corpus, { ...options, directory, notes: { model: "here" } })).close();
  for (const model of [stub, bound]) {
    await using index = await CorpusIndex.open(directory, model, options);
    expect(index.fingerprint).toBe(bound.fingerprint);
    expect(index.notes).toEqual({ model: "here" });
  }
  const described = await CorpusIndex.describe(directory);
  expect(described).toMatchObject({
    fingerprint: bound.fingerprint,
    documents: 200,
    notes: { model: "here" },
    isUnfinished: false,
  });
  expect(described.context?.fingerprint).toBe(context.fingerprint);
  await expect(CorpusIndex.open(directory, stub.withoutContext(), options)).rejects.toMatchObject({
    code: "FINGERPRINT_MISMATCH",
    expected: bound.fingerprint,
  });
  const { base: _, ...baseless } = bound;
  await expect(CorpusIndex.open(directory, baseless, options)).rejects.toThrow(
    /has no base and no context to map them/,
  );
  expect((await readdir(directory)).sort()).toEqual([
    "context-000001.safetensors",
    "documents-000001.bin",
    "lexical-000001.bm25",
    "manifest.json",
    "rows-000001.f32",
    "vectors-000001.f32",
  ]);
});

describe("drift", () => {
  test("the energy distance of two sets is what one computes by hand", () => {
    // Points 0, 1 and 5 on a line: |0-1| = 1, |0-5| = 5, |1-5| = 4.
    const lengths = Float32Array.from([0, 1, 5, 1, 0, 4, 5, 4, 0]);
    // Between {0, 1} and {5}: 2 · (5 + 4) / 2 - (0 + 1 + 1 + 0) / 4 - 0 = 8.5.
    expect(energyDistance(lengths, [0, 1], [2])).toBeCloseTo(8.5, 6);
    expect(energyDistance(lengths, [0, 1, 2], [0, 1, 2])).toBeCloseTo(0, 6);
  });

  test("is about 0 for more of the same, for every draw, and many times the split-half distance for another corpus", async () => {
    const build = () => CorpusIndex.build(bound, corpus, options);
    for (const seed of [1, 2, 3]) {
      await using same = await build();
      await same.upsert(sentences("more", law, 150, 40 + seed));
      const { drift, documents, splitHalf, distance } = await same.drift({ seed });
      expect(documents).toEqual({ settled: 200, added: 150 });
      expect(drift).toBeGreaterThan(-0.5);
      expect(drift).toBeLessThan(1);
      expect(drift).toBeCloseTo((distance as number) / (splitHalf as number) - 1, 10);
      await using foreign = await build();
      await foreign.upsert(sentences("sea", sea, 150, 50 + seed));
      expect((await foreign.drift({ seed })).drift).toBeGreaterThan(10);
    }
  });

  test("with texts of other corpora, 0 is more of the same and 1 as far as they are", async () => {
    const others = await stub.buildContext(sentences("other", sea, 200, 60).map(({ text }) => text));
    const build = () => CorpusIndex.build(bound, corpus, options);
    await using same = await build();
    await same.upsert(sentences("more", law, 150, 41));
    expect((await same.drift({ reference: others })).relative).toBeCloseTo(0, 1);
    expect((await same.drift()).relative).toBeUndefined();
    await using foreign = await build();
    await foreign.upsert(sentences("sea", sea, 150, 51));
    expect((await foreign.drift({ reference: others })).relative).toBeCloseTo(1, 1);
    // Half of what came is of another corpus: an energy distance grows with the square of the share.
    await using mixed = await build();
    await mixed.upsert([...sentences("more", law, 75, 42), ...sentences("sea", sea, 75, 52)]);
    expect((await mixed.drift({ reference: others })).relative).toBeCloseTo(0.25, 1);

    const few = await stub.buildContext(sentences("other", sea, 15, 60).map(({ text }) => text));
    await expect(same.drift({ reference: few })).rejects.toThrow("has 15 texts, at least 16 are needed");
    const anothers = { ...others.identity, model: "0".repeat(64) };
    const stranger = Object.assign(Object.create(Object.getPrototypeOf(others)), {
      identity: anothers,
      modelId: "stranger",
    });
    await expect(same.drift({ reference: stranger })).rejects.toMatchObject({ code: "FINGERPRINT_MISMATCH" });
  });

  test("relative is 1 where what was added is the reference itself, however large the split-half distance", async () => {
    const added = sentences("sea", sea, 16, 51);
    const reference = await stub.buildContext(added.map(({ text }) => text));
    await using index = await CorpusIndex.build(bound, corpus, options);
    await index.upsert(added);
    // Every draw of 16 is all of them, so both distances are of the same vectors.
    const { relative, splitHalf, distance } = await index.drift({ reference });
    expect(relative).toBeCloseTo(1, 6);
    expect((splitHalf as number) / (distance as number)).toBeGreaterThan(0.02);
  });

  test("is drawn by its seed, of as many passages as are asked for", async () => {
    await using index = await CorpusIndex.build(bound, corpus, options);
    await index.upsert(sentences("more", law, 150, 41));
    const first = await index.drift({ seed: 1 });
    expect(await index.drift({ seed: 1 })).toEqual(first);
    expect((await index.drift({ seed: 2 })).splitHalf).not.toBe(first.splitHalf);
    // Halves of 20 lie farther apart than halves of 100.
    const { splitHalf } = await index.drift({ seed: 1, sample: 40 });
    expect(splitHalf).toBeGreaterThan(3.5 * (first.splitHalf as number));
  });

  test("refuses a reference whose vectors can't be compared with its own", async () => {
    const others = await stub.buildContext(sentences("other", sea, 20, 60).map(({ text }) => text));
    await using same = await CorpusIndex.build(bound, corpus, options);
    // The right model, and vectors of its first stage.
    const full = Object.assign(Object.create(Object.getPrototypeOf(others)), {
      identity: { ...others.identity, stage: "full", strength: null },
    });
    await expect(same.drift({ reference: full })).rejects.toThrow(
      "the reference is a full context, whose vectors are not",
    );
    const { modelId, identity } = others;
    const narrow = await CorpusContext.fromBaseVectors(
      { modelId, fingerprint: identity.model, dimensions: 2 },
      Array.from({ length: 20 }, (_, i) => `text ${i}`),
      Float32Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? Math.cos(i >> 1) : Math.sin(i >> 1))),
    );
    await expect(same.drift({ reference: narrow })).rejects.toThrow("has vectors of 2 dimensions, the index of 16");
    const zeroed = await CorpusContext.fromBytes(withZeroRow(others.toBytes()));
    await expect(same.drift({ reference: zeroed })).rejects.toThrow("has a vector (0) that is zero everywhere");
  });

  test("is not known without additions, counts replaced documents as added, and begins anew with a recontext", async () => {
    await using index = await CorpusIndex.build(bound, corpus, { ...options, directory: newFolder() });
    stub.embedded.length = 0;
    expect(await index.drift()).toMatchObject({ documents: { settled: 200, added: 0 }, drift: undefined });
    expect(stub.embedded).toEqual([]);
    await index.upsert(sentences("sea", sea, 100, 3));
    await index.upsert([{ id: "law0", text: "Another text." }]);
    const before = await index.drift();
    expect(before.documents).toEqual({ settled: 199, added: 101 });
    // Compacting numbers the documents anew, and forgets nothing of this.
    await index.compact();
    expect((await index.drift()).documents).toEqual({ settled: 199, added: 101 });
    await index.recontext();
    expect((await index.drift()).documents).toEqual({ settled: 300, added: 0 });
  });

  test("estimates what a fresh context would change: little after a recontext, more before", async () => {
    await using index = await CorpusIndex.build(bound, corpus, options);
    await index.upsert(sentences("sea", sea, 400, 3));
    const { neighbours } = await index.drift();
    await index.recontext();
    const { neighbours: renewed } = await index.drift();
    expect(neighbours?.overlap).toBeLessThan((renewed?.overlap as number) - 0.02);
    expect(neighbours?.loss).toBeGreaterThan(renewed?.loss as number);
    expect(renewed?.betweenFresh).toBeGreaterThan(0.5);
    await using plain = await CorpusIndex.build(stub.withoutContext(), corpus, options);
    expect((await plain.drift()).neighbours).toBeUndefined();
  });
});

/** A context file whose first vector is zero, with the checksum that such a file has. */
function withZeroRow(bytes: Uint8Array): Uint8Array {
  const file = Buffer.from(bytes);
  const end = 8 + Number(file.readBigUInt64LE(0));
  const json = file.toString("utf8", 8, end);
  const { __metadata__: metadata, ...tensors } = JSON.parse(json) as {
    __metadata__: { cde: string; checksum: string };
  } & Record<string, { shape: number[]; data_offsets: [number, number] }>;
  const data = (name: string) => file.subarray(...tensors[name]!.data_offsets.map((at) => end + at));
  data("vectors").fill(0, 0, 4 * tensors.vectors!.shape[1]!);
  const hash = createHash("sha256").update(metadata.cde).update(data("vectors"));
  const spectral = Object.keys(tensors).filter((name) => name.startsWith("spectrum."));
  for (const name of spectral.sort()) hash.update(name.slice("spectrum.".length)).update(data(name));
  file.write(json.replace(metadata.checksum, hash.digest("hex")), 8);
  return file;
}
