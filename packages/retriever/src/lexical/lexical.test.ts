/** The lexical index against a BM25 computed document by document, on paper, through bytes, and against bad input. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CorruptFileError, InvalidInputError } from "@cde-js/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countTerms, createAnalyzer } from "./analyzer.js";
import { Bm25Index } from "./bm25-index.js";
import { highlight } from "./highlight.js";
import { hashTerm, inverseDocumentFrequency, querySparseVector, type SparseVector, sparseVector } from "./sparse.js";

setFlagsFromString("--expose-gc"); // for the one test that asks what is kept alive

const TEXTS = ["the red fox runs", "a lazy dog", "red red roses and a fox", "", "dogs run; foxes ran"];

function built(texts: readonly string[] = TEXTS): Bm25Index {
  const index = new Bm25Index();
  texts.forEach((text, row) => {
    index.upsert(row, text);
  });
  return index;
}

/** BM25 from the texts alone: no postings, no heap. */
function bruteForce(
  texts: ReadonlyMap<number, string>,
  query: string,
  average?: number,
): { row: number; score: number }[] {
  const analyzer = createAnalyzer();
  const terms = (text: string): string[] => {
    const found: string[] = [];
    analyzer.analyze(text, (term) => found.push(term));
    return found;
  };
  const documents = [...texts].map(([row, text]) => ({ row, terms: terms(text) })).filter((d) => d.terms.length > 0);
  const mean = average ?? documents.reduce((sum, d) => sum + d.terms.length, 0) / documents.length;
  return documents
    .map(({ row, terms: own }) => {
      let score = 0;
      for (const term of terms(query)) {
        const n = documents.filter((d) => d.terms.includes(term)).length;
        const tf = own.filter((t) => t === term).length;
        const idf = Math.log(1 + (documents.length - n + 0.5) / (n + 0.5));
        score += (idf * tf * 1.9) / (tf + 0.9 * (0.6 + (0.4 * own.length) / mean));
      }
      return { row, score };
    })
    .filter(({ score }) => score > 0)
    .sort((a, b) => b.score - a.score || a.row - b.row);
}

function expectSameScores(
  ours: readonly { row: number; score: number }[],
  theirs: readonly { row: number; score: number }[],
): void {
  expect(ours).toHaveLength(theirs.length);
  const byRow = new Map(theirs.map(({ row, score }) => [row, score]));
  ours.forEach(({ row, score }, i) => {
    expect(score).toBeCloseTo(theirs[i]!.score, 10);
    expect(score).toBeCloseTo(byRow.get(row) ?? Number.NaN, 10);
  });
}

describe("scores", () => {
  test("are BM25's, on paper", () => {
    // Terms: row 0 red fox run (3), row 1 lazi dog (2), row 2 red red rose fox (4), row 4 dog run fox ran (4): mean 13/4.
    // "roses": n = 1 of N = 4, idf = ln(1 + 3.5/1.5) = 1.2039728; count 1 in length 4:
    // 1 · 1.9 / (1 + 0.9 · (0.6 + 0.4 · 4 / 3.25)) = 1.9 / 1.9830769 = 0.9581071; score 1.1535350.
    const [hit, ...others] = built().search("roses", { k: 10 });
    expect(others).toEqual([]);
    expect(hit?.row).toBe(2);
    expect(hit?.score).toBeCloseTo(1.153535, 5);
  });

  test("equal a computation from the texts after any upserts and deletes", () => {
    const text = fc
      .array(fc.constantFrom("red", "fox", "dogs", "running", "lazy", "the", "rose"), { maxLength: 6 })
      .map((w) => w.join(" "));
    const action = fc.record({ row: fc.integer({ min: 0, max: 12 }), text: fc.option(text) });
    fc.assert(
      fc.property(
        fc.array(action, { maxLength: 40 }),
        text,
        fc.boolean(),
        fc.boolean(),
        (actions, query, pack, freeze) => {
          const index = new Bm25Index();
          const texts = new Map<number, string>();
          const average = freeze ? 2.5 : undefined;
          if (freeze) index.freeze(2.5);
          actions.forEach((action, i) => {
            if (action.text === null) expect(index.delete(action.row)).toBe(texts.delete(action.row));
            else {
              index.upsert(action.row, action.text);
              texts.set(action.row, action.text);
            }
            if (pack && i % 7 === 6) index.pack();
          });
          expect(index.size).toBe(texts.size);
          const expected = bruteForce(texts, query, average);
          expectSameScores(index.search(query, { k: 100 }), expected);
          expectSameScores(index.search(query, { k: 2, offset: 1 }), expected.slice(1, 3));
          const accept = (row: number): boolean => row % 2 === 0;
          expectSameScores(
            index.search(query, { k: 3, accept }),
            expected.filter(({ row }) => accept(row)).slice(0, 3),
          );
          const reopened = Bm25Index.fromBytes(index.toBytes());
          expectSameScores(reopened.search(query, { k: 100 }), expected);
          reopened.upsert(99, "red fox");
          expectSameScores(
            reopened.search(query, { k: 100 }),
            bruteForce(new Map(texts).set(99, "red fox"), query, average),
          );
        },
      ),
      { seed: 11, numRuns: 300 },
    );
  });

  test("stay right over lists of thousands of documents and large counts", () => {
    const index = new Bm25Index();
    const texts = new Map<number, string>();
    for (let row = 0; row < 5000; row++) {
      const text = `common ${row % 3 === 0 ? "third " : ""}${"many ".repeat(row % 400 === 0 ? 300 : 0)}own${row}`;
      index.upsert(row, text);
      texts.set(row, text);
    }
    // Enough deletes that the lists are packed on the way.
    for (let row = 0; row < 2000; row++) {
      index.delete(row);
      texts.delete(row);
    }
    const all = index.search("many third common own3000", { k: 5000 });
    expect(all).toHaveLength(3000);
    expectSameScores(all.slice(0, 20), bruteForce(texts, "many third common own3000").slice(0, 20));
    expect(index.search("own1999", { k: 5 })).toEqual([]);
  });

  test("are those of before while rows are staged, and of all of them once they are admitted", () => {
    const [index, plain, whole] = [built(), built(), built()];
    const texts = ["a red fox", "roses of a dog", "an unheard word"];
    const counted = texts.map((text) => countTerms(index.analyzer, text));
    const staged = counted.map((terms, i) => index.stageTerms(10 + i, terms));
    texts.forEach((text, i) => {
      whole.upsert(10 + i, text);
    });
    for (const query of ["red fox", "roses dog", "unheard word"]) {
      expect(index.search(query, { k: 10 })).toEqual(plain.search(query, { k: 10 }));
      expect(index.frequencyMass(query)).toBe(plain.frequencyMass(query));
      expect(whole.search(query, { k: 10 })).not.toEqual(plain.search(query, { k: 10 }));
    }
    expect([index.size, index.has(10), index.parameters]).toEqual([plain.size, false, plain.parameters]);
    const given = index.toBytes({ renumber: (row) => row });
    expect(Bm25Index.fromBytes(given).search("red fox", { k: 10 })).toEqual(plain.search("red fox", { k: 10 }));
    index.admit(staged);
    for (const query of ["red fox", "roses dog", "unheard word"]) {
      expect(index.search(query, { k: 10 })).toEqual(whole.search(query, { k: 10 }));
    }
    expect(index.toBytes()).toEqual(whole.toBytes());
    expect(() => index.admit(staged)).toThrow(/row 10 can't be admitted/);
  });

  test("put the smaller row first where they are equal", () => {
    const index = built(Array.from({ length: 50 }, () => "same text"));
    expect(index.search("same", { k: 3 }).map(({ row }) => row)).toEqual([0, 1, 2]);
  });

  test("keep the frozen average for documents that come later", () => {
    const index = built();
    index.freeze();
    const before = index.parameters.averageLength;
    expect(before).toBeCloseTo(13 / 4, 12);
    index.upsert(9, "word ".repeat(1000));
    expect(index.parameters.averageLength).toBe(before);
    const live = built();
    live.upsert(9, "word ".repeat(1000));
    expect(live.parameters.averageLength).toBeGreaterThan(100); // the control: unfrozen, it moves
  });
});

describe("sparse vectors for Qdrant", () => {
  const dot = (a: SparseVector, b: SparseVector, weigh: (hash: number) => number): number =>
    a.indices.reduce((sum, hash, i) => {
      const at = b.indices.indexOf(hash);
      return at < 0 ? sum : sum + a.values[i]! * b.values[at]! * weigh(hash);
    }, 0);

  test("give the index's scores once the server multiplies the idf in", () => {
    const analyzer = createAnalyzer();
    const index = built();
    index.freeze();
    const vectors = TEXTS.map((text) => sparseVector(analyzer, text, index.parameters));
    const stored = vectors.filter(({ indices }) => indices.length > 0);
    // As measured on the server (golden/qdrant/server.json): N counts the points that have the vector.
    const idf = (hash: number): number => {
      const n = stored.filter(({ indices }) => indices.includes(hash)).length;
      return Math.log(1 + (stored.length - n + 0.5) / (n + 0.5));
    };
    for (const query of ["red fox", "dogs dogs running", "rose"]) {
      const hits = index.search(query, { k: 10 });
      expect(hits.length).toBeGreaterThan(0);
      for (const { row, score } of hits) {
        const sparse = querySparseVector(analyzer, query);
        expect(dot(vectors[row]!, sparse, idf)).toBeCloseTo(score, 12);
        expect(dot(vectors[row]!, sparse, () => 1)).not.toBeCloseTo(score, 3); // the control: without idf
      }
    }
  });

  test("use the server's idf", () => {
    // golden/qdrant/server.json, "sparse query with IDF": two points have both terms; 1.5 + 2 and 2 + 1 of them.
    expect(3.5 * inverseDocumentFrequency(2, 2)).toBeCloseTo(0.63812554, 6);
    expect(3 * inverseDocumentFrequency(2, 2)).toBeCloseTo(0.54696476, 6);
  });

  test("have ascending, distinct, unsigned indices that never change", () => {
    const { indices } = sparseVector(createAnalyzer(), "some fifty words ".repeat(3) + TEXTS.join(" "), {
      k1: 0.9,
      b: 0.4,
      averageLength: 5,
    });
    expect(indices).toEqual([...new Set(indices)].sort((a, b) => a - b));
    // Stored in collections: a change of this figure breaks every existing one.
    expect(hashTerm("fox")).toBe(1112308516);
  });
});

describe("bytes", () => {
  test("are the same for the same documents", () => {
    expect(built().toBytes()).toEqual(built().toBytes());
  });

  test("are refused when any one of them is altered, or the end is cut", () => {
    const bytes = built().toBytes();
    for (let at = 0; at < bytes.length; at++) {
      const altered = bytes.slice();
      altered[at] = altered[at]! ^ 0x10;
      expect(() => Bm25Index.fromBytes(altered), `byte ${at}`).toThrow(CorruptFileError);
    }
    for (let length = 0; length < bytes.length; length += 7) {
      expect(() => Bm25Index.fromBytes(bytes.subarray(0, length)), `${length} bytes`).toThrow(CorruptFileError);
    }
  });

  test("are refused with another analyzer, naming both", () => {
    const analyzer = createAnalyzer({ language: "de" });
    expect(() => Bm25Index.fromBytes(built().toBytes(), { analyzer })).toThrow(
      /words-1 en porter .* got "words-1 de unstemmed/,
    );
  });

  test("hold an empty index too", () => {
    const index = Bm25Index.fromBytes(new Bm25Index().toBytes());
    expect(index.search("fox", { k: 1 })).toEqual([]);
    index.upsert(5, "fox");
    expect(index.search("fox", { k: 1 })).toHaveLength(1);
  });
});

describe("terms", () => {
  const terms = (text: string, language = "en"): string[] => [
    ...countTerms(createAnalyzer({ language }), text).counts.keys(),
  ];

  test("are stemmed words without stop words; numbers with points and possessives are one", () => {
    expect(terms("The court's rulings, e.g. in rule 1.1.2 and 10,000 don't apply to Node.js")).toEqual([
      ..."court rule e g 1.1.2 10,000 don't appli node js".split(" "),
    ]);
  });

  test("are the same however an accent or a width is encoded", () => {
    expect(terms("caf\u0065\u0301 Ｆｏｘ")).toEqual(terms("caf\u00e9 Fox"));
  });

  test("of other languages come from Intl.Segmenter, unstemmed", () => {
    expect(terms("什么是 MAC 地址？", "zh")).toEqual(["什么", "是", "mac", "地址"]);
    expect(terms("Die Häuser laufen", "de")).toEqual(["die", "häuser", "laufen"]);
  });

  test("of ten megabytes without a space are bounded", () => {
    const { counts, length } = countTerms(createAnalyzer(), "x".repeat(10_000_000));
    expect(Math.max(...[...counts.keys()].map((term) => term.length))).toBeLessThanOrEqual(255);
    expect(length).toBe(Math.ceil(10_000_000 / 255));
  });

  test("don't keep the texts alive that they were cut from", () => {
    const index = new Bm25Index();
    const before = process.memoryUsage().heapUsed;
    for (let row = 0; row < 40; row++) {
      index.upsert(row, Buffer.from(`${"filler ".repeat(300_000)}uncommonlylongword${row}`).toString());
    }
    // 40 texts of 2.1 MB: 84 MB if a term held each of them, garbage that may stay uncollected aside.
    const collect = runInNewContext("gc") as () => void;
    collect();
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(40e6);
  });

  test.each([
    ["no language", { language: "not a tag" }, /no BCP 47 language tag/],
    ["stems of German", { language: "de", stem: true }, /only English is stemmed/],
  ])("refuses %s", (_what, options, message) => {
    expect(() => createAnalyzer(options)).toThrow(message);
  });

  test("are highlighted where their stems match, with offsets into the text", () => {
    const text = "Café — the runner was RUNNING; he runs.";
    const spans = highlight(createAnalyzer(), "run the café", text);
    expect(spans.map(({ start, end }) => text.slice(start, end))).toEqual(["Café", "RUNNING", "runs"]);
    expect(highlight(createAnalyzer(), "the", text)).toEqual([]);
  });
});

describe("bad input", () => {
  test.each([
    ["k of 0", () => built().search("fox", { k: 0 }), /k must be a whole number from 1, got 0/],
    ["a fractional k", () => built().search("fox", { k: 1.5 }), /got 1.5/],
    ["a negative offset", () => built().search("fox", { k: 1, offset: -1 }), /offset must be/],
    ["a negative row", () => built().upsert(-1, "x"), /row must be a whole number from 0 to 268435455, got -1/],
    ["a row too large", () => built().upsert(2 ** 28, "x"), /got 268435456/],
    ["b above 1", () => new Bm25Index({ b: 2 }), /b must be from 0 to 1, got 2/],
    ["an average of 0", () => built().freeze(0), /averageLength must be above 0/],
  ])("refuses %s", (_what, call, message) => {
    expect(call).toThrow(InvalidInputError);
    expect(call).toThrow(message);
  });

  test("a filter that throws leaves the next search right", () => {
    const index = built();
    const before = index.search("red fox run", { k: 5 });
    const accept = (): boolean => {
      throw new Error("mine");
    };
    expect(() => index.search("red fox run", { k: 5, accept })).toThrow("mine");
    expect(index.search("red fox run", { k: 5 })).toEqual(before);
  });

  test("queries of stop words, of nothing and of unknown words find nothing", () => {
    for (const query of ["the of and", "", "zebra", "!?"]) expect(built().search(query, { k: 5 })).toEqual([]);
  });
});
