/** Makes a directory with a prefix stage whose gates are open: the same cost as a trained one, and its context acts. */
import { cp, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** `stage` is { softmax, layers }. */
export async function writePrefixModel(base, directory, stage) {
  await cp(base, directory, { recursive: true });
  await writeFile(
    join(directory, "cde.json"),
    JSON.stringify({ format: 1, secondStage: { kind: "prefix", ...stage } }),
  );
  const {
    hidden_size: size,
    num_attention_heads: heads,
    num_hidden_layers: layers,
  } = JSON.parse(await readFile(join(base, "config.json"), "utf8"));
  const identity = Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
  const tensors = [
    ["prefix.projection.weight", [size, size], identity],
    ["prefix.projection.bias", [size], new Float32Array(size)],
  ];
  for (let i = 0; i < layers; i++) tensors.push([`prefix.layer.${i}.gate`, [heads], new Float32Array(heads).fill(0.5)]);
  await append(join(directory, "model.safetensors"), tensors);
}

/** Appends float32 tensors to a safetensors file. */
async function append(path, tensors) {
  const source = await open(path, "r+");
  try {
    const { buffer: length } = await source.read(Buffer.alloc(8), 0, 8, 0);
    const start = 8 + Number(length.readBigUInt64LE());
    const { buffer: json } = await source.read(Buffer.alloc(start - 8), 0, start - 8, 8);
    const header = JSON.parse(json.toString("utf8"));
    const data = Buffer.alloc((await source.stat()).size - start);
    await source.read(data, 0, data.length, start);
    let offset = data.length;
    for (const [name, shape, values] of tensors) {
      header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + values.byteLength] };
      offset += values.byteLength;
    }
    const text = Buffer.from(JSON.stringify(header));
    const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
    length.writeBigUInt64LE(BigInt(padded.length));
    const parts = [length, padded, data, ...tensors.map(([, , values]) => Buffer.from(values.buffer))];
    await source.truncate(0);
    await source.write(Buffer.concat(parts), 0, undefined, 0);
  } finally {
    await source.close();
  }
}
