/** Draws passages of a corpus, the same ones wherever it lies: those whose names come first. */
import { setImmediate as pause } from "node:timers/promises";
import { passageUuid } from "../passage-uuid.js";
import type { DocumentStore } from "../storage/document-store.js";

/** Documents looked at before the event loop gets a turn. */
const SLICE = 1000;

/** Labels of `count` passages, fewer where there are fewer, in the order of their names. A few seconds a million passages. */
export async function drawPassages(documents: DocumentStore, count: number): Promise<Uint32Array> {
  let drawn: { uuid: string; number: number; label: number }[] = [];
  // As they are now; what goes meanwhile isn't drawn.
  const numbers = [...documents.live()];
  for (const [i, number] of numbers.entries()) {
    if (i % SLICE === SLICE - 1) await pause();
    if (!documents.isLive(number)) continue;
    const id = documents.idOf(number);
    const first = documents.firstPassage(number);
    for (let label = first; label < documents.firstPassage(number + 1); label++) {
      const uuid = passageUuid(id, label - first);
      const last = drawn.length < count ? undefined : drawn.at(-1);
      if (last && uuid > last.uuid) continue;
      const at = drawn.findLastIndex((other) => other.uuid < uuid) + 1;
      drawn.splice(at, 0, { uuid, number, label });
      drawn = drawn.slice(0, count);
    }
  }
  return Uint32Array.from(drawn.filter(({ number }) => documents.isLive(number)).map(({ label }) => label));
}
