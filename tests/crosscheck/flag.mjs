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
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

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

function evaluate() {
  const { FlagdCore } = createRequire(import.meta.url)(path.resolve(process.env.FLAGD_CORE));
  const quiet = { error() {}, warn() {}, info() {}, debug() {} };
  let core;
  return linesOf("/dev/stdin").map((line) => {
    const { document, key, context } = JSON.parse(line);
    if (document !== undefined) {
      core = new FlagdCore(undefined, quiet);
      const { settings: _, ...plain } = document;
      core.setConfigurations(JSON.stringify(plain));
    }
    try {
      const { variant, reason, errorCode } = core.resolveStringEvaluation(key, "-", context, quiet);
      return JSON.stringify(errorCode === undefined ? { variant: variant ?? null, reason } : { error: errorCode });
    } catch (error) {
      return JSON.stringify({ error: error.code ?? "GENERAL" });
    }
  });
}

/** Counts equal answers, and groups the others with an example of each. `SPLIT` is our finer `TARGETING_MATCH`. */
function compare(cases, ours, theirs) {
  const parse = (file) => linesOf(file).map((line) => JSON.parse(line));
  const [inputs, left, right] = [cases, ours, theirs].map(parse);
  if (left.length !== inputs.length || right.length !== inputs.length) throw new Error("the files differ in length");
  const reason = ({ reason }) => (reason === "SPLIT" ? "TARGETING_MATCH" : reason);
  const kind = (answer) => (answer.error === undefined ? reason(answer) : `error ${answer.error}`);
  const counts = { equal: 0, split: 0 };
  const classes = new Map();
  let document;
  for (const [index, input] of inputs.entries()) {
    document = input.document ?? document;
    const [mine, other] = [left[index], right[index]];
    if (mine.reason === "SPLIT") counts.split++;
    if (kind(mine) === kind(other) && mine.variant === other.variant) {
      counts.equal++;
      continue;
    }
    const name = `ours ${kind(mine)}, theirs ${kind(other)}`;
    const example = { rule: document.flags[input.key].targeting, context: input.context, mine, other };
    const group = classes.get(name) ?? { count: 0, examples: [] };
    group.count++;
    if (group.examples.length < Number(process.env.EXAMPLES ?? 1)) group.examples.push(example);
    classes.set(name, group);
  }
  const report = [`${inputs.length} cases, ${counts.equal} equal, ${counts.split} of ours by a split`];
  for (const [name, { count, examples }] of classes) report.push(`${count}: ${name}`, ...examples.map((example) => `  ${JSON.stringify(example)}`));
  return report;
}

const commands = { generate, evaluate, compare };
const [command, ...parameters] = process.argv.slice(2);
process.stdout.write(`${commands[command](...parameters).join("\n")}\n`);
