/**
 * A LangChain RAG chain over documents of your own, with citations. The chat model is LangChain's fake one, so that this
 * runs offline; it gives fixed answers. What is retrieved and cited is real. Put your chat model in its place.
 */
import { ContextualEmbeddings, CorpusRetriever, type PassageMetadata } from "@cde-js/adapters/langchain";
import type { DocumentInterface } from "@langchain/core/documents";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnableLambda, RunnablePassthrough, RunnableSequence } from "@langchain/core/runnables";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import { ContextualEncoder, CorpusIndex, modelDirectory } from "cde-js";

const clauses: [title: string, text: string][] = [
  ["Rent", "The rent is due on the third working day of each month."],
  ["Rent", "Who pays late owes interest of five percent a year."],
  ["Rent", "The rent may be raised once in fifteen months, by what the index of prices has risen."],
  ["Deposit", "The deposit is three months of rent and is kept on an account of its own."],
  ["Deposit", "The deposit is paid back within six months of the return of the keys."],
  ["Damage", "The landlord repairs what storm, fire or flood has damaged."],
  ["Damage", "Scratches in the parquet and broken panes are repaired by the tenant."],
  ["Damage", "The tenant reports a leaking pipe on the day on which it is found."],
  ["Pets", "Cats and small animals in cages are allowed; a dog needs the landlord's consent."],
  ["Noise", "Instruments are played from nine to twelve and from three to eight."],
  ["Notice", "Both sides may end the lease with three months of notice to the end of a quarter."],
  ["Notice", "The keys are returned on the last day, at the latest at noon."],
];
const documents = clauses.map(([title, text], i) => ({
  id: `clause-${i + 1}`,
  title,
  text,
  metadata: { page: 1 + Math.floor(i / 4) },
}));

// 1. Embeddings in the context of this corpus, and an index of it.
await using encoder = await ContextualEncoder.load(modelDirectory);
const embeddings = await ContextualEmbeddings.fromTexts(
  clauses.map(([, text]) => text),
  encoder,
);
await using index = await CorpusIndex.build(embeddings.embedder, documents);

// 2. The chain: retrieve, number the passages, ask the model, keep the passages for the citations.
const retriever = new CorpusRetriever({ index, k: 3 });
const numbered = (found: DocumentInterface[]): string =>
  found.map(({ pageContent }, i) => `[${i + 1}] ${pageContent}`).join("\n");
const model = new FakeListChatModel({
  responses: ["The landlord repairs the damage [1].", "Three months, to the end of a quarter [1]."],
});
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

// 3. Questions, with what each citation points to.
for (const question of ["Who repairs the roof after a storm?", "How long before can I end the contract?"]) {
  const result = await chain.invoke(question);
  console.log(`\n${question}\n${result.answer}`);
  const passages = result.passages as DocumentInterface[];
  for (const [, number] of result.answer.matchAll(/\[(\d+)\]/g)) {
    const cited = passages[Number(number) - 1];
    if (!cited) throw new Error(`the answer cites [${number}], and ${passages.length} passages were found`);
    const { title, score } = cited.metadata.cde as PassageMetadata;
    console.log(
      `  [${number}] ${cited.id}, "${title}", page ${cited.metadata.page}, score ${score.toFixed(2)}: ${cited.pageContent}`,
    );
  }
}

// A call may ask for more than the retriever does.
const more = await retriever.invoke("damage", { configurable: { k: 5 } });
console.log(`\n${more.length} passages about damage, ${new Set(more.map(({ metadata }) => metadata.page)).size} pages`);
