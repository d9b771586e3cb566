/** Two small corpora and folders for the tests of the adapters. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

export const corpus: readonly string[] = [
  "The tenant pays for damage by flood unless the landlord was warned in writing.",
  "The landlord insures the roof against storm, fire and flood.",
  "Rent is due on the first day of each month.",
  "The tenant may keep two cats, but no dog.",
  "Repairs below one hundred crowns are paid by the tenant.",
  "The contract ends on the last day of a quarter, after three months of notice.",
];

export const otherCorpus: readonly string[] = [
  "A kernel is loaded by the boot loader and mounts the root file system.",
  "The scheduler gives each thread a slice of time.",
  "Pages that were not used for long are written to the swap file.",
  "A driver registers the interrupts of its device.",
  "The socket buffer holds packets that were not read yet.",
];

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cde-adapters-"));
  folders.push(folder);
  return folder;
}
