/** `cde serve`: a page to try queries on an index, on this machine. */
import { once } from "node:events";
import { basename, resolve } from "node:path";
import { CorpusContext } from "@cde-js/core";
import { type Command, type Invocation, UsageError } from "../command.js";
import { loadEncoder, modelOption } from "../model.js";
import { counted } from "../printable.js";
import { isLoopback } from "../serve/guard.js";
import { Playground } from "../serve/playground.js";
import { serve as listen } from "../serve/server.js";
import { readSettings } from "../settings.js";

const DEFAULT_PORT = 7437;

const help = `cde serve DIR [--port N]

Serves a page for the index in DIR: queries with filters and timings, the same corpus without context beside it, and a map
of the corpus. It runs until Ctrl-C. Whoever reaches the address can read the whole corpus, so it is this machine alone.

  --port N           0 takes a free one [${DEFAULT_PORT}]
  --host ADDRESS     another address to listen on [127.0.0.1]
  --allow-host NAME  a name under which browsers reach it, beside ADDRESS; may be given several times
  --model DIR        the model, where it has moved since the index was built
  --context FILE     the context, for an index that a program saved

Requests for other hosts and from other pages are refused. The side without context embeds the corpus anew, in memory, when
the page first asks for it.
`;

export const serve: Command = {
  summary: "DIR [--port N]: a page to try queries with and without context",
  help,
  options: {
    port: { type: "string" },
    host: { type: "string" },
    "allow-host": { type: "string", multiple: true },
    model: { type: "string" },
    context: { type: "string" },
  },
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { options, positionals, signal } = invocation;
  const [given, ...more] = positionals;
  if (given === undefined) throw new UsageError("the folder of an index is missing.");
  if (more.length > 0) throw new UsageError("more than one index is given.");
  const directory = resolve(given);
  const port = options.integer("port", 0) ?? DEFAULT_PORT;
  if (port > 65_535) throw new UsageError(`--port should be at most 65535, got ${port}.`);
  const host = options.text("host") ?? "127.0.0.1";
  const names = options.texts("allow-host");
  if (["0.0.0.0", "::"].includes(host) && names.length === 0) {
    throw new UsageError(
      `--host ${host} stands for every address: give the names that browsers use, with --allow-host.`,
    );
  }
  const settings = await readSettings(directory);
  const file = options.text("context");
  const context = file === undefined ? settings?.context : await CorpusContext.load(file);
  await using encoder = await loadEncoder(modelOption(invocation) ?? settings?.model, invocation);
  await using playground = await Playground.open({ directory, encoder, context, signal });
  const server = await listen(playground, { host, port, names });
  try {
    const { documents, passages } = playground.describe();
    invocation.answer({ url: server.url, directory, documents, passages }, [
      `${server.url}  ${basename(directory)}: ${counted(documents, "document")}, ${counted(passages, "passage")}. Ctrl-C ends it.`,
      ...(isLoopback(host) ? [] : ["whoever reaches this address can read the corpus"]),
    ]);
    if (!signal.aborted) await once(signal, "abort");
  } finally {
    await server.close();
  }
}
