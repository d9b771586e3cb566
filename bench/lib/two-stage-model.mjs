/** Makes a directory of the paper's full architecture from a BERT biencoder: its layers twice, heads that are random. */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createRandom } from "@cde-js/core";
import { openWeights, writeSafetensors } from "../../packages/core/dist/model/safetensors.js";

const SOFT_PROMPT_TOKENS = 8;

/** The cost of a trained one, and vectors that mean nothing. */
export async function writeTwoStageModel(base, directory, contextDocuments) {
  await mkdir(directory, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]) {
    await cp(join(base, name), join(directory, name));
  }
  const backbone = JSON.parse(await readFile(join(base, "config.json"), "utf8"));
  await writeFile(
    join(directory, "config.json"),
    JSON.stringify({
      architectures: ["DatasetTransformer"],
      transductive_corpus_size: contextDocuments,
      transductive_tokens_per_document: 1,
      max_seq_length: 256,
      cde: { preset: "v1-train", backbone },
    }),
  );
  const random = createRandom(1);
  const { hidden_size: width } = backbone;
  const matrix = (name, outputs, inputs) => [
    {
      name: `${name}.weight`,
      dtype: "F32",
      shape: [outputs, inputs],
      data: Float32Array.from({ length: outputs * inputs }, () => random.normal() / Math.sqrt(inputs)),
    },
    { name: `${name}.bias`, dtype: "F32", shape: [outputs], data: new Float32Array(outputs) },
  ];
  const heads = [
    ["first_stage_model.mlp", width],
    ["second_stage_model.prompt_projection", SOFT_PROMPT_TOKENS * width],
    ["second_stage_model.output_projection", width],
  ].flatMap(([name, outputs]) => [...matrix(`${name}.0`, width, width), ...matrix(`${name}.2`, outputs, width)]);
  const file = await openWeights(join(base, "model.safetensors"));
  const layers = [...file.tensors]
    .filter(([name, { dtype }]) => dtype === "F32" && !name.startsWith("pooler."))
    .flatMap(([name, { shape }]) =>
      ["first_stage_model.embedder", "second_stage_model.backbone"].map((stage) => ({
        name: `${stage}.${name}`,
        dtype: "F32",
        shape,
        data: () => file.readFloat32(name),
      })),
    );
  await writeSafetensors(join(directory, "model.safetensors"), [...layers, ...heads]);
  await file.close();
}
