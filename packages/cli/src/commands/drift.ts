/** `cde drift`: whether an index has outgrown its context. */
import { type Command, type Invocation, UsageError } from "../command.js";
import { grouped } from "../printable.js";
import { openIndex } from "../settings.js";

const help = `cde drift DIR

Says how far the documents that were added to the index in DIR since its context was chosen have moved from those that
were there: 0 is the distance of one half of the corpus from its other half, and 1 that of a mixture of others (with a model that
brings one, as the bundled one does), or once more the distance of the halves. Where the context is a map of base vectors (the bundled model), it also says
how many of a passage's ten nearest a fresh context would change. Nothing is embedded.

  --sample N         passages drawn of each side [512]
  --seed N           seed of the draw [0]
  --model DIR        the model, where it has moved since the index was built
`;

export const drift: Command = {
  summary: "DIR: whether an index has outgrown its context",
  help,
  options: { sample: { type: "string" }, seed: { type: "string" }, model: { type: "string" } },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, signal } = invocation;
  const [directory, ...more] = positionals;
  if (directory === undefined || more.length > 0) throw new UsageError("drift takes the folder of one index.");
  const sample = options.integer("sample", 32);
  const seed = options.integer("seed", 0);
  await using opened = await openIndex(directory, invocation);
  const { index } = opened;
  const report = await index.drift({
    signal,
    ...(sample === undefined ? {} : { sample }),
    ...(seed === undefined ? {} : { seed }),
  });
  const { documents, drift, relative, neighbours } = report;
  const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
  invocation.answer({ directory, ...report }, [
    `${grouped(documents.added)} of ${grouped(documents.added + documents.settled)} documents came since the context was chosen`,
    drift === undefined
      ? "drift: too few passages to tell"
      : relative === undefined
        ? `drift: ${drift.toFixed(2)} (0: as far as one half of the corpus from the other, 1: once that more)`
        : `drift: ${relative.toFixed(2)} (0: as far as one half of the corpus from the other, 1: as far as a mixture of others), ` +
          `${drift.toFixed(2)} of the distance between halves`,
    ...(neighbours
      ? [
          `of the ten nearest, ${percent(neighbours.overlap)} would stay under a fresh context; ` +
            `between two fresh ones ${percent(neighbours.betweenFresh)} do`,
        ]
      : []),
  ]);
}
