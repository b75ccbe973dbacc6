// What samples become: medians, ratios with their spread, the fairness of a row, and the printed table.

import zlib from "node:zlib";
import { headersOf, jsonOf } from "./http.mjs";

/** Replies of floor may differ in length from the others' by this share (random ids, digits of a clock). */
const FLOOR_LENGTH_TOLERANCE = 0.1;

/** Headers that are part of the job; floor sends none of them. */
const JOB_HEADERS = ["content-type", "x-request-id", "server-timing", "consistency", "cache-control", "etag"];

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Median, smallest and largest of the ratios of two peers, round by round: what both met in a round cancels out. */
export function ratio(samples, over) {
  const ratios = samples.map((micros, round) => micros / over[round]);
  return { median: median(ratios), min: Math.min(...ratios), max: Math.max(...ratios) };
}

/** The names in a JSON value, at every depth: `{"a":[{"b":1}]}` is "{a:[{b:number}]}". */
export function shape(value) {
  if (Array.isArray(value)) return `[${value.length > 0 ? shape(value[0]) : ""}]`;
  if (value === null || typeof value !== "object") return value === null ? "null" : typeof value;
  const members = Object.keys(value)
    .sort()
    .map((name) => `${name}:${shape(value[name])}`);
  return `{${members.join(",")}}`;
}

function bodyShape(reply) {
  const json = jsonOf(reply);
  return json === null ? `${reply.body.length} bytes` : shape(json);
}

/** Whether two peers make the same KV operations, each to within `slack` per request. */
function sameOperations(one, other, slack) {
  return Object.keys(one).every((name) => Math.abs(one[name] - other[name]) <= slack);
}

/**
 * What makes a row's comparison unfair, in sentences; none when it is fair. `peers`: name to `{ reply, operations }`; `slack`:
 * KV operations per request by which they may differ.
 */
export function unfairness(peers, slack = 0) {
  const found = [];
  const names = Object.keys(peers);
  const reference = names.includes("ours") ? "ours" : names.at(-1);
  const expected = peers[reference];
  for (const name of names.filter((other) => other !== reference)) {
    const { reply, operations } = peers[name];
    if (!sameOperations(operations, expected.operations, slack)) {
      found.push(`${name} makes ${describe(operations)}, ${reference} ${describe(expected.operations)}`);
    }
    if (name === "floor") {
      const lengths = [reply.body.length, expected.reply.body.length];
      if (Math.abs(lengths[0] - lengths[1]) > FLOOR_LENGTH_TOLERANCE * Math.max(...lengths)) {
        found.push(`floor answers ${lengths[0]} bytes, ${reference} ${lengths[1]}`);
      }
      continue;
    }
    const shapes = [bodyShape(reply), bodyShape(expected.reply)];
    if (shapes[0] !== shapes[1]) found.push(`${name} answers ${shapes[0]}, ${reference} ${shapes[1]}`);
    for (const header of JOB_HEADERS) {
      const present = [reply, expected.reply].map((each) => headersOf(each)[header] !== undefined);
      if (present[0] !== present[1]) found.push(`${present[0] ? reference : name} lacks the header ${header}`);
    }
  }
  return found;
}

/** KV operations per request, from the counters before and after `requests`; a peer that made none has no counters. */
export function perRequest(before, after, requests) {
  const per = (name) => Math.round((((after?.[name] ?? 0) - (before?.[name] ?? 0)) / requests) * 1000) / 1000;
  return Object.fromEntries(["reads", "writes", "deletes", "lists", "calls"].map((name) => [name, per(name)]));
}

export function describe({ reads, writes, deletes, lists, calls }) {
  return `r=${reads} w=${writes} d=${deletes} l=${lists} in ${calls} calls`;
}

export function sizesOf(files) {
  const sizes = Object.entries(files).map(([name, bytes]) => ({ name, rawBytes: bytes.length, gzipBytes: zlib.gzipSync(bytes, { level: 9 }).length }));
  const total = (field) => sizes.reduce((sum, size) => sum + size[field], 0);
  return { rawBytes: total("rawBytes"), gzipBytes: total("gzipBytes"), files: sizes };
}

/** Aligned columns; the first is text, the rest numbers. */
export function table(header, rows) {
  const cells = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  return cells.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]))).join("  ")).join("\n");
}

export function spread({ median: middle, min, max }) {
  return `${middle.toFixed(2)} (${min.toFixed(2)}..${max.toFixed(2)})`;
}
