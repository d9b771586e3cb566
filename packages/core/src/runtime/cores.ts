/** How many threads a run gets where nobody says it. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";

/**
 * The cores that this process may use, processors that share one counted once; 0 where the system doesn't say which do.
 *
 * ONNX Runtime takes as many when it is asked for 0 threads, and then binds each to a core: where another program has that
 * core, the run waits for it while others idle. Threads that are asked for by number are bound to none.
 */
export function usableCores(): number {
  try {
    const siblings = cpus().map((_, i) =>
      readFileSync(`/sys/devices/system/cpu/cpu${i}/topology/thread_siblings_list`, "latin1"),
    );
    return Math.min(new Set(siblings).size, availableParallelism());
  } catch {
    return 0; // not Linux, or a Linux that hides them
  }
}
