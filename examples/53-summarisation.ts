/**
 * A summary of a long report that stays within a budget: k-means finds its themes, the passages nearest to each theme are
 * given to the model, and every line of the summary cites its passage. The chat model is a fake one that takes a
 * passage's first sentence, so that this runs offline; put a call of yours in its place.
 */
import { ContextualEncoder, kMeans, modelDirectory, splitText } from "cde-js";

const report = `
The harbour handled 4.2 million tonnes in the year under review. That is three percent more than in the year before. Grain made up the largest part, followed by timber and scrap metal.

Grain exports grew because the northern mills reopened. Two new silos were taken into use in May. They hold 30,000 tonnes together.

Timber fell by a tenth, as two sawmills upstream closed. The yard they used has been let to a maker of wind turbines. Blades of eighty metres are now loaded there.

The quay wall in the western basin was found to be unsound in spring. Divers counted forty cracks below the water line. Repairs began in August and will last two years.

Until then ships of more than eight metres draught can't berth in the western basin. They are sent to the eastern quay, where waiting times rose to eleven hours. The pilots asked for a second tug.

Dredging of the approach was put off, because the spoil was found to hold too much mercury. A landfill that may take it opens next year. The costs are put at six million.

The port employed 312 people, nine more than the year before. Six apprentices finished their training, and all of them stayed. Sick leave fell to four percent.

Wages rose by three percent in July after a strike of two days. The new agreement with the union runs until the end of next year. Shifts at night are now paid half as much again.

Income was 41 million and costs 37 million. The surplus goes into the repair of the quay wall. No dividend is proposed to the city.

A loan of twenty million was taken up for the quay at a rate of 3.1 percent. It is to be paid back over fifteen years. The auditors had no objections.
`.trim();

await using encoder = await ContextualEncoder.load(modelDirectory);
const plain = encoder.withoutContext();
const passages = splitText(report, { countTokens: (text) => plain.countTokens(text), maxTokens: 64 }).map(
  ({ start, end }) => report.slice(start, end),
);

// In the context of the report itself, what all its passages share no longer hides how they differ.
const embedder = encoder.withContext(await encoder.buildContext(passages));
const { vectors } = await embedder.embedDocuments(passages);
const rows = new Float32Array(vectors.flatMap((vector) => [...vector]));
const themes = 4;
const { clusters, similarities, sizes } = await kMeans(rows, embedder.dimensions, themes, { seed: 1, starts: 10 });

// The passage nearest to each theme's centre, in the order of the report.
const chosen = Array.from({ length: themes }, (_, theme) =>
  [...passages.keys()]
    .filter((position) => clusters[position] === theme)
    .reduce((best, position) => (similarities[position]! > similarities[best]! ? position : best)),
).sort((a, b) => a - b);
console.log(`${passages.length} passages, ${themes} themes of ${[...sizes].join(", ")} passages`);

type ChatModel = (prompt: string) => Promise<string>;
const fakeModel: ChatModel = async (prompt) =>
  [...prompt.matchAll(/^\[(\d+)\] (.*?[a-z]\.)(?: |$)/gm)]
    .map(([, number, first]) => `- ${first} [${number}]`)
    .join("\n");

const numbered = chosen.map((position) => `[${position + 1}] ${passages[position]!.replaceAll(/\s+/g, " ")}`);
const summary = await fakeModel(
  `Summarise these passages of a report in one line each. Cite the passage of every line like [1].\n${numbered.join("\n")}`,
);
console.log(summary);

// A line without a citation, or with one of a passage that the model never saw, is not passed on.
for (const line of summary.split("\n")) {
  const [, number] = /\[(\d+)\]$/.exec(line) ?? [];
  if (number === undefined || !chosen.includes(Number(number) - 1)) throw new Error(`no source for: ${line}`);
  console.log(
    `  [${number}] is passage ${number} of ${passages.length}: ${passages[Number(number) - 1]!.slice(0, 60)}…`,
  );
}
