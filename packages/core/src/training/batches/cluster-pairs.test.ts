import { readFileSync, renameSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { MatrixRuntime } from "../../k-means/matrix-runtime.js";
import { createPairSet } from "../data/create-pair-set.js";
import type { PairSet } from "../data/pair-set.js";
import { temporaryPath } from "../data/temporary.test.support.js";
import { clusterPath, loadClusters, saveClusters } from "./cluster-file.js";
import { clusterPairs, type PairClusters } from "./cluster-pairs.js";
import { functionSurrogate } from "./surrogate.js";
import { openVectors } from "./vector-cache.js";

const golden = JSON.parse(
  readFileSync(new URL("../../../../../test/parity/golden/clustering/clustering.json", import.meta.url), "utf8"),
) as { queries: number[][]; documents: number[][]; faiss: { partition: number[] } };

/** `q 7` and `d 7` have the golden vectors of pair 7. */
const surrogate = functionSurrogate(
  async (texts) =>
    texts.map((text) => {
      const [kind, i] = text.split(" ");
      return (kind === "q" ? golden.queries : kind === "d" ? golden.documents : [[1, 1, 1, 1, 1, 1]])[Number(i) || 0]!;
    }),
  { modelId: "golden" },
);

let runtime: MatrixRuntime;
let pairs: PairSet;
beforeAll(async () => {
  runtime = await MatrixRuntime.start({ threads: 1 });
  const records = golden.queries.map((_, i) => ({ id: `${i}`, query: `q ${i}`, positive: `d ${i}` }));
  pairs = await createPairSet(temporaryPath("golden"), records);
});
afterAll(async () => {
  await pairs.close();
  await runtime.dispose();
});

async function cluster(seed: number): Promise<PairClusters> {
  await using vectors = await openVectors(temporaryPath("vectors"), surrogate);
  return await clusterPairs(pairs, "default", vectors, runtime, { clusterSize: 10, seed });
}

/** Labels in order of first appearance: equal partitions are equal lists. */
function partition(clusters: Iterable<number>): number[] {
  const labels = new Map<number, number>();
  return [...clusters].map((cluster) => {
    const label = labels.get(cluster) ?? labels.size;
    labels.set(cluster, label);
    return label;
  });
}

test("pairs fall into the clusters that the authors' paired k-means finds by FAISS, whatever the seed", async () => {
  for (const seed of [0, 1, 2]) {
    const found = await cluster(seed);
    expect(found.count).toBe(4); // 40 pairs, 10 a cluster
    expect(partition(found.clusters)).toEqual(golden.faiss.partition);
  }
});

test("a centroid is the mean of its pairs' documents, as they are", async () => {
  const { clusters, centroids, dimensions } = await cluster(0);
  for (let c = 0; c < 4; c++) {
    const members = golden.documents.filter((_, i) => clusters[i] === c);
    for (let d = 0; d < dimensions; d++) {
      const mean = members.reduce((sum, vector) => sum + vector[d]! / Math.hypot(...vector), 0) / members.length;
      expect(centroids[c * dimensions + d]).toBeCloseTo(mean, 5);
    }
  }
});

test("clusters on disk come back, and a file of other pairs or another name is refused", async () => {
  const made = await cluster(0);
  const [folder, digest, other] = [temporaryPath(""), "a".repeat(64), "b".repeat(64)];
  const path = `${folder}${digest.slice(0, 8)}`;
  await saveClusters(path, digest, made);
  expect(await loadClusters(path, digest, "default", made.positions)).toEqual(made);
  expect(await loadClusters(clusterPath(folder, other), other, "default", made.positions)).toBeUndefined();
  await expect(loadClusters(path, digest, "default", made.positions.subarray(1))).rejects.toMatchObject({
    code: "CORRUPT_FILE",
  });
  renameSync(path, `${path}x`);
  await expect(loadClusters(`${path}x`, other, "default", made.positions)).rejects.toThrow("doesn't hold the clusters");
});
