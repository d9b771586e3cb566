/** Sorting texts by subject: labels learned from a few examples, by nearest neighbours and by a linear probe. */
import { evaluateClassification, evaluateClustering, type LabelledText, LinearProbe } from "@cde-js/core/evaluation";
import { ContextualEncoder, modelDirectory } from "cde-js";

const letters: Record<string, string[]> = {
  payment: [
    "The invoice of March was charged to my card twice.",
    "Please send the receipt for the last transfer again.",
    "My bank says that the debit was refused.",
    "Why is the amount higher than in the offer?",
    "I would like to pay in three instalments.",
    "The refund has not arrived on my account yet.",
  ],
  delivery: [
    "The parcel has been in the depot for a week.",
    "The courier left the box in the rain.",
    "Two of the four chairs are missing.",
    "Can you ship to a pickup station?",
    "The tracking number does not work.",
    "The package was sent to my old address.",
  ],
  repair: [
    "The display stays black after I press the button.",
    "The hinge of the door broke in the first month.",
    "The motor makes a grinding noise when it starts.",
    "Water drips from the bottom of the machine.",
    "The battery no longer holds its charge.",
    "An error code blinks and nothing moves.",
  ],
};
const parts: { train: LabelledText[]; test: LabelledText[] } = { train: [], test: [] };
for (const [label, texts] of Object.entries(letters))
  texts.forEach((text, i) => {
    parts[i < 4 ? "train" : "test"].push({ text, label });
  });

await using encoder = await ContextualEncoder.load(modelDirectory);
// The context is the letters whose labels are known: what they have in common weighs less.
const context = await encoder.buildContext(parts.train.map(({ text }) => text));
const embedders = { "without context": encoder.withoutContext(), "with context": encoder.withContext(context) };

for (const [name, embedder] of Object.entries(embedders)) {
  const probe = await evaluateClassification(embedder, parts, { method: "probe", c: 10 });
  const neighbours = await evaluateClassification(embedder, parts, { method: "knn", k: 3 });
  const { vMeasure } = await evaluateClustering(embedder, [...parts.train, ...parts.test]);
  console.log(
    `${name}: probe ${Math.round(100 * probe.accuracy)} %, neighbours ${Math.round(100 * neighbours.accuracy)} % right, ` +
      `clusters V-measure ${vMeasure.toFixed(2)}`,
  );
}

// A probe by itself: what a new letter is about, and how sure that is.
const embedder = embedders["with context"];
const { vectors } = await embedder.embedDocuments(parts.train.map(({ text }) => text));
const probe = await LinearProbe.fit(
  vectors,
  parts.train.map(({ label }) => label),
  { c: 10 },
);
const letter = "The driver took the boxes to the wrong street.";
const [row] = probe.probabilities((await embedder.embedDocuments([letter])).vectors);
const shares = probe.classes.map((label, i) => `${label} ${Math.round(100 * row![i]!)} %`);
console.log(`"${letter}"\n  ${shares.join(", ")}`);
