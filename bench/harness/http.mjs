// The smallest HTTP/1.1 client that can drive a Worker: keep-alive over a Unix socket, one request at a time per
// connection, every reply read to its end. Node's own client costs as much CPU per request as the Workers it would
// measure, and the two cores of a small machine are shared.

import net from "node:net";

const TIMEOUT_MS = 10_000;
const HEAD_END = Buffer.from("\r\n\r\n");
const LINE_END = Buffer.from("\r\n");

/** The bytes of a request. A `body` of bytes is sent as it is, any other as JSON. */
export function render({ method, path, headers = {}, body }) {
  const raw = body instanceof Uint8Array;
  const payload = raw ? body : Buffer.from(body === undefined ? "" : JSON.stringify(body));
  const type = { "Content-Type": raw ? "application/octet-stream" : "application/json" };
  const all = body === undefined ? headers : { ...type, ...headers, "Content-Length": payload.length };
  const lines = [`${method} ${path} HTTP/1.1`, "Host: bench.invalid", ...Object.entries(all).map(([name, value]) => `${name}: ${value}`)];
  return Buffer.concat([Buffer.from(`${lines.join("\r\n")}\r\n\r\n`), payload]);
}

/** A reply's JSON, or null when it holds something else. */
export function jsonOf(reply) {
  return (headersOf(reply)["content-type"] ?? "").includes("json") ? JSON.parse(reply.body.toString()) : null;
}

function readChunks(bytes, start) {
  const parts = [];
  let at = start;
  for (;;) {
    const lineEnd = bytes.indexOf(LINE_END, at);
    if (lineEnd < 0) return null;
    const size = Number.parseInt(bytes.latin1Slice(at, lineEnd), 16);
    const dataStart = lineEnd + 2;
    if (bytes.length < dataStart + size + 2) return null;
    if (size === 0) return { body: Buffer.concat(parts), end: dataStart + 2 };
    parts.push(bytes.subarray(dataStart, dataStart + size));
    at = dataStart + size + 2;
  }
}

/** The reply at the start of `bytes`, or null when more has to arrive. `end` is where the next one would begin. */
export function readReply(bytes) {
  const headEnd = bytes.indexOf(HEAD_END);
  if (headEnd < 0) return null;
  const head = bytes.latin1Slice(0, headEnd);
  const status = Number.parseInt(head.slice(9, 12), 10);
  const start = headEnd + HEAD_END.length;
  if (status === 204 || status === 304) return { status, head, body: Buffer.alloc(0), end: start };
  const length = /\r\ncontent-length: *(\d+)/i.exec(head);
  if (length === null) {
    const chunked = readChunks(bytes, start);
    return chunked === null ? null : { status, head, ...chunked };
  }
  const end = start + Number.parseInt(length[1], 10);
  return bytes.length < end ? null : { status, head, body: bytes.subarray(start, end), end };
}

/** Names and values of a reply's head, names in lower case. */
export function headersOf(reply) {
  return Object.fromEntries(
    reply.head
      .split("\r\n")
      .slice(1)
      .map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
}

export class Connection {
  #socket;
  #received = Buffer.alloc(0);
  #waiting = null;

  static open(path) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(path);
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(new Connection(socket));
      });
    });
  }

  constructor(socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => this.#receive(chunk));
    // Idle connections time out too; only one that waits for a reply has failed.
    socket.setTimeout(TIMEOUT_MS, () => {
      if (this.#waiting !== null) socket.destroy(new Error(`no reply within ${TIMEOUT_MS} ms`));
    });
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the connection closed before the reply ended")));
  }

  #receive(chunk) {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    const reply = readReply(this.#received);
    if (reply === null || this.#waiting === null) return;
    this.#received = this.#received.subarray(reply.end);
    const { resolve } = this.#waiting;
    this.#waiting = null;
    resolve(reply);
  }

  #fail(error) {
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  /** Sends one rendered request and waits for its whole reply. */
  exchange(bytes) {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) {
        reject(new Error("the connection is closed"));
        return;
      }
      this.#waiting = { resolve, reject };
      this.#socket.write(bytes);
    });
  }

  get isClosed() {
    return this.#socket.destroyed || !this.#socket.writable;
  }

  close() {
    this.#socket.destroy();
  }

  get isOpen() {
    return !this.#socket.destroyed && this.#socket.writable;
  }
}

/** One request on a connection of its own. */
export async function once(path, request) {
  const connection = await Connection.open(path);
  try {
    return await connection.exchange(render(request));
  } finally {
    connection.close();
  }
}

/** Kept-alive connections to one peer. */
export class Pool {
  #path;
  #connections;

  static async open(path, size) {
    return new Pool(path, await Promise.all(Array.from({ length: size }, () => Connection.open(path))));
  }

  constructor(path, connections) {
    this.#path = path;
    this.#connections = connections;
  }

  /**
   * Sends `count` requests, taking `requests` (rendered) in turn, one at a time per connection. Every reply must have
   * `status`: a sample that holds one refusal measures something else, so it is an error.
   */
  async drive({ requests, count, status }) {
    // A peer closes connections that idle for seconds, as they do while another peer prepares its round.
    this.#connections = await Promise.all(this.#connections.map((each) => (each.isOpen ? each : Connection.open(this.#path))));
    let next = 0;
    const worker = async (connection) => {
      while (next < count) {
        const reply = await connection.exchange(requests[next++ % requests.length]);
        if (reply.status !== status) throw new Error(`expected ${status}, got ${reply.status}: ${reply.body.toString().slice(0, 300)}`);
      }
    };
    await Promise.all(this.#connections.map(worker));
  }

  close() {
    for (const connection of this.#connections) connection.close();
  }
}
