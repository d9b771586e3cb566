/** Which repository ids, revisions and file names may become an address and a path on disk. */
import { InvalidInputError } from "../errors.js";
import { HubError } from "./errors.js";

const REPO_PART = /^\w(?:[\w.-]{0,94}\w)?$/;
const REVISION_PART = /^[\w@+#=-][\w.@+#=-]{0,199}$/;
/** Every directory and file that we write has such a name: no "..", ":", "~", space, or leading dot. */
const SAFE_PART = /^\w[\w.-]{0,199}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const UNSAFE_NAME = /[\0-\x1f\x7f\\]|^\/|^[A-Za-z]:|(?:^|\/)\.{0,2}(?:\/|$)/;

export const COMMIT: RegExp = /^[0-9a-f]{40}$/;

/** Throws unless `repoId` is `name` or `organisation/name` as the hub forms them. */
export function checkRepoId(repoId: string): void {
  const parts = repoId.split("/");
  const good = parts.length <= 2 && parts.every((part) => REPO_PART.test(part) && !/--|\.\./.test(part));
  if (good) return;
  throw new InvalidInputError(
    `downloadModel: ${JSON.stringify(repoId)} is not a repository id. Pass "organisation/name" in letters, digits, ".", "_" and single "-".`,
  );
}

/** Throws unless `revision` is a commit, branch or tag whose name can be a file name. */
export function checkRevision(revision: string): void {
  const good = revision.split("/").every((part) => REVISION_PART.test(part) && !part.includes(".."));
  if (good) return;
  throw new InvalidInputError(
    `downloadModel: ${JSON.stringify(revision)} is not a revision. Pass a branch, a tag or a commit of 40 hexadecimal digits.`,
  );
}

/** Throws if a name of the hub's listing would leave the repository; such a listing is not to be trusted at all. */
export function checkListedName(name: string, repoId: string): void {
  if (UNSAFE_NAME.test(name)) throw unsafe(name, repoId);
}

/** Throws unless every part of a name that a file of the repository refers to is plain. */
export function checkReferredName(name: string, repoId: string): void {
  if (!name.split("/").every((part) => SAFE_PART.test(part))) throw unsafe(name, repoId);
}

function unsafe(name: string, repoId: string): HubError {
  return new HubError(
    "HUB_RESPONSE",
    `downloadModel: ${repoId} names the file ${JSON.stringify(name)}, which is not a plain path inside the repository. Nothing was written; don't use this repository.`,
  );
}
