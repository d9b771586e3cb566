/** Long computing on the caller's thread, cut into turns. */
import { setImmediate as pause } from "node:timers/promises";

export type Breathe = () => Promise<void> | undefined;

/** Milliseconds of computing after which the event loop gets a turn. */
const TURN = 15;

/** Gives the event loop a turn, and an abort its effect, where the last turn is long ago. */
export function breather(signal: AbortSignal | undefined): Breathe {
  let turn = performance.now();
  return () => {
    if (performance.now() - turn < TURN) return undefined;
    return pause().then(() => {
      signal?.throwIfAborted();
      turn = performance.now();
    });
  };
}
