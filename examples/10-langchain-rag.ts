/**
 * A LangChain RAG chain with citations over licence texts (of the SPDX list). The chat model is LangChain's fake one, so
 * that this runs offline: its answers are written here, and it cites the passage that bears them out or fails where none
 * was found. Put your chat model in its place; all else is real.
 */
import { CorpusRetriever, type PassageMetadata } from "@cde-js/adapters/langchain";
import type { DocumentInterface } from "@langchain/core/documents";
import { AIMessage, type BaseMessage } from "@langchain/core/messages";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnableLambda, RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { fakeModel } from "@langchain/core/testing";
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";
import licences from "spdx-license-list/full.js";

const ids = ["MIT", "BSD-3-Clause", "Apache-2.0", "MPL-2.0", "AGPL-3.0-only", "EUPL-1.2", "CC-BY-SA-4.0", "OFL-1.1"];
const documents = ids.map((id) => {
  const licence = licences[id];
  if (!licence) throw new Error(`the SPDX list has no ${id}`);
  return { id, title: licence.name, text: licence.licenseText, metadata: { osi: licence.osiApproved } };
});

// 1. The corpus is read twice: its context is chosen and built, then its passages are embedded under it.
await using encoder = await ContextualEncoder.load(modelDirectory);
await using index = await CorpusIndex.fromCorpus(encoder, () => documents, { contextSize: 64 });
console.log(`${index.count} licences, ${index.passageCount} passages`);

// 2. The chain: retrieve, number the passages, ask the model, keep the passages for the citations.
const retriever = new CorpusRetriever({ index, k: 4 });
const numbered = (found: DocumentInterface[]): string =>
  found.map(({ id, pageContent }, i) => `[${i + 1}] (${id}) ${pageContent.replace(/\s+/g, " ")}`).join("\n");

/** Says `text` and cites the first passage of its prompt that holds the phrase. */
const says = (text: string, phrase: string) => (messages: BaseMessage[]) => {
  const passages = (messages[0]?.text ?? "").split("\n").slice(1);
  const [, number] = passages.find((passage) => passage.includes(phrase))?.match(/^\[(\d+)\]/) ?? [];
  if (number === undefined) return new Error(`no passage says "${phrase}":\n${passages.join("\n")}`);
  return new AIMessage(`${text} [${number}].`);
};
const model = fakeModel()
  .respond(says("Yes, they need a way to get it", "a way for users to get its source"))
  .respond(says("The patent licences granted to you end", "If You institute patent litigation"))
  .respond(says("A court of the country where the licensor resides", "exclusive jurisdiction of the competent court"));
const answer = RunnableSequence.from([
  RunnableLambda.from(({ question, passages }: { question: string; passages: DocumentInterface[] }) => ({
    question,
    context: numbered(passages),
  })),
  ChatPromptTemplate.fromMessages([
    ["system", "Answer from these passages only and cite them by number.\n{context}"],
    ["human", "{question}"],
  ]),
  model,
  new StringOutputParser(),
]);
const chain = RunnableSequence.from([
  { question: new RunnablePassthrough<string>(), passages: retriever },
  RunnablePassthrough.assign({ answer }),
]);

// 3. Questions, with what each citation points to: the licence, and where in its text.
for (const question of [
  "Must I offer the source code to users who interact with the program over a network?",
  "Do patent licenses granted to me terminate if I institute patent litigation?",
  "Which court decides disputes about the licence?",
]) {
  const result = await chain.invoke(question);
  console.log(`\n${question}\n${result.answer}`);
  const passages = result.passages as DocumentInterface[];
  for (const [, number] of (result.answer as string).matchAll(/\[(\d+)\]/g)) {
    const cited = passages[Number(number) - 1];
    if (!cited) throw new Error(`the answer cites [${number}], and ${passages.length} passages were found`);
    const { title, start, end, score } = cited.metadata.cde as PassageMetadata;
    const line = cited.pageContent.replace(/\s+/g, " ").slice(0, 100);
    console.log(`  [${number}] ${title}, characters ${start} to ${end}, score ${score.toFixed(2)}: ${line}…`);
  }
}

// 4. A call may ask for more than the retriever does; another retriever gives whole licences.
const more = await retriever.invoke("patents", { configurable: { k: 10 } });
const whole = new CorpusRetriever({ index, k: 3, parentDocuments: true });
console.log(`\n${more.length} passages about patents, in ${new Set(more.map(({ id }) => id)).size} licences`);
console.log(`Whole licences about fonts: ${(await whole.invoke("fonts")).map(({ id }) => id).join(", ")}`);
