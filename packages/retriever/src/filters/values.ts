/** Tests of single payload values: words, instants and places, as Qdrant understands them. */
import type { GeoPoint } from "./types.js";

/** The words of a text: runs of letters and digits in lower case (Qdrant's `word` tokenizer). */
export function words(text: string): string[] {
  return (text.match(/[\p{L}\p{N}]+/gu) ?? []).map((word) => word.toLowerCase());
}

/** True where `phrase` stands in `text` as consecutive words. */
export function holdsPhrase(text: readonly string[], phrase: readonly string[]): boolean {
  if (phrase.length === 0) return false;
  for (let start = 0; start + phrase.length <= text.length; start++) {
    if (phrase.every((word, i) => text[start + i] === word)) return true;
  }
  return false;
}

const INSTANT = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?)?$/i;

/**
 * Milliseconds since 1970 of an ISO 8601 date or date-time, UTC where no zone is given; undefined for anything else.
 * Digits below the millisecond are kept: to a microsecond until the year 2200, coarser after.
 */
export function instant(text: string): number | undefined {
  const parts = INSTANT.exec(text);
  if (parts === null) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1, 7).map((part) => Number(part ?? 0)) as number[];
  const date = new Date(0);
  date.setUTCFullYear(year!, month! - 1, day!); // Date.UTC would read the years 0 to 99 as 1900 to 1999
  if (date.getUTCMonth() !== month! - 1 || date.getUTCDate() !== day) return undefined;
  if (hour! > 23 || minute! > 59 || second! > 59) return undefined;
  const zone = parts[8]?.toUpperCase();
  let offset = 0;
  if (zone !== undefined && zone !== "Z") {
    const digits = zone.slice(1).replace(":", "").padEnd(4, "0");
    if (Number(digits.slice(0, 2)) > 23 || Number(digits.slice(2)) > 59) return undefined;
    offset = (zone[0] === "-" ? -1 : 1) * (Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2)));
  }
  const fraction = Number(`0.${parts[7] ?? "0"}`) * 1000;
  return date.getTime() + (((hour! * 60 + minute! - offset) * 60 + second!) * 1000 + fraction);
}

/** True for a payload value that is a place. */
export function isGeoPoint(value: unknown): value is GeoPoint {
  if (typeof value !== "object" || value === null) return false;
  const { lat, lon } = value as { lat?: unknown; lon?: unknown };
  return Number.isFinite(lat) && Number.isFinite(lon);
}

/** Great-circle distance in metres (haversine on the mean radius of the Earth, IUGG 6,371,008.8 m, as the server). */
export function haversine(a: GeoPoint, b: GeoPoint): number {
  const radians = Math.PI / 180;
  const sinLat = Math.sin(((b.lat - a.lat) * radians) / 2);
  const sinLon = Math.sin(((b.lon - a.lon) * radians) / 2);
  const h = sinLat * sinLat + Math.cos(a.lat * radians) * Math.cos(b.lat * radians) * sinLon * sinLon;
  return 2 * 6_371_008.8 * Math.asin(Math.min(1, Math.sqrt(h)));
}

/** Inside a box whose border does not count. A left edge east of the right one crosses the date line. */
export function inBox(topLeft: GeoPoint, bottomRight: GeoPoint, { lat, lon }: GeoPoint): boolean {
  if (!(bottomRight.lat < lat && lat < topLeft.lat)) return false;
  return topLeft.lon > bottomRight.lon
    ? lon > topLeft.lon || lon < bottomRight.lon
    : topLeft.lon < lon && lon < bottomRight.lon;
}

/** Where a point lies to a closed line, in the plane of longitude and latitude. */
export function inRing(ring: readonly GeoPoint[], { lat, lon }: GeoPoint): "inside" | "outside" | "border" {
  let inside = false;
  for (let i = 1; i < ring.length; i++) {
    const a = ring[i - 1]!;
    const b = ring[i]!;
    const cross = (b.lon - a.lon) * (lat - a.lat) - (b.lat - a.lat) * (lon - a.lon);
    const withinLon = lon >= Math.min(a.lon, b.lon) && lon <= Math.max(a.lon, b.lon);
    if (cross === 0 && withinLon && lat >= Math.min(a.lat, b.lat) && lat <= Math.max(a.lat, b.lat)) return "border";
    // A ray to the east crosses the edge: half-open in latitude, so that a corner counts once.
    if (a.lat > lat !== b.lat > lat && cross > 0 === b.lat > a.lat) inside = !inside;
  }
  return inside ? "inside" : "outside";
}
