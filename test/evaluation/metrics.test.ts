import { evaluateRun, type MetricName } from "@cde-js/core/evaluation";
import { describe, expect, test } from "vitest";
import { goldenJson } from "../support/golden.js";

type Table = Record<string, Record<string, number>>;
interface Case {
  readonly name: string;
  readonly qrels: Table;
  readonly run: Table;
  readonly perQuery: Table;
}

const cases = goldenJson<Case[]>("metrics/metrics.json");
const maps = (table: Table) => new Map(Object.entries(table).map(([key, row]) => [key, new Map(Object.entries(row))]));

/** trec_eval's names: "ndcg_cut_10", "map", "recip_rank". */
function ourName(measure: string): MetricName {
  if (measure === "map") return "map";
  if (measure === "recip_rank") return "mrr";
  const [, name = "", k] = /^(.+)_(\d+)$/.exec(measure)!;
  const ours = ({ ndcg_cut: "ndcg", map_cut: "map", P: "precision" } as Record<string, string>)[name] ?? name;
  return `${ours}@${k}` as MetricName;
}

describe("equals trec_eval to 1e-9", () => {
  test.each(cases.map((golden) => [golden.name, golden] as const))("%s", (_, golden) => {
    const measures = Object.keys(Object.values(golden.perQuery)[0]!);
    expect(measures).toHaveLength(18);
    const { perQuery, mean, missing } = evaluateRun(maps(golden.qrels), maps(golden.run), measures.map(ourName));
    for (const [query, figures] of Object.entries(golden.perQuery))
      for (const measure of measures) {
        const ours = perQuery.get(query)![ourName(measure)]!;
        expect(Math.abs(ours - figures[measure]!), `${query} ${measure}: ${ours}`).toBeLessThanOrEqual(1e-9);
      }
    expect(missing).toEqual(Object.keys(golden.qrels).filter((query) => !(query in golden.perQuery)));
    for (const measure of measures) {
      const sum = Object.values(golden.perQuery).reduce((total, figures) => total + figures[measure]!, 0);
      expect(mean[ourName(measure)]).toBeCloseTo(sum / Object.keys(golden.qrels).length, 9);
    }
  });
});
