/** Drift on the scale of other corpora, with the bundled model and the file that comes with it. */
import { ContextualEncoder, CorpusContext, createRandom } from "@cde-js/core";
import { modelDirectory, otherCorporaFile } from "@cde-js/model-mini";
import { CorpusIndex } from "@cde-js/retriever";
import { expect, test } from "vitest";

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

test("the bundled vectors are the bundled model's, and tell another subject from more of the same", async () => {
  await using encoder = await ContextualEncoder.load(modelDirectory);
  const reference = await CorpusContext.load(otherCorporaFile);
  expect(reference.identity.model).toBe(encoder.withoutContext().fingerprint);
  expect(reference.size).toBeGreaterThanOrEqual(128);

  const shuffled = createRandom(3).shuffle(corpus);
  const [settled, added] = [shuffled.slice(0, 50), shuffled.slice(50)];
  const context = await encoder.buildContext(settled.map(({ text }) => text));
  const build = () => CorpusIndex.build(encoder.withContext(context), settled, { lexical: false });
  await using same = await build();
  await same.upsert(added);
  const more = await same.drift({ reference });
  expect(Math.abs(more.relative as number)).toBeLessThan(0.1);
  await using moved = await build();
  await moved.upsert(science);
  const { relative } = await moved.drift({ reference });
  // A corpus of one subject is farther away than the mixture of nine that is 1.
  expect(relative).toBeGreaterThan(1);
});
