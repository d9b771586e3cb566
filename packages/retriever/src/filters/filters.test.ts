/** Filters against Qdrant's golden answers, a naive evaluator that shares no code, and the errors of bad ones. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { filters } from "./build.js";
import { compileFilter } from "./compile.js";
import { type Filter, type FilterPoint, InvalidFilterError } from "./types.js";

interface Golden {
  points: { id: string | number; payload: Record<string, unknown>; vector: Record<string, unknown> }[];
  filters: { name: string; filter: Filter; ids: (string | number)[] }[];
}
const golden = JSON.parse(
  readFileSync(new URL("../../../../test/parity/golden/qdrant/qdrant.json", import.meta.url), "utf8"),
) as Golden;
const points: FilterPoint[] = golden.points.map(({ id, payload, vector }) => ({
  id,
  payload,
  vectorNames: Object.keys(vector),
}));

function kept(filter: Filter, among: readonly FilterPoint[] = points): (string | number)[] {
  return among.filter(compileFilter(filter)).map(({ id }) => id);
}

function holds(filter: Filter, payload: Record<string, unknown>): boolean {
  return compileFilter(filter)({ id: "p", payload });
}

describe("golden answers of Qdrant", () => {
  test.each(golden.filters)("keeps the points that Qdrant keeps: $name", ({ filter, ids }) => {
    expect(kept(filter).map(String).sort()).toEqual(ids.map(String).sort());
  });

  test("has 32 filters or more, and their answers differ", () => {
    expect(golden.filters.length).toBeGreaterThanOrEqual(32);
    expect(new Set(golden.filters.map(({ ids }) => JSON.stringify(ids))).size).toBeGreaterThan(20);
  });
});

describe("operators that the golden file lacks", () => {
  const place = (lat: number, lon: number) => ({ place: { lat, lon } });

  test("geo_bounding_box leaves out its border and can cross the date line", () => {
    const box = filters.geoBoundingBox("place", { lat: 10, lon: 170 }, { lat: -10, lon: -170 });
    expect(
      [place(0, 175), place(0, -175), place(0, 160), place(10, 175), place(0, 170)].map((p) => holds(box, p)),
    ).toEqual([true, true, false, false, false]);
  });

  test("geo_radius measures metres along the surface", () => {
    // Berlin to Potsdam: 26.4 km by the haversine formula.
    const berlin = { lat: 52.52, lon: 13.405 };
    const potsdam = place(52.3906, 13.0645);
    expect(holds(filters.geoRadius("place", berlin, 28_000), potsdam)).toBe(true);
    expect(holds(filters.geoRadius("place", berlin, 26_000), potsdam)).toBe(false);
    // One degree of latitude is π/180 · 6,371,008.8 m = 111,195.08 m; the border itself is outside.
    expect(holds(filters.geoRadius("place", { lat: 0, lon: 0 }, 111_195.2), place(1, 0))).toBe(true);
    expect(holds(filters.geoRadius("place", { lat: 0, lon: 0 }, 111_195), place(1, 0))).toBe(false);
    // A circle without extent is all border.
    expect(holds(filters.geoRadius("place", { lat: 1, lon: 2 }, 0), place(1, 2))).toBe(false);
    expect(holds(filters.geoRadius("place", { lat: 1, lon: 2 }, 1e-3), place(1, 2))).toBe(true);
  });

  test("geo_polygon leaves out its holes and its border", () => {
    const square = (size: number) => ({
      points: [
        [0, 0],
        [0, size],
        [size, size],
        [size, 0],
        [0, 0],
      ].map(([lat, lon]) => ({ lat: lat!, lon: lon! })),
    });
    const ring = filters.geoPolygon("place", square(10), [square(4)]);
    expect([place(5, 5), place(2, 2), place(11, 5), place(0, 5), place(4, 2)].map((p) => holds(ring, p))).toEqual([
      true,
      false,
      false,
      false,
      false,
    ]);
  });

  test("geo_polygon counts a corner on the way once", () => {
    const corners = [
      [0, -2],
      [2, 0],
      [0, 2],
      [-2, 0],
      [0, -2],
    ].map(([lat, lon]) => ({ lat: lat!, lon: lon! }));
    const diamond = filters.geoPolygon("place", { points: corners });
    // Due east of (0, 0) lies one corner, due east of (0, -3) two, due east of (2, -1) the top alone.
    expect([place(0, 0), place(0, -3), place(2, -1)].map((p) => holds(diamond, p))).toEqual([true, false, false]);
  });

  test("has_vector asks for the point's vectors", () => {
    expect(kept(filters.hasVector("bm25"))).toHaveLength(40);
    expect(kept(filters.hasVector("other"))).toEqual([]);
  });

  test("text wants every word, text_any one, phrase all in a row; words are whole and of either case", () => {
    const payload = { t: "The quick brown fox, Goodness!" };
    const answers = [
      filters.text("t", "FOX quick"),
      filters.text("t", "good"),
      filters.textAny("t", "good fox"),
      filters.phrase("t", "Brown fox goodness"),
      filters.phrase("t", "quick fox"),
      filters.text("t", "!?"),
      filters.prefix("t", "The q"),
      filters.prefix("t", "the"),
    ].map((filter) => holds(filter, payload));
    expect(answers).toEqual([true, false, true, true, false, false, true, false]);
  });

  test("dates are compared as instants, with zones and fractions", () => {
    const since = filters.range("at", { gte: "2020-01-01T00:00:00+02:00" });
    const answers = [
      "2019-12-31T22:00:00Z",
      "2019-12-31T21:59:59.999999Z",
      "2019-12-31 23:00",
      "2020-01-01",
      "soon",
      5,
      null,
    ];
    expect(answers.map((at) => holds(since, { at }))).toEqual([true, false, true, true, false, false, false]);
  });

  test("paths reach quoted keys, positions and only own properties", () => {
    const payload = { "a key": { b: [1, 2] } };
    expect(holds(filters.match('"a key".b[1]', 2), payload)).toBe(true);
    expect(holds(filters.match('"a key".b[0]', 2), payload)).toBe(false);
    expect(holds(filters.isEmpty("constructor"), {})).toBe(true);
    expect(holds(filters.match("b.c", 1), { b: [{ c: 1 }] })).toBe(false); // without [] an array is not entered
  });

  test("null clauses and an empty should ask for nothing; a condition may stand without its list", () => {
    expect(kept({ must: null, should: [], must_not: [] })).toHaveLength(40);
    expect(kept({ must: { key: "year", match: { value: 2001 } } })).toEqual([11]);
  });
});

describe("the builder", () => {
  test("writes flat JSON", () => {
    const built = filters.and(filters.match("source", "manual"), filters.not(filters.range("year", { lt: 2000 })));
    expect(built).toEqual({
      must: [{ key: "source", match: { value: "manual" } }, { must_not: [{ key: "year", range: { lt: 2000 } }] }],
    });
  });

  test("or of nothing holds for nothing, and of nothing for everything", () => {
    expect(kept(filters.or())).toEqual([]);
    expect(kept(filters.and())).toHaveLength(40);
  });

  test("agrees with the JSON of the golden file", () => {
    const nested = golden.filters.find(({ name }) => name.startsWith("nested object"))!;
    const built = filters.nested(
      "cited.by",
      filters.and(filters.match("court", "supreme"), filters.range("year", { gte: 2004 })),
    );
    expect(built).toEqual(nested.filter);
    const least = golden.filters.find(({ name }) => name === "min_should")!;
    const parts = [filters.match("open", true), filters.range("year", { gt: 2010 }), filters.match("tags", "labor")];
    expect(filters.atLeast(2, ...parts)).toEqual(least.filter);
  });
});

describe("bad filters", () => {
  const cases: [what: string, filter: unknown, message: RegExp][] = [
    ["an unknown clause", { musts: [] }, /unknown key "musts"; allowed: must, should, must_not, min_should/],
    [
      "an unknown operator",
      { must: [{ key: "k", matches: { value: 1 } }] },
      /must\[0\] has the unknown key "matches"; allowed: key, match/,
    ],
    ["two operators", { must: [{ key: "k", match: { value: 1 }, range: { gt: 1 } }] }, /exactly one of/],
    ["no operator", { must: [{ key: "k" }] }, /has none/],
    ["an unknown condition", { must: [{ slice: { index: 0, total: 2 } }] }, /"slice"/],
    ["an unknown match", { must: [{ key: "k", match: { like: "x" } }] }, /must\[0\]\.match has the unknown key "like"/],
    ["a fraction as a match", { must: [{ key: "k", match: { value: 1.5 } }] }, /compare fractions by range/],
    [
      "mixed lists",
      { must: [{ key: "k", match: { any: ["a", 1] } }] },
      /array of strings or an array of whole numbers/,
    ],
    ["a range of text", { must: [{ key: "k", range: { gt: "soon" } }] }, /range\.gt must be an ISO 8601 date/],
    ["a mixed range", { must: [{ key: "k", range: { gt: "2020-01-01", lt: 5 } }] }, /range\.lt must be/],
    ["a range without bounds", { must: [{ key: "k", range: {} }] }, /has no bound/],
    ["a range of NaN", { must: [{ key: "k", range: { gt: Number.NaN } }] }, /got NaN/],
    ["a bad path", { must: [{ key: "a b", match: { value: 1 } }] }, /is no payload path: "a b"/],
    ["a bad path", { must: [{ key: "a..b", match: { value: 1 } }] }, /is no payload path/],
    ["an empty path", { must: [{ key: "", match: { value: 1 } }] }, /empty payload path/],
    [
      "min_count of 0",
      { min_should: { conditions: [], min_count: 0 } },
      /min_should\.min_count must be a whole number from 1, got 0/,
    ],
    [
      "has_id inside nested",
      { must: [{ nested: { key: "a", filter: { must: [{ has_id: [1] }] } } }] },
      /Move it beside nested/,
    ],
    ["a negative id", { must: [{ has_id: [-1] }] }, /has_id\[0\] must be a string or a whole number from 0, got -1/],
    [
      "an open polygon",
      { must: [{ key: "p", geo_polygon: { exterior: { points: [{ lat: 0, lon: 0 }] } } }] },
      /closed line/,
    ],
    [
      "a latitude of 91",
      { must: [{ key: "p", geo_radius: { center: { lat: 91, lon: 0 }, radius: 1 } }] },
      /from -90 to 90, got 91/,
    ],
    ["a list", [], /must be an object/],
    ["a string", "x", /must be an object/],
    ["a null condition", { must: [null] }, /must\[0\] must be a condition/],
  ];
  test.each(cases)("refuses %s and says what is allowed", (_what, filter, message) => {
    expect(() => compileFilter(filter as Filter)).toThrow(InvalidFilterError);
    expect(() => compileFilter(filter as Filter)).toThrow(message);
  });

  test("refuses a filter nested without end instead of overflowing the stack", () => {
    let deep: Filter = {};
    for (let i = 0; i < 100_000; i++) deep = { must: [deep] };
    expect(() => compileFilter(deep)).toThrow(/deeper than 64/);
  });
});

/** Written from Qdrant's documentation, without a line of the product: interprets the JSON anew for every point. */
function naive(filter: unknown, point: FilterPoint): boolean {
  const failing = (name: string, wanted: boolean): number =>
    list(get(filter, name)).filter((c) => naiveCondition(c, point) !== wanted).length;
  const should = list(get(filter, "should"));
  const least = get(filter, "min_should");
  const held = list(get(least, "conditions")).filter((c) => naiveCondition(c, point)).length;
  return (
    failing("must", true) === 0 &&
    (should.length === 0 || failing("should", true) < should.length) &&
    failing("must_not", false) === 0 &&
    (least === undefined || held >= Number(get(least, "min_count")))
  );
}

function naiveCondition(c: unknown, point: FilterPoint): boolean {
  const ids = get(c, "has_id");
  if (ids !== undefined) return list(ids).indexOf(point.id) >= 0;
  const vector = get(c, "has_vector");
  if (vector !== undefined) return (point.vectorNames ?? []).indexOf(String(vector)) >= 0;
  const nested = get(c, "nested");
  if (nested !== undefined) {
    const arrays = naiveValues(point.payload, String(get(nested, "key")).replace(/\[\]$/, "")).filter(Array.isArray);
    return arrays.flat().some((e) => isRecord(e) && naive(get(nested, "filter"), { id: "", payload: e }));
  }
  const [isEmpty, isNull] = [get(c, "is_empty"), get(c, "is_null")];
  const key = get(c, "key") ?? get(isEmpty ?? isNull, "key");
  if (key === undefined) return naive(c, point);
  const found = naiveValues(point.payload, String(key));
  const flat = found.flatMap((v) => (Array.isArray(v) ? v : [v])) as unknown[];
  if (isEmpty !== undefined)
    return found.every((v) => v === null || JSON.stringify(v) === "[]") === (isEmpty !== false);
  if (isNull !== undefined) return flat.indexOf(null) >= 0 === (isNull !== false);
  const counts = get(c, "values_count");
  if (counts !== undefined) {
    const sizes = found.map((v) => (v === null ? 0 : Array.isArray(v) ? v.length : 1));
    return (sizes.length === 0 ? [0] : sizes).some((n) => naiveWithin(n, counts));
  }
  const range = get(c, "range");
  if (range !== undefined) return flat.some((v) => typeof v === "number" && naiveWithin(v, range));
  return flat.some((v) => naiveMatch(v, get(c, "match")));
}

function naiveWithin(n: number, bounds: unknown): boolean {
  const broken: Record<string, (bound: number) => boolean> = {
    gt: (x) => n <= x,
    gte: (x) => n < x,
    lt: (x) => n >= x,
    lte: (x) => n > x,
  };
  return Object.keys(broken).every(
    (name) => get(bounds, name) === undefined || !broken[name]!(Number(get(bounds, name))),
  );
}

function naiveMatch(v: unknown, match: unknown): boolean {
  const [kind, wanted] = Object.entries(match as object)[0] as [string, unknown];
  if (kind === "value") return v === wanted;
  if (kind === "any") return list(wanted).indexOf(v) >= 0;
  if (kind === "except") return v !== null && list(wanted).indexOf(v) < 0;
  if (typeof v !== "string") return false;
  if (kind === "prefix") return v.slice(0, String(wanted).length) === wanted;
  const tokens = (text: string): string[] =>
    text
      .toLowerCase()
      .split(/[^a-z0-9]+/)
      .filter((w) => w !== "");
  const sought = tokens(String(wanted));
  if (sought.length === 0) return false;
  if (kind === "phrase") return ` ${tokens(v).join(" ")} `.indexOf(` ${sought.join(" ")} `) >= 0;
  const present = sought.filter((w) => tokens(v).indexOf(w) >= 0).length;
  return kind === "text" ? present === sought.length : present > 0;
}

function naiveValues(payload: unknown, key: string): unknown[] {
  let values: unknown[] = [payload];
  for (const part of key.split(".")) {
    const [, name, every] = /^(\w+)(\[\])?$/.exec(part) as RegExpExecArray;
    values = values.map((v) => get(v, name!)).filter((v) => v !== undefined);
    if (every) values = values.filter(Array.isArray).flat();
  }
  return values;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function get(value: unknown, key: string): unknown {
  return isRecord(value) ? value[key] : undefined;
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : value == null ? [] : [value];
}

describe("against a naive evaluator", () => {
  const word = fc.constantFrom("a", "b", "a b", "B c a", "");
  const scalar = fc.oneof(
    word,
    fc.integer({ min: 0, max: 3 }),
    fc.constantFrom(0.5, 2.5),
    fc.boolean(),
    fc.constant(null),
  );
  const element = fc.oneof(
    scalar,
    fc.record({ x: scalar, y: fc.oneof(scalar, fc.array(scalar, { maxLength: 2 })) }, { requiredKeys: [] }),
  );
  const value = fc.oneof(
    scalar,
    fc.array(element, { maxLength: 3 }),
    fc.record({ x: scalar, y: fc.array(element, { maxLength: 2 }) }, { requiredKeys: [] }),
  );
  const payload = fc.record({ p: value, q: value, r: value }, { requiredKeys: [] });
  const key = fc.constantFrom("p", "q", "r", "p.x", "q.y", "p[]", "p[].x", "q[].y", "q.y[].x", "r.y[]");
  const number = fc.constantFrom(0, 1, 2, 2.5);
  const count = fc.constantFrom(0, 1, 2);
  const boundsOf = (n: fc.Arbitrary<number>) =>
    fc.record({ gt: n, gte: n, lt: n, lte: n }, { requiredKeys: [] }).filter((b) => Object.keys(b).length > 0);
  const list = fc.oneof(fc.array(word, { maxLength: 2 }), fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 2 }));
  const match = fc.oneof(
    fc.record({ value: fc.oneof(word, fc.integer({ min: 0, max: 3 }), fc.boolean()) }),
    fc.record({ any: list }),
    fc.record({ except: list }),
    fc.record({ text: word }),
    fc.record({ text_any: word }),
    fc.record({ phrase: word }),
    fc.record({ prefix: word }),
  );
  const { filter, field } = fc.letrec<{ filter: Filter; condition: Filter; field: Filter }>((tie) => ({
    field: fc.oneof(
      fc.record({ key, match }),
      fc.record({ key, range: boundsOf(number) }),
      fc.record({ key, values_count: boundsOf(count) }),
      fc.record({ key, is_empty: fc.boolean() }),
      fc.record({ key, is_null: fc.boolean() }),
      fc.record({ is_empty: fc.record({ key }) }),
      fc.record({ is_null: fc.record({ key }) }),
      fc.record({ has_id: fc.subarray(["p0", "p1", 2]) }),
      fc.record({ has_vector: fc.constantFrom("v", "w") }),
    ) as fc.Arbitrary<Filter>,
    condition: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      tie("field"),
      tie("filter"),
      fc.record({
        nested: fc.record({
          key: fc.constantFrom("p", "q[]", "q.y"),
          filter: fc.record({ must: fc.array(fc.record({ key: fc.constantFrom("x", "y"), match }), { maxLength: 2 }) }),
        }),
      }) as unknown as fc.Arbitrary<Filter>,
    ),
    filter: fc.record(
      {
        must: fc.array(tie("condition"), { maxLength: 2 }),
        should: fc.array(tie("condition"), { maxLength: 2 }),
        must_not: fc.array(tie("condition"), { maxLength: 2 }),
        min_should: fc.record({
          conditions: fc.array(tie("condition"), { maxLength: 3 }),
          min_count: fc.integer({ min: 1, max: 2 }),
        }),
      },
      { requiredKeys: [] },
    ) as fc.Arbitrary<Filter>,
  }));

  // Whole filters seldom hold; disjunctions and negations of single conditions often do.
  const any = fc.oneof(
    filter,
    fc.array(field, { minLength: 2, maxLength: 4 }).map((should): Filter => ({ should })),
    field.map((condition): Filter => ({ must_not: [condition] })),
  );

  test("gives the same answer for generated filters and payloads", () => {
    let [yes, no] = [0, 0];
    fc.assert(
      fc.property(any, fc.array(payload, { minLength: 1, maxLength: 4 }), (f, payloads) => {
        const compiled = compileFilter(f);
        payloads.forEach((p, i) => {
          const point: FilterPoint = {
            id: i === 2 ? 2 : `p${i}`,
            payload: p as Record<string, unknown>,
            vectorNames: i % 2 ? ["v"] : [],
          };
          const answer = naive(f, point);
          if (answer) yes++;
          else no++;
          expect(compiled(point), JSON.stringify({ f, point })).toBe(answer);
        });
      }),
      { seed: 7, numRuns: 2000 },
    );
    // Neither answer is rare, else equality would say little.
    expect(Math.min(yes, no)).toBeGreaterThan(500);
  });
});
