// Shared by every command: running programs, saying what happens, leaving nothing behind.
// No dependencies: this runs under the system's Node 20 before npm has installed anything.
import { spawn, spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** A failure whose message says all there is to say: printed alone, without a stack. */
export class Problem extends Error {}

const packagePrograms = join(root, "node_modules", ".bin");
const inherited = (process.env.PATH ?? "").split(":").filter((folder) => folder !== packagePrograms);
const base = { ...process.env, WRANGLER_SEND_METRICS: "false" };
// rust-toolchain.toml decides; this variable would overrule it.
delete base.RUSTUP_TOOLCHAIN;

/** For programs out of node_modules: their `#!/usr/bin/env node` must find the Node 24 that is installed there. */
export const packageEnv = { ...base, PATH: [packagePrograms, ...inherited].join(":") };
/** For npm, which must not run on the Node it is about to replace, and for everything else. */
export const systemEnv = { ...base, PATH: inherited.join(":") };

export const seconds = (started) => `${((performance.now() - started) / 1000).toFixed(1)} s`;

/** Prints what is about to happen, does it, and prints how long it took and what `work` has to say about it. */
export async function step(title, work) {
  const started = performance.now();
  console.log(`» ${title}`);
  const note = await work();
  console.log(`  ${note ?? "done"} (${seconds(started)})`);
}

/** The output of a short program, or undefined where it is missing or fails. */
export function output(program, args, options = {}) {
  const result = spawnSync(program, args, { cwd: root, env: systemEnv, encoding: "utf8", ...options });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

// Every program leads a process group of its own: wrangler starts workerd, cargo starts rustc, and a group can be
// ended as a whole, also when its leader is already gone.
const groups = new Set();
let stopping = false;

/** Starts a program that shares our terminal. `ended` resolves to its exit code, or to what ended it; `end` asks it to. */
export function start(program, args, { env = systemEnv, stdin = "ignore" } = {}) {
  const child = spawn(program, args, { cwd: root, env, stdio: [stdin, "inherit", "inherit"], detached: true });
  const { pid } = child;
  if (pid !== undefined) groups.add(pid);
  const ended = new Promise((resolve) => {
    child.on("error", (error) => resolve(error.code));
    child.on("exit", (code, signal) => {
      // What it started itself has no reason to live on.
      signalGroup(pid, "SIGKILL");
      groups.delete(pid);
      // While we stop, its end is no news: nobody shall report it or go on to a next step.
      if (!stopping) resolve(code ?? signal);
    });
  });
  return { ended, end: () => signalGroup(pid, "SIGTERM") };
}

/** Runs a program to its end; a Problem when it fails. */
export async function run(program, args, options) {
  const code = await start(program, args, options).ended;
  if (code !== 0) throw new Problem(`\`${[program, ...args].join(" ")}\` failed (${code}).`);
}

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
    return "alive";
  } catch {
    return "gone";
  }
}

/** Asks every group to end, insists after three seconds or when asked twice, and exits. */
async function stop(exitCode) {
  const deadline = performance.now() + (stopping ? 0 : 3000);
  stopping = true;
  for (const pid of groups) signalGroup(pid, "SIGTERM");
  while ([...groups].some((pid) => signalGroup(pid, 0) === "alive") && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  process.exit(exitCode);
}

process.on("exit", () => groups.forEach((pid) => signalGroup(pid, "SIGKILL")));
for (const [signal, exitCode] of [["SIGHUP", 129], ["SIGINT", 130], ["SIGTERM", 143]]) {
  process.on(signal, () => stop(exitCode));
}
// npm killed outright passes nothing on: the sign is that we have another parent.
if (process.env.npm_lifecycle_event !== undefined) {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || stop(143), 500).unref();
}

/** Runs a command's body and turns what it throws into a message and an exit code. */
export async function main(body) {
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    console.error(error instanceof Problem ? `\nerror: ${error.message}` : error);
    process.exitCode = 1;
  }
}
