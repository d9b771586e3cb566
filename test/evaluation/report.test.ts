import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InvalidInputError } from "@cde-js/core";
import { compareSystems, type DataSet, evaluate, type Found, renderReport, writeReport } from "@cde-js/core/evaluation";
import { afterAll, describe, expect, test } from "vitest";

const root = mkdtempSync(join(tmpdir(), "cde-report-"));
afterAll(() => rmSync(root, { recursive: true }));

const hostile = `</p><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;\u0000\u202egnirts`;
const names = Array.from({ length: 12 }, (_, i) => `d${i}`);
const dataSet: DataSet = {
  name: "tiny <set>",
  split: "dev",
  documents: names.map((id, i) => ({ id, title: i === 0 ? hostile : "", text: `document ${i} ${"word ".repeat(i)}` })),
  queries: names.map((id, i) => ({ id: `q-${id}`, text: i === 0 ? hostile : `query ${i} ${"long ".repeat(i)}` })),
  qrels: new Map(names.map((id) => [`q-${id}`, new Map([[id, 1]])])),
};

/** Puts the right document at the rank that `rankOf` says for the query's number. */
const system = (name: string, rankOf: (query: number) => number) => {
  const search = async (query: string): Promise<Found[]> => {
    const number = dataSet.queries.findIndex(({ text }) => text === query);
    const others = names.filter((_, i) => i !== number);
    others.splice(rankOf(number) - 1, 0, names[number]!);
    return others.map((id, i) => ({ id, score: -i }));
  };
  return { name, description: `${name} of <this> test`, search };
};
async function comparisonOf(...systems: ReturnType<typeof system>[]) {
  const evaluated = [];
  for (const { name, description, search } of systems) {
    const result = await evaluate(search, dataSet, { metrics: ["mrr@10", "success@1"] });
    evaluated.push({ name, description, result });
  }
  return compareSystems(evaluated, { base: "base", metrics: ["mrr@10", "success@1"], seed: 1, draws: 500 });
}
const base = system("base", (query) => (query % 2 === 0 ? 2 : 1));
const better = system("better", (query) => (query === 3 ? 4 : 1));
const worse = system("worse", () => 5);

describe("a comparison", () => {
  test("is of every other system with the base, positive where it is above", async () => {
    const { systems } = await comparisonOf(base, better, worse);
    expect(systems.map(({ name, against }) => [name, against === undefined])).toEqual([
      ["base", true],
      ["better", false],
      ["worse", false],
    ]);
    // Base: six of twelve at rank 2. Better: eleven at rank 1, one at rank 4; six up by 1/2, one down by 3/4.
    const { difference, wins, ties, losses } = systems[1]!.against!["mrr@10"];
    expect(difference).toBeCloseTo((6 / 2 - 3 / 4) / 12, 12);
    expect({ wins, ties, losses }).toEqual({ wins: 6, ties: 5, losses: 1 });
    expect(systems[2]!.against!["mrr@10"].interval[1]).toBeLessThan(0);
  });

  test("refuses a base that isn't there, a name that comes twice, and no metric", async () => {
    const { systems } = await comparisonOf(base, better);
    const options = { metrics: ["mrr@10"] as const, seed: 0 };
    expect(() => compareSystems(systems, { ...options, base: "bm25" })).toThrow('no system is named "bm25"');
    expect(() => compareSystems([...systems, systems[0]!], { ...options, base: "base" })).toThrow(
      'two systems are named "base"',
    );
    expect(() => compareSystems(systems, { ...options, base: "base", metrics: [] })).toThrow(InvalidInputError);
  });
});

describe("a report", () => {
  test("shows figures, differences with intervals, plots, slices and queries with their texts", async () => {
    const comparison = await comparisonOf(base, better, worse);
    const page = renderReport(dataSet, comparison, { facts: { Model: "tiny" } });
    const { interval, difference } = comparison.systems[1]!.against!["mrr@10"];
    const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
    expect(page).toContain(`${signed(difference)} (${signed(interval[0])} to ${signed(interval[1])})`);
    for (const heading of ["Figures", "Differences to base", "Query by query", "Queries to read", "By length"])
      expect(page).toContain(`<h2>${heading}</h2>`);
    expect(page).toContain("<dt>Model</dt><dd>tiny</dd>");
    expect(page.match(/<svg class="plot"/g)).toHaveLength(4); // two metrics, two systems beside the base
    // Query 3 is what better loses most on; its document was first and is now fourth.
    const lost = page.slice(page.indexOf("better loses most to base"), page.indexOf("Worst of the other"));
    expect(lost).toContain("query 3 long");
    expect(lost).toContain("base: rank 1");
    expect(lost).toContain("better: rank 4");
    expect(lost).toContain("−75.0");
    expect(lost.match(/<details>/g)).toHaveLength(1);
    expect(renderReport(dataSet, comparison, { facts: { Model: "tiny" } })).toBe(page);
  });

  test("escapes what stands in queries, documents and names, and loads nothing", async () => {
    const page = renderReport(dataSet, await comparisonOf(base, better), {
      title: hostile,
      facts: { [hostile]: hostile },
    });
    expect(page).toContain("&lt;script&gt;alert(&quot;1&quot;)");
    expect(page).toContain("tiny &lt;set&gt;");
    expect(page).not.toMatch(/<script|<img|<link|<iframe|javascript:|@import|url\(/i);
    expect(page).not.toMatch(/<[^>]*\son\w+=/i);
    expect(page).not.toMatch(/\bsrc=(?!x)|href=/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
    expect(page).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u202a-\u202e]/);
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
  });

  test("says where judgements are synthetic, and where judged documents are missing", async () => {
    const comparison = await comparisonOf(base, better);
    expect(renderReport(dataSet, comparison)).not.toContain('class="warning"');
    const synthetic = renderReport({ ...dataSet, synthetic: "Nobody judged <this>." }, comparison);
    expect(synthetic).toContain('<div class="warning" role="note">Nobody judged &lt;this&gt;.</div>');
    const lacking = renderReport({ ...dataSet, documents: dataSet.documents.slice(1) }, comparison);
    expect(lacking).toContain("1 judged documents are not in the corpus");
  });

  test("lists the queries of the system asked for, and refuses another", async () => {
    const comparison = await comparisonOf(base, better, worse);
    expect(renderReport(dataSet, comparison, { focus: "worse" })).toContain("worse loses most to base");
    expect(() => renderReport(dataSet, comparison, { focus: "base" })).toThrow(
      "no system beside the base; there are better, worse",
    );
  });

  test("refuses another data set than the figures are of", async () => {
    const other = { ...dataSet, queries: [...dataSet.queries, { id: "q-new", text: "x" }] };
    const comparison = await comparisonOf(base, better);
    expect(() => renderReport(other, comparison)).toThrow('query "q-new" of tiny <set> was not evaluated with base');
  });

  test("of one system alone has figures and slices", async () => {
    const page = renderReport(dataSet, await comparisonOf(base));
    expect(page).toContain("<h2>By length</h2>");
    expect(page).not.toContain("<h2>Query by query</h2>");
    expect(page).not.toContain("NaN");
  });

  test("is written wholly or not at all", async () => {
    const comparison = await comparisonOf(base, better);
    await writeReport(join(root, "report.html"), dataSet, comparison);
    expect(readFileSync(join(root, "report.html"), "utf8")).toBe(renderReport(dataSet, comparison));
    await expect(writeReport(join(root, "none", "report.html"), dataSet, comparison)).rejects.toThrow(
      "writeReport: can't write",
    );
    expect(readdirSync(root)).toEqual(["report.html"]);
  });
});
