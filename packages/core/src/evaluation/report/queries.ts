/** The queries of a report that one system gains and loses most, and its worst and best others, with their texts. */
import { type DataSet, wholeText } from "../data-set.js";
import type { EvaluationResult } from "../evaluate.js";
import { type MetricName, rankDocuments } from "../metrics.js";
import { beginning, points, signed } from "./figures.js";
import { html, type Markup } from "./markup.js";

interface Row {
  readonly id: string;
  readonly text: string;
  readonly base: number;
  readonly system: number;
}

export interface QueryLists<M extends MetricName> {
  readonly dataSet: DataSet;
  readonly metric: M;
  readonly base: { readonly name: string; readonly result: EvaluationResult<M> };
  readonly system: { readonly name: string; readonly result: EvaluationResult<M> };
}

/** Queries of each list. */
const LISTED = 6;
/** Characters of a query in its line, and of a document. */
const [QUERY, DOCUMENT] = [220, 320];
/** Documents of each kind that are shown with their texts. */
const SHOWN = 3;

export function queryLists<M extends MetricName>(lists: QueryLists<M>): Markup {
  const { dataSet, metric, base, system } = lists;
  const texts = new Map(dataSet.documents.map((document) => [document.id, wholeText(document)]));
  const rows = dataSet.queries.map(
    ({ id, text }): Row => ({
      id,
      text,
      base: base.result.perQuery.get(id)![metric],
      system: system.result.perQuery.get(id)![metric],
    }),
  );
  const byGain = [...rows].sort((a, b) => b.system - b.base - (a.system - a.base));
  const gains = byGain.filter((row) => row.system > row.base).slice(0, LISTED);
  const losses = byGain
    .reverse()
    .filter((row) => row.system < row.base)
    .slice(0, LISTED);
  const listed = new Set([...gains, ...losses]);
  const left = rows.filter((row) => !listed.has(row));
  const worst = [...left].sort((a, b) => a.system - b.system || a.base - b.base).slice(0, LISTED);
  const best = [...left]
    .filter((row) => !worst.includes(row))
    .sort((a, b) => b.system - a.system || b.base - a.base)
    .slice(0, LISTED);
  const list = (title: string, of: readonly Row[]): Markup =>
    html`<h3>${title}</h3>${of.length === 0 ? [html`<p class="note">None.</p>`] : of.map((row) => query(row, lists, texts))}`;
  return html`${list(`${system.name} gains most over ${base.name}`, gains)}${list(`${system.name} loses most to ${base.name}`, losses)}${list(`Worst of the other queries with ${system.name}`, worst)}${list(`Best of the other queries with ${system.name}`, best)}`;
}

function query<M extends MetricName>(
  row: Row,
  { dataSet, base, system }: QueryLists<M>,
  texts: ReadonlyMap<string, string>,
): Markup {
  const ranked = [base, system].map(({ name, result }) => ({
    name,
    ids: rankDocuments(row.id, result.run.get(row.id) ?? []),
  }));
  const judgements = dataSet.qrels.get(row.id)!;
  const relevant = [...judgements].filter(([, judgement]) => judgement > 0).sort((a, b) => b[1] - a[1]);
  const place = (ids: readonly string[], id: string) => {
    const at = ids.indexOf(id);
    return at < 0 ? "not found" : `rank ${at + 1}`;
  };
  const textOf = (id: string) => beginning(texts.get(id) ?? "(not in the corpus)", DOCUMENT);
  const answers = relevant.slice(0, SHOWN).map(([id]) => {
    const places = ranked.map(({ name, ids }) => html`<span class="tag">${name}: ${place(ids, id)}</span>`);
    return html`<li>${places}${textOf(id)}</li>`;
  });
  const more = relevant.length > SHOWN ? `, ${SHOWN} of ${relevant.length}` : "";
  const tops = ranked.map(({ name, ids }) => {
    const items = ids.slice(0, SHOWN).map((id) => {
      const mark = (judgements.get(id) ?? 0) > 0 ? [html`<span class="tag">relevant</span>`] : [];
      return html`<li>${mark}${textOf(id)}</li>`;
    });
    return html`<h4>First with ${name}</h4><ol>${items.length > 0 ? items : [html`<li>nothing</li>`]}</ol>`;
  });
  const difference = row.system - row.base;
  const side = difference > 0 ? "better" : difference < 0 ? "worse" : "same";
  return html`<details><summary><span class="delta ${side}">${signed(100 * difference)}</span><span class="q">${beginning(row.text, QUERY)}</span><span class="was">${points(row.base)} → ${points(row.system)}</span></summary><div class="passages"><h4>Relevant${more}</h4><ol>${answers}</ol>${tops}</div></details>
`;
}
