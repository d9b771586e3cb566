/** The single checks of `cde doctor`: each says what it found, and never throws. */
import { randomUUID } from "node:crypto";
import { access, constants, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ContextualEncoder, downloadModel, executionProviders, HubError, hubCacheDirectory } from "@cde-js/core";
import { modelDirectory } from "@cde-js/model-mini";
import { hnswAvailability } from "@cde-js/retriever";

export interface Check {
  readonly name: string;
  /** "fault": cde does not work; "warning": something that may be needed does not; "note": optional and absent. */
  readonly status: "ok" | "note" | "warning" | "fault";
  readonly finding: string;
  /** What mends it. */
  readonly command?: string;
}

const LEAST_NODE = [20, 19] as const;
const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-arm64", "win32-x64", "win32-arm64"];

export function checkPlatform(platform: string, arch: string, glibc: string | undefined): Check {
  const name = "platform";
  const here = `${platform}-${arch}`;
  if (!PLATFORMS.includes(here)) {
    return {
      name,
      status: "fault",
      finding: `${here}: ONNX Runtime has no library for it, only for ${PLATFORMS.join(", ")}`,
      command: platform === "darwin" ? "docker run -it --rm node:22-bookworm-slim bash" : "use one of these platforms",
    };
  }
  if (platform === "linux" && glibc === undefined) {
    return {
      name,
      status: "fault",
      finding: `${here} without glibc (musl, as in Alpine): ONNX Runtime has no library for it`,
      command: "docker run -it --rm node:22-bookworm-slim bash",
    };
  }
  return { name, status: "ok", finding: glibc === undefined ? here : `${here}, glibc ${glibc}` };
}

/** `version` without the "v". */
export function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = LEAST_NODE;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) {
    return { name: "Node", status: "ok", finding: version };
  }
  return {
    name: "Node",
    status: "fault",
    finding: `${version}, and cde needs ${LEAST_NODE.join(".")} or newer`,
    command: "nvm install 22, or https://nodejs.org",
  };
}

const GIB = 2 ** 30;

export function checkMachine(threads: number, total: number, free: number): Check {
  const finding = `${threads} threads, ${(free / GIB).toFixed(1)} of ${(total / GIB).toFixed(1)} GiB of memory free`;
  if (free >= 0.5 * GIB) return { name: "machine", status: "ok", finding };
  return {
    name: "machine",
    status: "warning",
    finding: `${finding}; embedding with the bundled model takes about 0.5`,
    command: "end other programs, or give the container more memory",
  };
}

export async function checkRuntime(providers: () => Promise<readonly string[]> = executionProviders): Promise<Check> {
  const name = "ONNX Runtime";
  try {
    return { name, status: "ok", finding: `its native library works; providers: ${(await providers()).join(", ")}` };
  } catch (error) {
    return {
      name,
      status: "fault",
      finding: `its native library can't be loaded: ${messageOf(error)}`,
      command: "npm install onnxruntime-node@1.30.0 --force",
    };
  }
}

/** Embeds a question and two answers: the right one has to be nearer, with vectors of length 1. */
export async function checkModel(model: string | undefined, signal: AbortSignal): Promise<Check> {
  const name = "model";
  const shown = model ?? "the bundled model";
  const isRepository = model !== undefined && !(await isDirectory(model));
  const reinstall = "npm install @cde-js/model-mini --force";
  try {
    // What the network has to bring is no matter of this machine.
    await using encoder = await ContextualEncoder.load(model ?? modelDirectory, {
      signal,
      ...(isRepository && { offline: true }),
    });
    const { modelId, dimensions } = encoder;
    if (encoder.contextSize !== undefined) {
      return {
        name,
        status: "ok",
        finding: `${modelId} loads; it needs a context of ${encoder.contextSize} documents to embed`,
      };
    }
    const start = performance.now();
    const embedder = encoder.withoutContext();
    const query = await embedder.embedQuery("who pays for water damage?", { signal });
    const texts = ["The landlord repairs what a flood has damaged.", "Bees make honey from nectar."];
    const { vectors } = await embedder.embedDocuments(texts, { signal });
    const seconds = (performance.now() - start) / 1000;
    const [right, wrong] = vectors.map((vector) => product(query, vector)) as [number, number];
    if (![query, ...vectors].every((vector) => Math.abs(product(vector, vector) - 1) < 1e-3)) {
      return { name, status: "fault", finding: `${modelId} gives vectors that aren't of length 1`, command: reinstall };
    }
    if (right > wrong) {
      return {
        name,
        status: "ok",
        finding: `${modelId}, ${dimensions} dimensions; three texts in ${seconds.toFixed(2)} s`,
      };
    }
    return {
      name,
      status: "warning",
      finding: `${modelId} works, but finds a wrong answer nearer than the right one (${wrong.toFixed(2)} and ${right.toFixed(2)}): is it a model for retrieval?`,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (isRepository && error instanceof HubError) {
      return { name, status: "fault", finding: `${shown}: ${messageOf(error)}`, command: fetchCommand(model) };
    }
    return {
      name,
      status: "fault",
      finding: `${shown} can't be used: ${messageOf(error)}`,
      command: model === undefined ? reinstall : "check --model",
    };
  }
}

export async function checkHnsw(availability: typeof hnswAvailability = hnswAvailability): Promise<Check> {
  const name = "hnswlib-node";
  const found = await availability();
  if (found.state === "ready") return { name, status: "ok", finding: "built; HnswIndex can be used" };
  const optional = "only HnswIndex needs it, exact search does not";
  return found.state === "missing"
    ? { name, status: "note", finding: `not installed; ${optional}`, command: found.command }
    : {
        name,
        status: "warning",
        finding: `installed, but npm did not build it (no Python, make or C++ compiler, or install scripts not allowed); ${optional}`,
        command: found.command,
      };
}

/** Whether files can be made in the hub's cache, or in the nearest folder above it that is there. */
export async function checkCache(folder: string = hubCacheDirectory()): Promise<Check> {
  const name = "cache of models";
  let existing = folder;
  while (!(await isDirectory(existing)) && dirname(existing) !== existing) existing = dirname(existing);
  try {
    if (existing === folder) {
      const probe = join(folder, `.cde-doctor-${randomUUID()}`);
      await writeFile(probe, "");
      await rm(probe);
    } else {
      // A file in the way of a folder of the path.
      const inTheWay = await stat(
        join(existing, folder.slice(existing.length).split(/[\\/]/).find(Boolean) ?? ""),
      ).catch(() => undefined);
      if (inTheWay) throw new Error(`a file is in the way below ${existing}`);
      await access(existing, constants.W_OK);
    }
    return {
      name,
      status: "ok",
      finding: `${folder} can be written${existing === folder ? "" : " (it is not there yet)"}`,
    };
  } catch (error) {
    return {
      name,
      status: "warning",
      finding: `${folder} can't be written (${messageOf(error)}): models of the hub can't be downloaded; the bundled one needs no cache`,
      command: "export HF_HOME=/a/folder/that/can/be/written",
    };
  }
}

/** Whether all that embedding takes is on this machine. */
export async function checkOffline(model: string | undefined): Promise<Check> {
  const name = "without network";
  if (model === undefined) return { name, status: "ok", finding: "everything works with the bundled model" };
  if (await isDirectory(model)) return { name, status: "ok", finding: `everything works with ${model}` };
  try {
    const { directory } = await downloadModel(model, { offline: true });
    return { name, status: "ok", finding: `everything works: ${model} is in ${directory}` };
  } catch (error) {
    const command = error instanceof HubError ? fetchCommand(model) : "check --model";
    return { name, status: "warning", finding: messageOf(error), command };
  }
}

function fetchCommand(model: string): string {
  const program = `import("cde-js").then(({ downloadModel }) => downloadModel(${JSON.stringify(model)}))`;
  return `node -e '${program}'`;
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
}

async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

function product(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);
}
