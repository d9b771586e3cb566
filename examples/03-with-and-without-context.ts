/** What a context does: in a corpus that is all about one thing, it takes the one thing out of the vectors. */
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";

const texts = [
  "The espresso machine heats its boiler to 93 degrees before the first coffee.",
  "Descale the espresso machine with citric acid every two months.",
  "The grinder of the coffee machine is set finer by turning the ring to the left.",
  "If the coffee machine leaks, replace the gasket of the brewing group.",
  "The milk frother of the coffee machine is rinsed with water after every use.",
  "The coffee machine switches itself off after thirty minutes without a cup.",
  "Empty the drip tray of the coffee machine when the red float rises.",
  "The warranty on the espresso machine ends two years after it was bought.",
  "Fill the bean hopper of the coffee machine with roasted beans only.",
  "The water tank of the espresso machine holds two litres.",
];
const documents = texts.map((text, i) => ({ id: `manual-${i + 1}`, text }));
const question = "my coffee machine makes a puddle on the table";

await using encoder = await ContextualEncoder.load(modelDirectory);
const without = encoder.withoutContext();
const context = await encoder.buildContext(texts);
const within = encoder.withContext(context);

for (const [name, embedder] of Object.entries({ "without context": without, "with context": within })) {
  await using index = await CorpusIndex.build(embedder, documents);
  const hits = await index.search(question, { k: documents.length, mode: "dense" });
  const scores = hits.map(({ score }) => score);
  const spread = scores.map((score) => score.toFixed(2)).join(" ");
  console.log(`${name}: ${hits[0]?.text}\n  scores ${spread}`);
}

// How much all texts have in common (|mean|²: 0 nothing, 1 everything), which is what the context takes out.
console.log(`in common: ${context.map?.meanNormSquared.toFixed(2)}`);
