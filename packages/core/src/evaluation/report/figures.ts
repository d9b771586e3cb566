/** How figures stand in a report: times 100, with one digit behind the point. */

/** 0.5863 becomes "58.6". */
export function points(value: number): string {
  return (100 * value).toFixed(1);
}

/** A difference in points with its sign: "+1.2", "−0.4", "0.0". */
export function signed(value: number): string {
  const text = Math.abs(value).toFixed(1);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

/** A place on an axis of differences: "+5", "−0.2", "0". */
export function tickLabel(value: number): string {
  return value === 0 ? "0" : `${value < 0 ? "−" : "+"}${Math.abs(value)}`;
}

/** "ndcg@10" becomes "nDCG@10". */
export function metricTitle(metric: string): string {
  const names: Readonly<Record<string, string>> = { ndcg: "nDCG", map: "MAP", mrr: "MRR" };
  const [name = "", cut] = metric.split("@");
  const title = names[name] ?? `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`;
  return cut === undefined ? title : `${title}@${cut}`;
}

/** With thousands separators. */
export function grouped(count: number): string {
  return count.toLocaleString("en-US");
}

/** `text` on one line, at most so many characters and then an ellipsis. */
export function beginning(text: string, length: number): string {
  const line = text.replace(/\s+/g, " ").trim();
  const characters = line.length > length ? [...line.slice(0, 2 * length)] : [];
  return characters.length > length ? `${characters.slice(0, length).join("")}…` : line;
}
