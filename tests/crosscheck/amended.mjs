// flagd's JavaScript engine (generation v2) twice for each case: as it is, and with the operators in which it is known to
// differ replaced by JSONLogic's reference behaviour, noting which of them made a difference. A difference from our
// engine is explained only where the second answer is ours and something was noted.
import { createRequire } from "node:module";
import path from "node:path";

const quiet = { error() {}, warn() {}, info() {}, debug() {} };

/** JSONLogic's reference is JavaScript, so its own operators are the oracle. */
const reference = {
  "==": (a, b) => a == b, // eslint-disable-line eqeqeq
  "!=": (a, b) => a != b, // eslint-disable-line eqeqeq
  "<": (a, b, c) => (c === undefined ? a < b : a < b && b < c),
  "<=": (a, b, c) => (c === undefined ? a <= b : a <= b && b <= c),
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  min: (...values) => Math.min(...values),
  max: (...values) => Math.max(...values),
  // A negative length leaves characters off the end of the rest; `String(null)` is "null".
  substr: (text, from, length) => {
    const rest = String(text).substr(from);
    return length === undefined ? rest : rest.substr(0, length < 0 ? rest.length + length : length);
  },
};

/** The name of what makes the engine's result another one than the reference's. */
function nameOf(operator, theirs) {
  if (["min", "max"].includes(operator)) return "min-max-of-no-number";
  if (operator === "substr") return "substr-of-null";
  return theirs.threw ? "comparison-that-throws" : "null-equals-zero";
}

function attempt(run) {
  try {
    return { value: run() };
  } catch {
    return { threw: true };
  }
}

const literal = (value) => (value !== null && typeof value === "object" ? { preserve: value } : value);

/** Replaces the operators of one flag's engine; `noted` collects the names of those that mattered. */
function amend(engine, noted) {
  // Without folding: what an evaluation does not reach cannot fail.
  engine.disableInterpretedOptimization = true;
  for (const [operator, ours] of Object.entries(reference)) {
    const original = engine.methods[operator];
    const call = original.method ?? original;
    engine.addMethod(operator, (values) => {
      const given = original.lazy ? values.map(literal) : values;
      const theirs = attempt(() => call(given, {}, [], engine));
      const expected = ours(...values);
      if (theirs.threw || theirs.value !== expected) noted.add(nameOf(operator, theirs));
      return expected;
    });
  }
  engine.addMethod("cat", (values) => {
    if (values.includes(null)) noted.add("cat-of-missing");
    return values.map(String).join("");
  });
  const { method } = engine.methods.all;
  engine.addMethod("all", {
    lazy: true,
    method: (values, context, above, self) => {
      // Right when interpreted, wrong when compiled.
      if (!Array.isArray(self.run(values[0], context, { above }))) noted.add("all-of-no-list");
      return method(values, context, above, self);
    },
  });
}

/** The answers of both, one line per case. */
export function evaluate(lines, engineFolder) {
  const { FlagdCore } = createRequire(import.meta.url)(path.resolve(engineFolder));
  const noted = new Set();
  let plain;
  let amended;
  const load = (text, options) => {
    const core = new FlagdCore(undefined, quiet, options);
    core.setConfigurations(text);
    return core;
  };
  const answer = (core, key, context) => {
    const { variant, reason, errorCode } = core.resolveStringEvaluation(key, "-", context, quiet);
    return errorCode === undefined ? { variant: variant ?? null, reason } : { error: errorCode };
  };
  return lines.map((line) => {
    const { document, key, context } = JSON.parse(line);
    if (document !== undefined) {
      const { settings: _, ...rest } = document;
      plain = load(JSON.stringify(rest));
      amended = load(JSON.stringify(rest), { disableDynamicCodeGeneration: true });
      for (const flag of amended.getFlags().values()) amend(flag._targeting._engine, noted);
    }
    noted.clear();
    const theirs = answer(plain, key, context);
    const corrected = answer(amended, key, context);
    // The compiler computes what is constant when a flag is loaded, also in branches that are never reached.
    if (theirs.error === "PARSE_ERROR") noted.add("folded-when-loaded");
    return JSON.stringify({ ...theirs, corrected, noted: [...noted].sort() });
  });
}
