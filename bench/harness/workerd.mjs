// Starts raw workerd processes from generated configurations, and reads their CPU time.
//
// Raw workerd and not `wrangler dev`: no proxy in front, no simulator behind, one process whose CPU is the Worker's.

import { execFileSync, spawn } from "node:child_process";
import { once as event } from "node:events";
import fs from "node:fs";
import path from "node:path";
import workerd from "workerd";

const START_TIMEOUT_MS = 20_000;
const STDERR_CHARS_MAX = 4_000;

/** A string of Cap'n Proto's text format; its escapes are those of C, of which JSON's are a subset here. */
const text = JSON.stringify;

function moduleEntry(name) {
  if (name.endsWith(".wasm")) return `(name = ${text(name)}, wasm = embed ${text(name)})`;
  return `(name = ${text(name)}, esModule = embed ${text(name)})`;
}

function kvService(peer, binding, kvSocket) {
  const header = `(name = "x-kv-namespace", value = ${text(`${peer}/${binding}`)})`;
  return `(name = ${text(`kv-${binding}`)}, external = (address = ${text(`unix:${kvSocket}`)}, http = (injectRequestHeaders = [${header}])))`;
}

function workerService({ modules, compatibilityDate, compatibilityFlags = [], kvBindings = [], texts = {}, durableObjects = [] }) {
  const bindings = [
    ...kvBindings.map((name) => `(name = ${text(name)}, kvNamespace = ${text(`kv-${name}`)})`),
    ...Object.entries(texts).map(([name, value]) => `(name = ${text(name)}, text = ${text(value)})`),
    ...durableObjects.map(({ name, className }) => `(name = ${text(name)}, durableObjectNamespace = ${text(className)})`),
  ];
  const objects = durableObjects.map(({ className }) => `(className = ${text(className)}, uniqueKey = ${text(className)}, enableSql = true)`);
  return `(name = "main", worker = (
      compatibilityDate = ${text(compatibilityDate)},
      compatibilityFlags = [${compatibilityFlags.map(text).join(", ")}],
      modules = [${modules.map(moduleEntry).join(", ")}],
      bindings = [${bindings.join(",\n        ")}],
      durableObjectNamespaces = [${objects.join(", ")}],
      durableObjectStorage = ${objects.length > 0 ? '(localDisk = "objects")' : "(none = void)"}))`;
}

/** Where Durable Objects keep their SQLite files; workerd's in-memory storage has no SQL. */
function diskService(folder) {
  const disk = path.join(folder, "objects");
  fs.mkdirSync(disk, { recursive: true });
  return `(name = "objects", disk = (path = ${text(disk)}, writable = true))`;
}

function configOf(worker, folder, socket, kvSocket) {
  const { v8Flags = [] } = worker;
  const services = [workerService(worker), ...(worker.kvBindings ?? []).map((binding) => kvService(worker.name, binding, kvSocket))];
  // What `fetch` reaches: also an origin on this machine.
  services.push('(name = "internet", network = (allow = ["public", "private", "local"]))');
  if (worker.durableObjects?.length > 0) services.push(diskService(folder));
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    ${services.join(",\n    ")}],
  v8Flags = [${v8Flags.map(text).join(", ")}],
  sockets = [(name = "http", address = ${text(`unix:${socket}`)}, http = (), service = "main")]);
`;
}

/**
 * Writes `worker`'s configuration and modules into `folder`. `worker` is `{ name, files, compatibilityDate, kvBindings,
 * texts, durableObjects, v8Flags }`; the first of `files` (name to bytes) is the main module.
 */
export function prepare(worker, folder, kvSocket) {
  fs.mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of Object.entries(worker.files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), bytes);
  }
  const socket = path.join(folder, "http.sock");
  const config = path.join(folder, "config.capnp");
  fs.writeFileSync(config, configOf({ ...worker, modules: Object.keys(worker.files) }, folder, socket, kvSocket));
  return { name: worker.name, config, socket };
}

/** Starts a prepared Worker and resolves once it listens: `{ name, socket, pid, stop() }`. */
export async function start({ name, config, socket }) {
  fs.rmSync(socket, { force: true });
  // `workerd.default` is the native binary itself: the npm command may be a script, whose pid would be another.
  // `--control-fd=3` makes workerd write a line there for each socket it listens on: no polling, no sleeping.
  const child = spawn(workerd.default, ["serve", "--control-fd=3", config, "config"], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr = (stderr + chunk).slice(-STDERR_CHARS_MAX);
  });
  const exited = event(child, "exit").then(([code]) => {
    throw new Error(`workerd (${name}) ended with code ${code}:\n${stderr}`);
  });
  exited.catch(() => {});
  const stop = async () => {
    process.off("exit", kill);
    kill();
    await exited.catch(() => {});
  };
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`workerd (${name}) did not listen within ${START_TIMEOUT_MS} ms:\n${stderr}`)), START_TIMEOUT_MS);
  });
  try {
    await Promise.race([event(child.stdio[3], "data"), exited, late]);
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return { name, socket, pid: child.pid, stop, stderr: () => stderr };
}

const ticksPerSecond = () => Number.parseInt(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }), 10);
let cachedTicks;

/** CPU time of a process so far, all its threads, user and system, in microseconds (proc_pid_stat(5), fields 14 and 15). */
export function cpuMicros(pid) {
  cachedTicks ??= ticksPerSecond();
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
  // The second field is the command in brackets and may hold blanks: count from its end.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1_000_000) / cachedTicks;
}
