/** Clusters on disk: made once, and the same ones whenever a run is resumed. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { CorruptFileError } from "../../errors.js";
import { openSafetensors, writeSafetensors } from "../../model/safetensors.js";
import type { PairClusters } from "./cluster-pairs.js";

/** The file of clusters with this digest, which must stand for all that determines them. */
export function clusterPath(folder: string, digest: string): string {
  return join(folder, `clusters-${digest.slice(0, 32)}.safetensors`);
}

export async function saveClusters(path: string, digest: string, clusters: PairClusters): Promise<void> {
  const { count, dimensions, objective, trainedOn } = clusters;
  await writeSafetensors(
    path,
    [
      { name: "clusters", dtype: "I32", shape: [clusters.clusters.length], data: Int32Array.from(clusters.clusters) },
      { name: "centroids", dtype: "F32", shape: [count, dimensions], data: clusters.centroids },
    ],
    { digest, objective: String(objective), trainedOn: String(trainedOn) },
  );
}

/** The clusters, or undefined where there is no such file. @throws CorruptFileError for a file of other pairs */
export async function loadClusters(
  path: string,
  digest: string,
  dataset: string,
  positions: Uint32Array,
): Promise<PairClusters | undefined> {
  try {
    await stat(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cause;
  }
  await using file = await openSafetensors(path);
  const fail = (): never => {
    throw new CorruptFileError(path, `loadClusters: ${path} doesn't hold the clusters it is named after. Remove it.`);
  };
  const [count = 0, dimensions = 0] = file.tensors.get("centroids")?.shape ?? [];
  if (file.metadata.get("digest") !== digest || count === 0 || dimensions === 0) fail();
  const numbers = await file.read("clusters");
  const fits = numbers instanceof Int32Array && numbers.length === positions.length;
  if (!fits || numbers.some((cluster) => cluster < 0 || cluster >= count)) fail();
  return {
    dataset,
    positions,
    clusters: Uint32Array.from(numbers as Int32Array),
    count,
    centroids: await file.readFloat32("centroids"),
    dimensions,
    objective: Number(file.metadata.get("objective")),
    trainedOn: Number(file.metadata.get("trainedOn")),
  };
}
