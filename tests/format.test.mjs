// What format.js writes, run by node (tests/test_web_format.py). Each case is a value and how a person reads it.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../src/negawatt/web/static/format.js";

const CASES = {
  usd: [
    [null, "unknown"], [undefined, "unknown"], ["", "unknown"], [NaN, "unknown"], [0, "$0"], ["0.0000012", "$0.00000120"],
    [0.0421, "$0.0421"], [1, "$1.00"], [12.345, "$12.35"], [-3.5, "−$3.50"], [9999.99, "$9,999.99"], [12345.6, "$12,346"],
    [1e6, "$1.00 M"], ["1000000000000", "$1.00 T"], [1.5e15, "$1.50 Q"],
  ],
  count: [[null, "unknown"], [0, "0"], [999, "999"], [1234, "1,234"], [999999, "999,999"], [1e6, "1.00 M"], [1e15, "1.00 Q"], [-4200, "−4,200"]],
  wh: [[null, "unknown"], [0, "0 Wh"], [0.0004, "0.400 mWh"], [0.93, "930 mWh"], [12.5, "12.5 Wh"], [4200, "4.20 kWh"], [7.2e12, "7.20 TWh"]],
  joules: [[null, "unknown"], [0, "0 J"], [0.0123, "12.3 mJ"], [12.5, "12.5 J"], [1800, "1.80 kJ"], [3600, "1.00 Wh"], [3.6e6, "1.00 kWh"]],
  seconds: [[null, "unknown"], [0, "0 ms"], [0.0000032, "0.0032 ms"], [0.0123, "12.3 ms"], [1, "1.00 s"], [90, "1.50 min"], [5400, "1.50 h"], [172800, "2.00 d"]],
  grams: [[null, "unknown"], [0, "0 g"], [0.004, "4.00 mg"], [12, "12.0 g"], [2500, "2.50 kg"], [3e6, "3.00 t"]],
  percent: [
    [null, "unknown"], [0, "0 %"], [0.0001, "< 0.1 %"], [0.0123, "1.2 %"], [0.41, "41 %"], [0.9921, "99.2 %"],
    [0.99987, "> 99.9 %"], [1, "100 %"], [-0.05, "−5.0 %"], [12.34, "1,234 %"],
  ],
  change: [[null, "unknown"], [0, "0 %"], [0.123, "+12 %"], [-0.041, "−4.1 %"]],
  ago: [[1, "just now"], [12, "12 s ago"], [61, "1 min ago"], [7300, "2 h ago"], [200000, "2 d ago"]],
};

for (const [name, cases] of Object.entries(CASES)) {
  test(`${name} writes figures as people read them`, () => {
    for (const [value, text] of cases) assert.equal(format[name](value), text, `${name}(${value})`);
  });
}

test("an interval tells an open end from a closed one, and none from both", () => {
  assert.equal(format.bounds(1, 2, format.usd), "[$1.00, $2.00]");
  assert.equal(format.bounds(null, 2, format.usd), "[?, $2.00]");
  assert.equal(format.bounds(null, undefined, format.usd), "");
  assert.equal(format.whRange(7.93, 49.5), "7.93–49.5 Wh");
  assert.equal(format.whRange(900, 1200), "0.900–1.20 kWh");
});

test("a moment is written in the zone that was asked for, over a month's end", () => {
  const at = Date.UTC(2026, 9, 31, 23, 30, 5, 7) / 1000;
  assert.equal(new format.Times("UTC").exact(at), "31 Oct 2026 23:30:05.007");
  assert.equal(new format.Times("Asia/Tokyo").moment(at), "1 Nov 08:30");
  assert.equal(new format.Times("America/New_York").clock(at), "19:30");
});
