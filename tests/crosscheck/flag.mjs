// Compares the flag engine with flagd's own, on random rules and contexts. Not part of the checks: it takes minutes and
// two packages that nothing else needs. In a folder outside the project, `npm install @openfeature/flagd-core@4.0.1`
// (hash generation v2) and `pip install openfeature-flagd-core==2.0.0` (v3); then:
//
//   node tests/crosscheck/flag.mjs generate v2 100000 1 > cases
//   cargo run --example evaluate_flags < cases > ours
//   FLAGD_CORE=<folder>/node_modules/@openfeature/flagd-core node tests/crosscheck/flag.mjs evaluate < cases > theirs
//   node tests/crosscheck/flag.mjs compare cases ours theirs
//
// and for v3 `generate v3 ...`, `python tests/crosscheck/flag.py < cases > theirs`. Ids are ASCII for v2, because that
// package hashes UTF-16 units, and of many scripts for v3.
//
// The engines contradict each other and JSONLogic's reference, so equality is not the goal: every difference must belong
// to a class of `CLASSES` below, proven by evaluating the case once more with the engine's operators amended; otherwise
// `compare` exits 1. With 120,000 cases and seed 1: v2 107,651 equal and 12,349 in a class; v3 118,360 and 1,640.
import { readFileSync } from "node:fs";
import { evaluate as evaluateAll } from "./amended.mjs";

const CASES_PER_DOCUMENT = 50;
const FLAGS = ["f0", "f1", "f2", "f3", "f4"];
const VARIANTS = { a: "a", b: "b", c: "c", true: "t", false: "f" };

/** mulberry32: small, seeded, good enough for test data. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Cases {
  constructor(bucketing, seed) {
    this.bucketing = bucketing;
    this.random = generator(seed);
  }

  below = (bound) => Math.floor(this.random() * bound);
  pick = (items) => items[this.below(items.length)];

  text() {
    const words = ["", "a", "pro", "free", "NZ", "ann@example.com", "1.2.3", "v2.0", "10", "1.5", "user-7", "Pro"];
    return this.pick(this.bucketing === "v3" ? [...words, "ünï", "名前", "😀x", "Ελ", "e\u0301"] : words);
  }

  id() {
    const scripts = this.bucketing === "v3" ? ["u", "ü", "名", "😀", "я"] : ["u", "user-", "x@", "A"];
    return `${this.pick(scripts)}${this.below(1_000_000)}`;
  }

  number = () => this.pick([0, 1, 2, 7, 10, 18, 42, 100, -1, -7, 1.5, 0.25, this.below(1000)]);
  scalar = () => this.pick([() => this.text(), () => this.number(), () => this.random() < 0.5])();

  context() {
    const context = {};
    if (this.random() < 0.95) context.targetingKey = this.id();
    const maybe = (name, value) => this.random() < 0.8 && (context[name] = value());
    maybe("plan", () => this.pick(["pro", "free", "team"]));
    maybe("email", () => `${this.id()}@${this.pick(["example.com", "example.org"])}`);
    maybe("age", this.number);
    maybe("version", () => `${this.below(4)}.${this.below(12)}.${this.below(4)}${this.pick(["", "", "-rc.1", "+b"])}`);
    maybe("tags", () => Array.from({ length: this.below(4) }, () => this.text()));
    maybe("numbers", () => Array.from({ length: this.below(4) }, this.number));
    maybe("nested", () => ({ country: this.pick(["NZ", "DE"]), depth: { level: this.number() } }));
    maybe("flag", () => this.random() < 0.5);
    return context;
  }

  textVar = () => ({ var: this.pick(["plan", "email", "version", "targetingKey", "nested.country", "missing.path"]) });
  numberVar = () => ({ var: this.pick(["age", "nested.depth.level", "numbers.0"]) });
  anyVar = () => ({ var: this.pick(["plan", "email", "age", "version", "flag", "nested.country", "tags.0", "gone", ["gone", "free"]]) });

  arithmetic(depth) {
    if (depth === 0 || this.random() < 0.4) return this.pick([this.number, this.numberVar])();
    const two = () => [this.arithmetic(depth - 1), this.arithmetic(depth - 1)];
    return { [this.pick(["+", "-", "*", "%", "max", "min"])]: two() };
  }

  condition(depth) {
    const inner = () => this.condition(depth - 1);
    const kinds = [
      () => ({ [this.pick(["==", "===", "!=", "!=="])]: [this.anyVar(), this.scalar()] }),
      () => ({ [this.pick(["<", "<=", ">", ">="])]: [this.arithmetic(2), this.arithmetic(1)] }),
      () => ({ [this.pick(["<", "<="])]: [this.number(), this.numberVar(), this.number()] }),
      () => ({ [this.pick(["starts_with", "ends_with"])]: [this.textVar(), this.text()] }),
      () => ({ sem_ver: [{ var: "version" }, this.pick(["=", "!=", "<", "<=", ">", ">=", "^", "~"]), this.pick(["1.2.3", "2.0.0", "v1", "3.11.0-rc.1", "x"])] }),
      () => ({ in: [this.pick([this.textVar, () => this.text()])(), this.pick([{ var: "tags" }, ["pro", "NZ", "1.2.3"], { var: "email" }])] }),
      () => ({ [this.pick(["some", "all", "none"])]: [{ var: this.pick(["tags", "numbers"]) }, { "==": [{ var: "" }, this.scalar()] }] }),
      () => ({ "==": [{ reduce: [{ var: "numbers" }, { "+": [{ var: "current" }, { var: "accumulator" }] }, 0] }, this.number()] }),
      () => ({ "!": { missing: ["plan", "age"] } }),
      () => ({ missing_some: [1, ["plan", "gone"]] }),
      () => ({ "==": [{ substr: [this.textVar(), this.below(3), this.pick([1, 2, -1])] }, this.text()] }),
      () => ({ $ref: this.pick(["isPro", "isAdult"]) }),
      () => ({ "!!": [this.anyVar()] }),
      () => ({ [this.pick(["<", "<=", ">", ">="])]: [this.anyVar(), this.scalar()] }),
      () => ({ [this.pick(["<", "<="])]: [this.scalar(), this.anyVar(), this.pick([this.scalar, this.numberVar])()] }),
      () => ({ "==": [{ cat: [this.textVar(), this.text(), this.numberVar()] }, this.text()] }),
      () => ({ in: [this.scalar(), { merge: [{ var: "tags" }, this.text(), { var: "numbers" }] }] }),
      () => ({ some: [{ filter: [{ var: "numbers" }, { ">": [{ var: "" }, this.number()] }] }, { "<": [{ var: "" }, this.number()] }] }),
      () => ({ in: [this.number(), { map: [{ var: "numbers" }, { "*": [{ var: "" }, 2] }] }] }),
      () => ({ ">": [{ "/": [this.arithmetic(1), this.arithmetic(1)] }, this.number()] }),
    ];
    if (depth > 0) kinds.push(() => ({ and: [inner(), inner()] }), () => ({ or: [inner(), inner()] }), () => ({ "!": [inner()] }));
    return this.pick(kinds)();
  }

  fractional() {
    const weight = () => this.pick([0, 1, 5, 25, 50, 100, 1000, this.below(10_000)]);
    const buckets = ["a", "b", "c"].slice(0, 1 + this.below(3)).map((variant) => (this.random() < 0.2 ? [variant] : [variant, weight()]));
    const by = this.pick([[], [], [{ var: "email" }], [{ cat: [this.text(), { var: "targetingKey" }] }], [{ var: "targetingKey" }]]);
    return { fractional: [...by, ...buckets] };
  }

  result(depth) {
    const kinds = [() => this.pick(["a", "b", "c"]), () => this.fractional(), () => this.condition(0), () => null];
    if (depth > 0) kinds.push(() => this.rule(depth - 1), () => this.rule(depth - 1));
    return this.pick(kinds)();
  }

  rule(depth) {
    if (this.random() < 0.25) return this.fractional();
    const clauses = Array.from({ length: 1 + this.below(2) }, () => [this.condition(2), this.result(depth)]).flat();
    return { if: this.random() < 0.8 ? [...clauses, this.result(depth)] : clauses };
  }

  document() {
    const flag = () => ({ state: "ENABLED", variants: VARIANTS, defaultVariant: this.pick(["a", "b", null]), targeting: this.rule(2) });
    const $evaluators = { isPro: { "==": [{ var: "plan" }, "pro"] }, isAdult: { ">=": [{ var: "age" }, 18] } };
    return { flags: Object.fromEntries(FLAGS.map((key) => [key, flag()])), $evaluators, settings: { bucketing: this.bucketing } };
  }
}

function generate(bucketing, count, seed) {
  const cases = new Cases(bucketing, Number(seed));
  const lines = [];
  for (let index = 0; index < Number(count); index++) {
    const document = index % CASES_PER_DOCUMENT === 0 ? { document: cases.document() } : {};
    lines.push(JSON.stringify({ ...document, key: cases.pick(FLAGS), context: cases.context(), now: 1_767_225_600 }));
  }
  return lines;
}

const linesOf = (file) => readFileSync(file, "utf8").trimEnd().split("\n");

/** Why our answer is another one than an engine's, by the names `amended.mjs` and `flag.py` note. */
const CLASSES = {
  "all-of-no-list": "v2, compiled: `all` of what is no list is true. JSONLogic's reference: false, as v2 itself when interpreted, and v3.",
  "comparison-that-throws": "v2: comparing text with a number that it is not is an error. Reference and v3: false.",
  "null-equals-zero": "v2 and v3: a missing value equals 0 and false. Reference, ECMAScript and flagd's server (Go): it does not.",
  "min-max-of-no-number": "v2: `min` and `max` of what is no number are an error. Reference and v3: a missing value is 0.",
  "substr-of-null": "v2: `substr` of a missing value is an error. Reference and v3: its text is \"null\".",
  "cat-of-missing": "v2: the text of a missing value is \"null\" where a rule is compiled, and nothing where it is interpreted. v3: \"null\".",
  "folded-when-loaded": "v2: a constant part that divides by zero makes the whole flag PARSE_ERROR, reached or not. We evaluate what is reached.",
  "empty-text-is-no-number": "v3: empty text equals neither 0 nor false. Reference and v2: it does.",
  "booleans-are-numbers": "v3: true === 1 and false === 0, also in `in`. Reference and v2: they are not.",
  "remainder-has-the-divisors-sign": "v3: -1 % 2 is 1. Reference and v2: -1, the dividend's sign.",
  "minus-missing-is-unary": "v3: {\"-\": [10, missing]} is -10. Reference and v2: 10.",
  "between-missing-is-open": "v3: {\"<\": [1, 2, missing]} ignores the third. Reference and v2: it is 0.",
  "text-beside-null": "v3: text is compared with the text \"null\". Reference: as numbers.",
};

/** Counts equal answers and named differences, and fails on any other. `SPLIT` is our finer `TARGETING_MATCH`. */
function compare(cases, ours, theirs) {
  const parse = (file) => linesOf(file).map((line) => JSON.parse(line));
  const [inputs, left, right] = [cases, ours, theirs].map(parse);
  if (left.length !== inputs.length || right.length !== inputs.length) throw new Error("the files differ in length");
  const kind = ({ error, reason }) => (error === undefined ? (reason === "SPLIT" ? "TARGETING_MATCH" : reason) : `error ${error}`);
  const same = (a, b) => kind(a) === kind(b) && a.variant === b.variant;
  const named = new Map();
  const unexplained = [];
  let equal = 0;
  let split = 0;
  let document;
  for (const [index, input] of inputs.entries()) {
    document = input.document ?? document;
    const [mine, { corrected, noted, ...other }] = [left[index], right[index]];
    split += mine.reason === "SPLIT" ? 1 : 0;
    const known = noted.length > 0 && noted.every((name) => name in CLASSES);
    if (!same(mine, corrected) || (!same(mine, other) && !known)) {
      unexplained.push(JSON.stringify({ rule: document.flags[input.key].targeting, context: input.context, mine, other, corrected, noted }));
    } else if (same(mine, other)) {
      equal++;
    } else {
      const name = noted.join(" and ");
      named.set(name, (named.get(name) ?? 0) + 1);
    }
  }
  const total = [...named.values()].reduce((sum, count) => sum + count, 0);
  const report = [`${inputs.length} cases (${split} decided by a split): ${equal} equal, ${total} in a named class, ${unexplained.length} unexplained`];
  for (const [name, count] of [...named].sort((a, b) => b[1] - a[1])) report.push(`${String(count).padStart(7)} ${name}`);
  for (const name of new Set([...named.keys()].flatMap((names) => names.split(" and ")))) report.push(`  ${name}: ${CLASSES[name]}`);
  report.push(...unexplained.slice(0, Number(process.env.EXAMPLES ?? 3)));
  if (unexplained.length > 0) process.exitCode = 1;
  return report;
}

const evaluate = () => evaluateAll(linesOf("/dev/stdin"), process.env.FLAGD_CORE);

const commands = { generate, evaluate, compare };
const [command, ...parameters] = process.argv.slice(2);
process.stdout.write(`${commands[command](...parameters).join("\n")}\n`);
