/** A name for a passage that is the same in every index and on every machine. */
import { hash } from "node:crypto";

/** Of UUIDs made here: a random one, and never another. */
const NAMESPACE = Buffer.from("6f0d3a1c5b7e4c52a9f45de1c0b8e217", "hex");

/**
 * UUIDv5 (RFC 9562) of a document's id and the number of a passage in it. Names are as good as random, so their order is a
 * shuffled corpus: the same one in memory and on a server, where points lie in the order of their ids.
 *
 * @param tenant whose document it is, where several share a collection
 */
export function passageUuid(document: string, passage: number, tenant?: string): string {
  const name = Buffer.from(JSON.stringify([tenant ?? null, document, passage]));
  const hex = hash("sha1", Buffer.concat([NAMESPACE, name]), "hex");
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0b0011) | 0b1000).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
