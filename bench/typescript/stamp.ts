// Who wrote later: a time, a counter and the writer's id, as one text whose order is theirs; and strong entity tags.

let writer: string | undefined;
let last = { millis: 0, count: 0 };

/** A stamp after every one given before. Random values are not to be had before the first request. */
export function nextStamp(): string {
  writer ??= crypto.getRandomValues(new Uint8Array(6)).toHex();
  const now = Date.now();
  last = now > last.millis ? { millis: now, count: 0 } : { millis: last.millis, count: last.count + 1 };
  return `${last.millis.toString(16).padStart(12, "0")}-${last.count.toString(16).padStart(4, "0")}-${writer}`;
}

/** The strong entity tag of a body. */
export async function etag(body: string | Uint8Array): Promise<string> {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const digest = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return `"${new Uint8Array(digest).subarray(0, 16).toBase64({ alphabet: "base64url", omitPadding: true })}"`;
}
