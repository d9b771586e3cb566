/** Stages whose session also reads tensors made from a context: kept in the worker as long as the stage lives. */
import type { Runtime, Session, TensorData, TensorStore } from "../runtime/runtime.js";
import type { BatchLimits } from "./batches.js";
import { TokenEncoder } from "./token-encoder.js";

/** Frees what a stage keeps in the worker once nobody can use the stage any more. */
const reclaimed: FinalizationRegistry<TensorStore> = new FinalizationRegistry((store) => {
  store.drop().catch(() => undefined); // it fails where the worker has ended, and then there is nothing to free
});

export interface KeptStageOptions {
  readonly padId: number;
  readonly limits?: BatchLimits;
  /** The further inputs of the session, by name. Called once, at the first use; again after it failed. */
  make(): Promise<Readonly<Record<string, TensorData>>>;
}

export function keptStage(runtime: Runtime, session: Session, options: KeptStageOptions): TokenEncoder {
  const { padId, limits = {}, make } = options;
  const store = runtime.createStore();
  const write = async () => {
    const tensors = await make();
    await store.write(tensors, { transfer: true });
    return Object.fromEntries(Object.keys(tensors).map((name) => [name, store.at(name)]));
  };
  let written: ReturnType<typeof write> | undefined;
  const stage = new TokenEncoder(session, {
    padId,
    limits,
    stored: () => {
      written ??= write().catch((error: unknown) => {
        written = undefined;
        throw error;
      });
      return written;
    },
  });
  reclaimed.register(stage, store);
  return stage;
}
