// npm start: from an empty checkout to the Worker answering on http://localhost:8787 (PORT), with local KV.
import { prepare } from "./bundle.mjs";
import { Problem, main } from "./lib.mjs";
import { checkPortIsFree, serve } from "./serve.mjs";

function port() {
  const text = process.env.PORT ?? "8787";
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < 1 || number > 65_535) {
    throw new Problem(`PORT must be a number from 1 to 65535, and is \`${text}\`.`);
  }
  return number;
}

await main(async () => {
  const number = port();
  // At once, and again after the minutes a first build takes.
  await checkPortIsFree(number);
  await prepare();
  const { address, wrangler } = await serve(number);
  console.log(`
Ready on ${address} (Ctrl-C stops it). Create a session:

curl -X POST ${address}/v1/sessions -H 'Authorization: Bearer dev-token' -H 'Content-Type: application/json' -d '{"userId":"alice"}'
`);
  throw new Problem(`wrangler ended (${await wrangler.ended}).`);
});
