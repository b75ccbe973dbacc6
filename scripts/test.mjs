// npm test: everything from an empty checkout to a bundle, then every check, also after one has failed.
// `npm test -- --only=vitest,clippy` runs some of them; a name also selects those that extend it (`clippy-wasm`).
import { build, buildContract, weigh } from "./bundle.mjs";
import { Problem, main, packageEnv, run, seconds, systemEnv } from "./lib.mjs";
import { buildPrograms, cargoDeny, checkPrograms, githubAnswers, packages, rust } from "./tools.mjs";

const STRICT = ["--", "-D", "warnings"];
const WASM = ["--lib", "--target", "wasm32-unknown-unknown"];
const docEnv = { ...systemEnv, RUSTDOCFLAGS: "-D warnings" };

const cargo = (args, env = systemEnv) => ({ title: `cargo ${args.join(" ")}`, check: () => run("cargo", args, { env }) });
// `needs`: what the check runs on, beyond Rust itself.
const node = (needs, args) => ({ needs, title: args.join(" "), check: () => run(args[0], args.slice(1), { env: packageEnv }) });

const CHECKS = {
  build: { needs: "bundle", title: "release build of the Worker", check: build },
  size: { needs: "bundle", title: "size of the bundle", check: weigh },
  fmt: cargo(["fmt", "--check"]),
  clippy: cargo(["clippy", "--all-targets", ...STRICT]),
  "clippy-wasm": cargo(["clippy", ...WASM, ...STRICT]),
  doc: cargo(["doc", "--no-deps"], docEnv),
  "doc-wasm": cargo(["doc", "--no-deps", ...WASM], docEnv),
  rust: cargo(["test"]),
  examples: cargo(["build", "--examples"]),
  "examples-own-worker": cargo(["clippy", "--package", "own-worker", "--target", "wasm32-unknown-unknown", ...STRICT]),
  deny: { title: "licences, duplicates and origins of the dependencies: cargo deny", check: () => deny("bans", "licenses", "sources") },
  advisories: { title: "known vulnerabilities of the dependencies: cargo deny", check: advisories },
  types: node("packages", ["tsc", "--noEmit"]),
  "types-bench": node("packages", ["tsc", "--noEmit", "--project", "bench"]),
  vitest: { needs: "bundle", title: "vitest run, over the release build", check: vitest },
  recovery: { needs: "bundle", title: "who waits for what fails or ends", check: () => run("node", ["tests/recovery/run.mjs"], { env: packageEnv }) },
  tour: { needs: "bundle", title: "the README's tour with curl, against wrangler dev", check: () => run("node", ["scripts/tour.mjs"]) },
  deploy: node("bundle", ["wrangler", "deploy", "--dry-run"]),
};

async function vitest() {
  await buildContract();
  await run("vitest", ["run"], { env: packageEnv });
}

/** Returns why it was skipped, where it was. */
async function deny(...lists) {
  const program = await cargoDeny();
  if (program === undefined) return "cargo-deny is not installed; KV_PATTERNS_REQUIRE_DENY=1 installs it, which takes minutes";
  await run(program, ["check", ...lists]);
}

async function advisories() {
  if (!githubAnswers()) return "the advisory database is on github.com, which does not answer";
  return deny("advisories");
}

function selected() {
  const names = Object.keys(CHECKS);
  const [option, ...others] = process.argv.slice(2);
  if (option === undefined) return names;
  const wanted = /^--only=(.+)$/.exec(option)?.[1].split(",");
  if (wanted === undefined || others.length > 0) throw new Problem("The one option is --only=NAME,NAME.");
  const chosen = (name) => wanted.some((want) => name === want || name.startsWith(`${want}-`));
  const unknown = wanted.filter((want) => !names.some((name) => name === want || name.startsWith(`${want}-`)));
  if (unknown.length > 0) throw new Problem(`There is no check ${unknown.join(", ")}; there are ${names.join(", ")}.`);
  const needBundle = names.some((name) => chosen(name) && CHECKS[name].needs === "bundle");
  return names.filter((name) => chosen(name) || (name === "build" && needBundle));
}

async function setUp(names) {
  const needs = new Set(names.map((name) => CHECKS[name].needs));
  checkPrograms();
  await rust();
  if (needs.has("packages") || needs.has("bundle")) await packages();
  if (needs.has("bundle")) await buildPrograms();
}

await main(async () => {
  const names = selected();
  const beginning = performance.now();
  await setUp(names);

  const rows = [];
  const count = { passed: 0, failed: 0, skipped: 0 };
  for (const [index, name] of names.entries()) {
    const { title, check } = CHECKS[name];
    console.log(`\n── ${index + 1}/${names.length} ${name}: ${title}`);
    const started = performance.now();
    let outcome = "passed";
    let reason = "";
    try {
      reason = (await check()) ?? "";
      if (reason) outcome = "skipped";
    } catch (error) {
      outcome = "failed";
      console.error(error instanceof Problem ? error.message : error);
    }
    count[outcome] += 1;
    const row = `${name.padEnd(21)}${outcome.padEnd(9)}${seconds(started).padStart(8)}  ${reason}`.trimEnd();
    rows.push(row);
    console.log(`── ${row}`);
    if (name === "build" && outcome === "failed") {
      rows.push("The checks after the build were not run: they need it.");
      break;
    }
  }
  console.log(`\n${rows.join("\n")}\n${count.skipped} skipped, all in ${seconds(beginning)}\n`);
  console.log(`${count.passed} passed, ${count.failed} failed`);
  return count.failed === 0 ? 0 : 1;
});
