/** Failures of the system as errors of ours. */
import { CdeError } from "@cde-js/core";
import { StorageError } from "../errors.js";

const reasons: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EROFS: "the file system is read-only",
  EACCES: "permission denied",
  EPERM: "not permitted",
};

/** Failures of the system as StorageError; our own errors as they are. */
export async function asStorageErrors<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const errno = (cause as NodeJS.ErrnoException).code;
    if (cause instanceof CdeError || typeof (cause as NodeJS.ErrnoException).syscall !== "string") throw cause;
    const reason = (errno && reasons[errno]) ?? (cause as Error).message;
    throw new StorageError(path, `${path}: ${reason}. What was saved there before is untouched.`, { cause, errno });
  }
}
