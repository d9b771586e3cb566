/** Reads the documents that a command line names: folders of texts, single texts, and JSONL files. */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { CorruptFileError, InvalidInputError, MissingFileError } from "@cde-js/core";
import { readJsonLines } from "@cde-js/core/evaluation";
import type { CorpusDocument, JsonObject } from "@cde-js/retriever";
import { UsageError } from "./command.js";

/** A document and where it stands: a file, or a line of one. */
export interface Source {
  readonly document: CorpusDocument;
  readonly place: string;
}

/** Documents that can be read any number of times. */
export interface Corpus {
  read(): AsyncIterable<Source>;
}

export interface InputsOptions {
  /** Leave out texts that can't be read, and keep their names, instead of raising an error. */
  readonly skipUnreadable?: boolean;
  readonly signal?: AbortSignal;
}

const TEXT = /\.(txt|md)$/i;
const JSONL = /\.jsonl(\.gz)?$/i;

/**
 * The documents of files and folders, in the order given and, in a folder, by path. It can be read any number of times.
 *
 * A folder stands for its .txt and .md files, those of its folders too; their ids are paths from it with "/". Names that
 * begin with a dot are passed over. Links in it are not followed, since they may lead out of it or in a circle.
 */
export class Inputs implements Corpus {
  /** What was left out, by path, and why. */
  readonly skipped: Map<string, string> = new Map();
  readonly #paths: readonly string[];
  readonly #options: InputsOptions;

  /** @throws UsageError for no path. */
  constructor(paths: readonly string[], options: InputsOptions = {}) {
    if (paths.length === 0) throw new UsageError("no folder or file of documents is given.");
    this.#paths = paths;
    this.#options = options;
  }

  /**
   * @throws MissingFileError, InvalidInputError (a file that is no text, an id that was there), CorruptFileError (a line
   * that is no document)
   */
  async *read(): AsyncGenerator<Source> {
    const places = new Map<string, string>();
    for (const path of this.#paths) {
      for await (const source of this.#readPath(path)) {
        this.#options.signal?.throwIfAborted();
        const { id } = source.document;
        const first = places.get(id);
        if (first !== undefined) {
          throw new InvalidInputError(
            `${source.place}: the id ${JSON.stringify(id)} was already at ${first}. Ids are unique; change or remove one.`,
          );
        }
        places.set(id, source.place);
        yield source;
      }
    }
  }

  async *#readPath(path: string): AsyncGenerator<Source> {
    const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
      throw new MissingFileError(path, `there is no file or folder ${path} that can be read (${cause.code}).`, {
        cause,
      });
    });
    if (found.isDirectory()) yield* this.#readFolder(path);
    else if (JSONL.test(path)) yield* this.#readLines(path);
    else if (TEXT.test(path)) yield* this.#readText(path, basename(path));
    else throw new InvalidInputError(`${path} is not a folder and not a .jsonl, .jsonl.gz, .txt or .md file.`);
  }

  async *#readFolder(folder: string): AsyncGenerator<Source> {
    let texts = 0;
    // A stack of what is still to be visited, the next one last.
    const waiting = [folder];
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      if (TEXT.test(path) && path !== folder && !(await stat(path)).isDirectory()) {
        texts++;
        yield* this.#readText(path, relative(folder, path).split(sep).join("/"));
        continue;
      }
      const entries = await readdir(path, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
        this.#skip(path, `can't be listed (${cause.code})`);
        return [];
      });
      const visible = entries.filter(({ name }) => !name.startsWith("."));
      // By code unit, so that the order is the same on every machine.
      visible.sort((a, b) => (a.name < b.name ? 1 : -1));
      for (const entry of visible) {
        const child = join(path, entry.name);
        if (entry.isSymbolicLink()) this.skipped.set(child, "is a symbolic link, which is not followed");
        else if (entry.isDirectory() || (entry.isFile() && TEXT.test(entry.name))) waiting.push(child);
      }
    }
    if (texts === 0) throw new InvalidInputError(`the folder ${folder} holds no .txt or .md file.`);
  }

  async *#readText(path: string, id: string): AsyncGenerator<Source> {
    const { signal } = this.#options;
    let bytes: Buffer;
    try {
      bytes = await readFile(path, signal ? { signal } : {});
    } catch (cause) {
      signal?.throwIfAborted();
      return this.#skip(path, `can't be read (${(cause as NodeJS.ErrnoException).code})`, cause);
    }
    if (bytes.includes(0)) return this.#skip(path, "is a binary file");
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (cause) {
      return this.#skip(path, "is not UTF-8", cause);
    }
    yield { document: { id, text }, place: path };
  }

  async *#readLines(path: string): AsyncGenerator<Source> {
    const { signal } = this.#options;
    for await (const { line, value } of readJsonLines(path, signal ? { signal } : {})) {
      const place = `${path}, line ${line}`;
      const fail = (what: string): never => {
        throw new CorruptFileError(path, `${place}: ${what}`, { line });
      };
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        return fail("not an object { id, text, title?, metadata? }.");
      }
      const fields = value as Readonly<Record<string, unknown>>;
      const { text, title, metadata } = fields;
      const id = fields.id ?? fields._id;
      for (const [name, field] of Object.entries({ id, text, ...(title === undefined ? {} : { title }) })) {
        if (typeof field !== "string") fail(`"${name}" ${field === undefined ? "is missing" : "is not a string"}.`);
        else if (!field.isWellFormed()) fail(`"${name}" has a lone surrogate, which is no character.`);
      }
      if (id === "") fail('"id" is empty.');
      // BEIR writes "" for no title. What else metadata has to be is checked where the index takes it.
      const document = {
        id: id as string,
        text: text as string,
        ...(title === undefined || title === "" ? {} : { title: title as string }),
        ...(metadata === undefined || metadata === null ? {} : { metadata: metadata as JsonObject }),
      };
      yield { document, place };
    }
  }

  #skip(path: string, why: string, cause?: unknown): void {
    if (!this.#options.skipUnreadable) {
      throw new InvalidInputError(`${path} ${why}. Remove it, or pass --skip-unreadable to leave such files out.`, {
        cause,
      });
    }
    this.skipped.set(path, why);
  }
}
