// Runs the README's tour with curl as it stands, against a Worker of its own: every command must succeed, and every curl in
// it get a status below 400, or the one that a comment at its end names (`# 401`); and of `/health` the JSON can be read, also
// through the cache, where it passes as its origin encoded it.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "./bundle.mjs";
import { Problem, main, output, root, run, systemEnv } from "./lib.mjs";
import { freePort, serve } from "./serve.mjs";

const README = "README.md";
const HEADING = "## A tour with curl";
const ORIGIN = "http://localhost:8787";

/** The commands of the tour's `sh` blocks, each with the line of README it starts in. */
function commands(text) {
  const found = [];
  let inTour = false;
  let inBlock = false;
  let open = "";
  for (const [index, line] of text.split("\n").entries()) {
    if (inBlock && line === "```") inBlock = false;
    else if (inBlock) {
      if (open === "") found.push({ line: index + 1, text: "" });
      const command = found.at(-1);
      open = command.text = `${open}${line}`;
      // A quotation or a backslash at the end goes on in the next line: only the shell knows.
      const goesOn = line.endsWith("\\") || spawnSync("bash", ["-n", "-c", open], { env: systemEnv }).status !== 0;
      open = goesOn ? `${open}\n` : "";
    } else if (line.startsWith("## ")) inTour = line === HEADING;
    else if (inTour) inBlock = line === "```sh";
  }
  if (open !== "") throw new Problem(`${README}:${found.at(-1).line}: the command has no end.`);
  return found.filter(({ text }) => text.trim() !== "" && !text.trim().startsWith("#"));
}

/** A shell script of the commands in which `curl` leaves every status in a file, and which stops at the first surprise. */
function script(commands, address, statuses) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const steps = commands.map(({ line, text }) => {
    const expected = /#\s*(\d{3})\s*$/.exec(text)?.[1] ?? "";
    const shows = /\/health\s/.test(`${text}\n`) ? '"status":"ok"' : "";
    const command = `{\n${text.replaceAll(ORIGIN, address)}\n} > "$shown"`;
    return `printf '\\n%s\\n' ${quote(`$ ${text}`)}\n: > "$statuses"\n${command}\nafter $? ${line} "${expected}" ${quote(shows)}`;
  });
  return `set -o pipefail
statuses=${quote(statuses)}
shown=$statuses.shown
curl() { command curl --silent --show-error --max-time 30 --write-out '%{stderr}%{http_code}\\n' "$@" 2>> "$statuses"; }
after() {
  cat "$shown"
  count=$(wc -l < "$statuses")
  all=$((all + count))
  if [ "$1" != 0 ]; then echo; echo "${README}:$2: the command failed ($1): $(cat "$statuses")"; exit 1; fi
  while read -r status; do
    if [ -n "$3" ]; then wanted=$3; else wanted='below 400'; fi
    if [ "$status" = "$3" ] || { [ -z "$3" ] && [ "$status" -ge 100 ] && [ "$status" -lt 400 ]; }; then continue; fi
    echo; echo "${README}:$2: answered $status, not $wanted"; exit 1
  done < "$statuses"
  if [ -n "$4" ] && ! grep -qF "$4" "$shown"; then echo; echo "${README}:$2: the answer does not show $4"; exit 1; fi
}
all=0
${steps.join("\n")}
echo
echo "$all calls of curl went as the tour says"
[ "$all" -gt 0 ]
`;
}

async function tour() {
  if (output("sh", ["-c", "command -v bash && command -v curl"]) === undefined) throw new Problem("The tour needs bash and curl.");
  const found = commands(readFileSync(join(root, README), "utf8"));
  await build();
  const folder = mkdtempSync(join(tmpdir(), "kv-patterns-tour-"));
  try {
    // A store of its own: the tour starts from nothing, and leaves nothing in that of `npm start`.
    const { address, wrangler } = await serve(await freePort(), ["--persist-to", join(folder, "state")]);
    const path = join(folder, "tour.sh");
    writeFileSync(path, script(found, address, join(folder, "statuses")));
    try {
      // Cut short: the contract is one long line.
      await run("bash", ["-c", `set -o pipefail; bash '${path}' | cut -c 1-300`]);
    } finally {
      wrangler.end();
      await wrangler.ended;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

await main(tour);
