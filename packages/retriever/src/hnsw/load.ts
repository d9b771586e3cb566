/** The one place that imports hnswlib-node, an optional peer that is compiled where it is installed. */
import { CdeError, MissingPeerError } from "@cde-js/core/errors";

/** The part of hnswlib-node's graph that is used here. Distances are 1 - inner product. */
export interface NativeGraph {
  initIndex(capacity: number, m: number, efConstruction: number, seed: number): void;
  resizeIndex(capacity: number): void;
  /** Takes plain arrays only. A label from 0 to 2^32 - 2; others come back as another number. */
  addPoint(vector: number[], label: number): void;
  /** Throws for a label that is unknown or marked already. */
  markDelete(label: number): void;
  setEf(ef: number): void;
  searchKnn(query: number[], k: number): { readonly neighbors: number[] };
  readIndexSync(path: string): void;
  writeIndexSync(path: string): void;
}

export type NewGraph = (dimensions: number) => NativeGraph;

const NAME = "hnswlib-node";
const VERSION = "3.0.0";

/** hnswlib-node is installed, and npm did not compile it. */
class NotBuiltError extends CdeError {
  constructor(cause: unknown) {
    super(
      "PEER_NOT_BUILT",
      `hnsw: ${NAME} is installed, but npm did not build it: it has no prebuilt binaries, and its install script did not run or failed. It needs Python, make and a C++ compiler; then run: ${BUILD_COMMAND}. Or leave the option out: exact search needs none of it.`,
      { cause },
    );
  }
}

/** Builds what is installed, whatever the rules for install scripts (npm 12 runs none unless it is allowed). */
const BUILD_COMMAND = `npm rebuild ${NAME} --ignore-scripts=false --foreground-scripts`;
const INSTALL_COMMAND = `npm install ${NAME}@${VERSION}`;

/** @throws MissingPeerError where it isn't installed, CdeError (PEER_NOT_BUILT) where it can't be loaded */
export async function loadHnswlib(
  importPeer: () => Promise<unknown> = () => import("hnswlib-node"),
): Promise<NewGraph> {
  let module: unknown;
  try {
    module = await importPeer();
  } catch (cause) {
    const { code, message = "" } = (cause ?? {}) as NodeJS.ErrnoException;
    const absent = (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND") && message.includes(NAME);
    if (!absent) throw new NotBuiltError(cause);
    throw new MissingPeerError(
      NAME,
      `hnsw: cannot import "${NAME}". Install it: ${INSTALL_COMMAND}. Or leave the option out: exact search needs nothing.`,
      { cause },
    );
  }
  const { HierarchicalNSW } = (module as { default: { HierarchicalNSW: new (...args: unknown[]) => NativeGraph } })
    .default;
  return (dimensions) => new HierarchicalNSW("ip", dimensions);
}

/** Whether an HNSW index can be made here, and the command that mends it where not. Starts nothing. */
export async function hnswAvailability(): Promise<
  | { readonly state: "ready" }
  | { readonly state: "missing" | "not built"; readonly message: string; readonly command: string }
> {
  try {
    await loadHnswlib();
    return { state: "ready" };
  } catch (error) {
    if (error instanceof MissingPeerError) {
      return { state: "missing", message: error.message, command: INSTALL_COMMAND };
    }
    if (error instanceof NotBuiltError) return { state: "not built", message: error.message, command: BUILD_COMMAND };
    throw error;
  }
}
