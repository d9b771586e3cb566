import { expect, test } from "vitest";
import { curveOf, type Point } from "./curves.js";

const numbers = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, value]) => Number(value));

test("points stand where their values say, from the bottom left", () => {
  const points = [0, 5, 10].map((step): Point => ({ step, value: step / 10 }));
  const { text } = curveOf({ label: "dev", points, level: { label: "before", value: 0.5 } })!;
  // 360 wide from 58, 170 high from 12: steps 0, 5 and 10 of 10, values 0, 0.5 and 1 of 1.
  expect(/<polyline class="curve" points="([^"]+)"/.exec(text)![1]).toBe("58,182 238,97 418,12");
  expect(/class="zero"[^>]*y1="([\d.]+)"/.exec(text)![1]).toBe("97");
  expect(text).toContain(">before</text>");
});

test("a curve of one point, or of equal ones, has axes that don't divide by zero", () => {
  for (const points of [[{ step: 3, value: 0.25 }], [0, 1].map((step) => ({ step, value: 0 }))]) {
    const { text } = curveOf({ label: "x", points })!;
    expect(text).not.toMatch(/NaN|Infinity/);
  }
  expect(curveOf({ label: "x", points: [] })).toBeUndefined();
  expect(curveOf({ label: "x", points: [{ step: 1, value: Number.NaN }] })).toBeUndefined();
});

test("many points are averaged in groups, and smoothed ones lie between their neighbours", () => {
  const points = Array.from({ length: 10_000 }, (_, i): Point => ({ step: i + 1, value: i % 2 }));
  const { text } = curveOf({ label: "loss", points, smooth: true })!;
  const lines = [...text.matchAll(/points="([^"]+)"/g)].map(([, line]) => line!.split(" "));
  expect(lines).toHaveLength(2);
  for (const line of lines) expect(line).toHaveLength(400);
  // Each group of 25 has 12 or 13 ones.
  const heights = numbers(lines[1]!.join(" "), /,([\d.]+)/g);
  expect(Math.max(...heights) - Math.min(...heights)).toBeLessThan(60);
});

test("labels are escaped", () => {
  expect(curveOf({ label: "<b>", points: [{ step: 1, value: 1 }] })!.text).toContain('aria-label="&lt;b&gt; by step"');
});
