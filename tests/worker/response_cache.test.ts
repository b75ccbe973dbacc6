// The HTTP cache in the built Worker: origins, /v1/fetch, the root mount, single flight, streams, faults. The origin is `fetch` itself, replaced.
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { call, cost, fresh, problem } from "./client";

type Origin = (request: Request) => Response | Promise<Response>;

const real = globalThis.fetch;
let seen: Request[] = [];
let origin: Origin;

beforeEach(() => {
  seen = [];
  origin = () => new Response("origin", { headers: { "Cache-Control": "max-age=3600" } });
  globalThis.fetch = async (input, init) => {
    const request = new Request(input as string, init);
    seen.push(request);
    return origin(request);
  };
});

afterEach(() => {
  globalThis.fetch = real;
});

/** An origin of a name nobody has used. */
async function configured(fields: object = {}) {
  const name = fresh("origin");
  const put = await call(`PUT /v1/origins/${name}`, { body: { baseUrl: "https://origin.example/base", ...fields } });
  expect(put.status).toBe(200);
  return name;
}

describe("origins", () => {
  it("are put, read, listed and deleted, per tenant", async () => {
    const name = await configured({ freshSeconds: 5, setCookie: "strip" });
    const read = await call(`GET /v1/origins/${name}`);
    expect(read.body).toMatchObject({ name, baseUrl: "https://origin.example/base", freshSeconds: 5, setCookie: "strip", timeoutSeconds: 30 });
    const { body } = await call("GET /v1/origins?limit=1000");
    expect(body.items.map((item: { name: string }) => item.name)).toContain(name);
    expect(problem(await call(`GET /v1/origins/${name}`, { token: "other-token" }))).toBe("404 not-found");
    expect((await call(`DELETE /v1/origins/${name}`)).status).toBe(204);
    expect(problem(await call(`GET /v1/origins/${name}`))).toBe("404 not-found");
    expect(problem(await call(`GET /v1/fetch/${name}/a`))).toBe("404 not-found");
  });

  it("are public and https", async () => {
    for (const baseUrl of ["http://example.com", "https://127.0.0.1", "https://0x7f.1", "https://[::ffff:10.0.0.1]/", "https://localhost.", "https://169.254.169.254/", "https://metadata.google.internal/", "http://127.0.0.1:9000"]) {
      expect(problem(await call("PUT /v1/origins/bad", { body: { baseUrl } })), baseUrl).toBe("400 invalid-request baseUrl");
    }
    const loopback = { "x-test-env": '{"ALLOW_LOOPBACK_ORIGINS":"1"}' };
    expect((await call(`PUT /v1/origins/${fresh("l")}`, { body: { baseUrl: "http://127.0.0.1:9000" }, headers: loopback })).status).toBe(200);
    expect(problem(await call("PUT /v1/origins/bad", { body: { baseUrl: "http://10.0.0.1" }, headers: loopback }))).toBe("400 invalid-request baseUrl");
  });

  it("name the field that is wrong", async () => {
    for (const [field, value] of [["timeoutSeconds", 0], ["staleSeconds", -1], ["setCookie", "x"], ["earlyRefreshBeta", "1"], ["tags", [""]], ["unknown", 1], ["memorySeconds", 3e9]]) {
      expect(problem(await call("PUT /v1/origins/bad", { body: { baseUrl: "https://example.com", [field as string]: value } }))).toMatch(`400 invalid-request ${field}`);
    }
    expect(problem(await call("PUT /v1/origins/bad", { body: {} }))).toBe("400 invalid-request baseUrl");
  });

  it("need a token with the scope", async () => {
    expect((await call("GET /v1/fetch/x/y", { token: null })).status).toBe(401);
    expect((await call("GET /v1/fetch/x/y", { token: "flags-token" })).status).toBe(403);
    expect((await call("PUT /v1/origins/x", { token: "read-token", body: {} })).status).toBe(403);
  });
});

describe("/v1/fetch", () => {
  it("answers from the origin, then from memory", async () => {
    const name = await configured();
    const miss = await call(`GET /v1/fetch/${name}/a/b?c=d`);
    expect([miss.status, miss.text, miss.headers.get("x-cache"), miss.headers.get("age")]).toEqual([200, "origin", "MISS", null]);
    expect(miss.headers.get("cache-status")).toContain("kv-patterns; fwd=uri-miss; fwd-status=200; stored");
    expect(seen[0]!.url).toBe("https://origin.example/base/a/b?c=d");
    await call(`GET /v1/fetch/${name}/a/b?c=d`);
    const hit = await call(`GET /v1/fetch/${name}/a/b?c=d`);
    expect([hit.text, hit.headers.get("x-cache"), hit.headers.get("age"), cost(hit)]).toEqual(["origin", "HIT", "0", "r=0 w=0 d=0 l=0"]);
    expect(hit.headers.get("cache-status")).toMatch(/^kv-patterns; hit; ttl=3[56]\d\d$/);
    expect(seen.length).toBe(1);
  });

  it("never shows the origin the caller's token", async () => {
    const name = await configured();
    await call(`GET /v1/fetch/${name}/a`);
    expect(seen[0]!.headers.get("authorization")).toBeNull();
    await call(`GET /v1/fetch/${name}/b`, { headers: { "Origin-Authorization": "Basic theirs", "X-Forwarded-Host": "evil", "X-Original-URL": "/admin" } });
    expect([...seen[1]!.headers.keys()].filter((key) => /forwarded|original|origin-/.test(key))).toEqual([]);
    expect(seen[1]!.headers.get("authorization")).toBe("Basic theirs");
    for (const [sent, arrives] of [["__Host-session=secret", null], ["a=b;__Host-session=secret; __Host-session2=c", "a=b; __Host-session2=c"]] as const) {
      await call(`GET /v1/fetch/${name}/${fresh("c")}`, { headers: { Cookie: sent } });
      expect(seen.at(-1)!.headers.get("cookie")).toBe(arrives);
    }
  });

  it("says how large a header section may be", async () => {
    const headers = Object.fromEntries(Array.from({ length: 1025 }, (_, at) => [`x-${at}`, "1"]));
    const got = await call(`GET /v1/fetch/any/a`, { headers });
    expect([problem(got), got.body.detail]).toEqual(["431 headers-too-large", "At most 1024 fields and 128 KiB."]);
  });

  it("says itself what request this was and who may read the answer, also of what is stored", async () => {
    const name = await configured();
    origin = () => new Response("x", { headers: { "Cache-Control": "max-age=60", "X-Request-Id": "theirs", "Access-Control-Allow-Origin": "*" } });
    const headers = { Origin: "https://app.example", "x-test-env": '{"CORS_ORIGINS":"https://app.example"}' };
    for (const id of ["first", "second"]) {
      const got = await call(`GET /v1/fetch/${name}/a`, { headers: { ...headers, "x-request-id": id } });
      expect([got.headers.get("x-request-id"), got.headers.get("access-control-allow-origin")]).toEqual([id, "https://app.example"]);
    }
    expect((await call(`GET /v1/fetch/${name}/a`)).headers.get("access-control-allow-origin")).toBeNull();
  });

  it("answers a browser's preflight itself", async () => {
    const headers = { Origin: "https://app.example", "Access-Control-Request-Method": "GET", "x-test-env": '{"CORS_ORIGINS":"https://app.example"}' };
    const got = await call("OPTIONS /v1/fetch/any/path", { token: null, headers });
    expect([got.status, got.headers.get("access-control-allow-origin"), seen.length]).toEqual([204, "https://app.example", 0]);
  });

  it("takes any method with its body, and invalidates", async () => {
    const name = await configured();
    await call(`GET /v1/fetch/${name}/a`);
    for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"]) {
      origin = async (request) => new Response(`${request.method} ${await request.text()}`);
      const got = await call(`${method} /v1/fetch/${name}/a`, { raw: "body", headers: { "Content-Type": "text/plain" } });
      expect([got.status, got.text, got.headers.get("x-cache")], method).toEqual([200, `${method} body`, "BYPASS"]);
    }
    origin = () => new Response("new");
    expect((await call(`GET /v1/fetch/${name}/a`)).text).toBe("new");
  });

  it("streams while it stores, and stores nothing that broke", async () => {
    const name = await configured();
    const streamed = (end: (controller: ReadableStreamDefaultController) => void) => {
      let chunks = 0;
      return new ReadableStream({
        pull(controller) {
          if (++chunks > 3) return end(controller);
          controller.enqueue(new Uint8Array(100_000).fill(chunks));
        },
      });
    };
    const headers = { "Cache-Control": "max-age=60" };
    origin = () => new Response(streamed((controller) => controller.error(new Error("cut"))), { headers });
    await expect(call(`GET /v1/fetch/${name}/a`)).rejects.toThrow();
    origin = () => new Response(streamed((controller) => controller.close()), { headers });
    const whole = await call(`GET /v1/fetch/${name}/a`);
    expect([whole.text.length, whole.headers.get("x-cache")]).toEqual([300_000, "MISS"]);
    const hit = await call(`GET /v1/fetch/${name}/a`);
    expect([hit.text.length, hit.headers.get("x-cache"), seen.length]).toEqual([300_000, "HIT", 2]);
  });

  it("passes a part of coded content and an empty one as they are", async () => {
    const name = await configured();
    const headers = { "Cache-Control": "max-age=60", "Content-Encoding": "gzip" };
    const bytes = new Uint8Array([0x1f, 0x8b, 8]);
    // The heads alone: who reads the bodies here decodes them, which only the wire would not.
    const head = async (path: string) => {
      const reply = await exports.default.fetch(`https://kv.example/v1/fetch/${name}/${path}`, { headers: { Authorization: "Bearer dev-token", Range: "bytes=0-2" } });
      return [reply.status, reply.headers.get("content-range"), reply.headers.get("x-cache")];
    };
    origin = () => new Response(bytes, { encodeBody: "manual", status: 206, headers: { ...headers, "Content-Range": "bytes 0-2/30" } });
    expect([await head("a"), seen.length]).toEqual([[206, "bytes 0-2/30", "MISS"], 1]);
    origin = () => new Response(null, { encodeBody: "manual", headers: { ...headers, "Content-Length": "0" } });
    for (const word of ["MISS", "HIT"]) expect(await head("b")).toEqual([200, null, word]);
  });

  it("passes what is too large and does not store it", async () => {
    const name = await configured();
    const large = new Uint8Array(8 * 1024 * 1024 + 1);
    origin = () => new Response(large, { headers: { "Cache-Control": "max-age=60" } });
    expect((await call(`GET /v1/fetch/${name}/a`)).text.length).toBe(large.length);
    expect((await call(`GET /v1/fetch/${name}/a`)).headers.get("x-cache")).toBe("MISS");
  });

  it("keeps every Set-Cookie and every status, and follows no redirect", async () => {
    const name = await configured();
    origin = () => {
      const headers = new Headers({ Location: "https://elsewhere.example/", "Cache-Control": "max-age=60" });
      headers.append("Set-Cookie", "a=1");
      headers.append("Set-Cookie", "b=2");
      return new Response(null, { status: 302, headers });
    };
    const got = await call(`GET /v1/fetch/${name}/a`);
    expect([got.status, got.headers.get("location"), got.headers.getSetCookie()]).toEqual([302, "https://elsewhere.example/", ["a=1", "b=2"]]);
    expect((await call(`GET /v1/fetch/${name}/a`)).headers.get("x-cache")).toBe("MISS");
  });

  it("answers whatever KV does", async () => {
    const name = await configured();
    await call(`GET /v1/fetch/${name}/config`);
    for (const faults of ["CACHE.get=down, CACHE.put=down", "CACHE.put=throttled", "CACHE.get=down"]) {
      const got = await call(`GET /v1/fetch/${name}/${fresh("f")}`, { headers: { "x-test-faults": faults } });
      expect([got.status, got.text], faults).toEqual([200, "origin"]);
    }
  });

  it("answers with what is stored when the origin does not, and 502 when nothing is", async () => {
    const name = await configured();
    origin = () => new Response("old", { headers: { "Cache-Control": "max-age=0", ETag: '"a"' } });
    await call(`GET /v1/fetch/${name}/a`);
    for (const failing of [() => Promise.reject(new Error("down")), () => new Response("sorry", { status: 503 })]) {
      origin = failing;
      const got = await call(`GET /v1/fetch/${name}/a`);
      expect([got.status, got.text, got.headers.get("x-cache")]).toEqual([200, "old", "STALE"]);
    }
    origin = () => Promise.reject(new Error("down"));
    expect((await call(`GET /v1/fetch/${name}/b`)).status).toBe(502);
  });

  it("gives up on an origin that is too slow", async () => {
    const name = await configured({ timeoutSeconds: 1 });
    origin = ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    expect((await call(`GET /v1/fetch/${name}/a`)).status).toBe(504);
    // Its head came in time, its body does not.
    const stalled = () => new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array(3)) });
    origin = () => new Response(stalled(), { headers: { "Cache-Control": "max-age=60", "Content-Length": "9" } });
    expect(problem(await call(`GET /v1/fetch/${name}/b`))).toBe("504 origin-timeout");
    expect(seen.filter(({ url }) => url.endsWith("/b")).length).toBe(1);
  });

  it("is purged by tag, prefix and whole", async () => {
    const name = await configured({ tags: ["site"] });
    for (const body of [{ tags: ["site"] }, { prefix: "/a" }, { all: true }]) {
      await call(`GET /v1/fetch/${name}/a/b`);
      expect((await call(`GET /v1/fetch/${name}/a/b`)).headers.get("x-cache")).toBe("HIT");
        const purged = await call(`POST /v1/origins/${name}/purge`, { body });
      expect([purged.status, purged.body, cost(purged)]).toEqual([202, { purged: "logical" }, "r=0 w=1 d=0 l=0"]);
      await new Promise((resolve) => setTimeout(resolve, 2));
      expect((await call(`GET /v1/fetch/${name}/a/b`)).headers.get("x-cache"), JSON.stringify(body)).toBe("MISS");
    }
    expect(problem(await call(`POST /v1/origins/${name}/purge`, { body: {} }))).toBe("400 invalid-request all");
    expect(problem(await call(`POST /v1/origins/${fresh("x")}/purge`, { body: { all: true } }))).toBe("404 not-found");
  });

  it("is purged softly: the old answer once more, and a refresh", async () => {
    const name = await configured({ staleSeconds: 60 });
    await call(`GET /v1/fetch/${name}/a`);
    await new Promise((resolve) => setTimeout(resolve, 2));
    origin = () => new Response("new", { headers: { "Cache-Control": "max-age=3600" } });
    expect(cost(await call(`POST /v1/origins/${name}/purge`, { body: { all: true, soft: true } }))).toBe("r=0 w=1 d=0 l=0");
    const stale = await call(`GET /v1/fetch/${name}/a`);
    expect([stale.text, stale.headers.get("x-cache")]).toEqual(["origin", "STALE"]);
    await vi.waitFor(async () => expect((await call(`GET /v1/fetch/${name}/a`)).text).toBe("new"));
    expect(seen.length).toBe(2);
    expect(problem(await call(`POST /v1/origins/${name}/purge`, { body: { all: true, soft: "x" } }))).toBe("400 invalid-request soft");
  });

  it("caches no path and no page that a deceiver made up", async () => {
    const name = await configured({ freshSeconds: 60 });
    origin = () => new Response("account", { headers: { "Content-Type": "text/html" } });
    for (const path of ["account%2fx.css", "account;x.css", "account%00.css", "a//account", "account/x.css", "account/x.png"]) {
      await call(`GET /v1/fetch/${name}/${path}`);
      expect((await call(`GET /v1/fetch/${name}/${path}`)).headers.get("x-cache"), path).not.toBe("HIT");
    }
  });
});

describe("a purge while the origin is being asked", () => {
  it.each([[{ all: true }], [{ prefix: "a" }], [{ tags: ["t"] }]])("covers what it answers: %j", async (what) => {
    const name = await configured({ tags: ["t"] });
    origin = async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      return new Response("old", { headers: { "Cache-Control": "max-age=60" } });
    };
    const asked = call(`GET /v1/fetch/${name}/a/b`);
    await vi.waitFor(() => expect(seen.length).toBe(1));
    await new Promise((resolve) => setTimeout(resolve, 2));
    expect((await call(`POST /v1/origins/${name}/purge`, { body: what })).status).toBe(202);
    expect((await asked).text).toBe("old");
    origin = () => new Response("new", { headers: { "Cache-Control": "max-age=60" } });
    const after = await call(`GET /v1/fetch/${name}/a/b`);
    expect([after.text, after.headers.get("x-cache")]).toEqual(["new", "MISS"]);
  });
});

describe("what nobody can answer", () => {
  it("is a problem with its cache status", async () => {
    const name = await configured();
    origin = () => {
      throw new Error("down");
    };
    const down = await call(`GET /v1/fetch/${name}/a`);
    expect([problem(down), down.headers.get("cache-status")]).toEqual(["502 origin-unreachable", "kv-patterns; fwd=uri-miss"]);
    const none = await call(`GET /v1/fetch/${name}/b`, { headers: { "cache-control": "only-if-cached" } });
    expect([problem(none), none.headers.get("cache-status")]).toEqual(["504 not-cached", "kv-patterns"]);
  });

  it("is 504 where what is stored must be validated first", async () => {
    const name = await configured();
    for (const control of ["max-age=0, must-revalidate", "max-age=0, proxy-revalidate", "s-maxage=0", "no-cache"]) {
      const path = `/v1/fetch/${name}/${fresh("v")}`;
      origin = () => new Response("old", { headers: { "Cache-Control": control, ETag: '"a"' } });
      await call(`GET ${path}`);
      origin = () => Promise.reject(new Error("down"));
      const down = await call(`GET ${path}`);
      expect([problem(down), down.headers.get("cache-status"), down.headers.get("x-cache")], control).toEqual(["504 not-validated", "kv-patterns; fwd=stale", "MISS"]);
    }
  });
});

describe("what would be shared wrongly", () => {
  it("never reaches the origin, in any spelling", async () => {
    const name = await configured();
    const poison = ["X-Forwarded-Ssl", "X_Forwarded_Host", "X-Forwarded-Url", "X-Forwarded", "Front-End-Https", "X-Url-Scheme", "X-Scheme", "X-HTTP-Path-Override", "X-HTTP-DestinationURL", "X-Rewrite-Path", "X-Envoy-Original-Path", "X-Original-Method", "Method-Override", "X-Original-Forwarded-Host", "X-Proxy-Host", "X-Backend-Host", "Base-Url", "X-Script-Name"];
    await call(`GET /v1/fetch/${name}/a`, { headers: Object.fromEntries([...poison, "X-Forwarded-For", "X-Other"].map((field) => [field, "evil"])) });
    const arrived = [...seen[0]!.headers.keys()];
    expect(arrived.filter((field) => poison.some((each) => each.toLowerCase() === field))).toEqual([]);
    expect(arrived).toEqual(expect.arrayContaining(["x-forwarded-for", "x-other"]));
  });

  it("is no ignored parameter that hides another one", async () => {
    const name = await configured({ ignoredQueryParameters: ["utm"] });
    await call(`GET /v1/fetch/${name}/p?utm=a;x=evil`);
    expect((await call(`GET /v1/fetch/${name}/p`)).headers.get("x-cache")).toBe("MISS");
    expect((await call(`GET /v1/fetch/${name}/p?utm=b`)).headers.get("x-cache")).toBe("HIT");
  });

  it("is no word of another cache", async () => {
    const name = await configured();
    origin = () => new Response("x", { headers: { "Cache-Control": "max-age=60", "X-Cache": "Hit from afar", Consistency: "strong" } });
    for (const word of ["MISS", "HIT"]) {
      const reply = await call(`GET /v1/fetch/${name}/a`);
      expect([reply.headers.get("x-cache"), reply.headers.get("consistency")]).toEqual([word, null]);
    }
  });
});

it("Max-Forwards ends OPTIONS and TRACE here, or counts down", async () => {
  const name = await configured();
  const options = (hops: string) => call(`OPTIONS /v1/fetch/${name}/a`, { headers: { "max-forwards": hops } });
  expect([(await options("0")).status, seen.length]).toEqual([204, 0]);
  await options("3");
  expect(seen[0]!.headers.get("max-forwards")).toBe("2");
  await call(`GET /v1/fetch/${name}/a`, { headers: { "max-forwards": "0" } });
  expect(seen.length).toBe(2);
});

describe("single flight", () => {
  const PATHS = 20;
  const stampede = (name: string) => Array.from({ length: 300 }, (_, at) => call(`GET /v1/fetch/${name}/${at % PATHS}`));
  const later = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis));
  const fresh60 = { headers: { "Cache-Control": "max-age=60" } };
  /** How often the origin was asked for this path before. */
  const before = ({ url }: Request) => seen.filter((other) => other.url === url).length - 1;

  it("asks the origin once for many who come at once", async () => {
    const name = await configured();
    origin = async () => {
      await later(100);
      return new Response("slow", fresh60);
    };
    const all = await Promise.all(stampede(name));
    expect(all.every(({ status, text }) => status === 200 && text === "slow")).toBe(true);
    expect(seen.length).toBe(PATHS);
    expect(all.filter(({ headers }) => headers.get("x-cache") === "MISS").length).toBe(PATHS);
  });

  it("fails nobody when the one who asks fails, and tells all when the origin is down", async () => {
    const name = await configured();
    origin = async (request) => {
      const first = before(request) === 0;
      await later(50);
      if (first) throw new Error("down");
      return new Response("good", fresh60);
    };
    const all = await Promise.all(stampede(name));
    expect(all.every(({ status, text }) => status === 200 && text === "good")).toBe(true);
    expect(seen.length).toBe(2 * PATHS);
    seen = [];
    origin = async () => {
      await later(50);
      throw new Error("down");
    };
    const down = await Promise.all(stampede(await configured()));
    expect(down.every(({ status }) => status === 502)).toBe(true);
    expect(seen.length).toBe(2 * PATHS);
  });

  it("lets everybody ask alone, and read KV, when the answer is for one alone", async () => {
    const name = await configured();
    origin = async () => {
      await later(50);
      return new Response("mine", { headers: { "Cache-Control": "private" } });
    };
    const all = await Promise.all(stampede(name));
    expect(all.every(({ status, text }) => status === 200 && text === "mine")).toBe(true);
    expect(seen.length).toBe(300);
    // RFC 9211 §2.6: they waited, and were not served by what came.
    const followers = all.filter(({ headers }) => headers.get("cache-status")!.includes("collapsed"));
    expect(followers.length).toBeGreaterThan(0);
    expect(followers.every(({ headers }) => headers.get("cache-status")!.includes("collapsed=?0"))).toBe(true);
  });

  it("waits for a stream to end, and needs nobody who reads it", async () => {
    const name = await configured();
    const chunk = new Uint8Array(1024 * 1024).fill(65);
    let enqueued = 0;
    origin = () => {
      const body = new ReadableStream({
        async pull(controller) {
          await later(10);
          if (++enqueued > 5) controller.close();
          else controller.enqueue(chunk);
        },
      });
      return new Response(body, fresh60);
    };
    const leader = await exports.default.fetch(`https://kv.example/v1/fetch/${name}/a`, { headers: { Authorization: "Bearer dev-token" } });
    const reader = leader.body!.getReader();
    await reader.read();
    await reader.cancel();
    const all = await Promise.all(Array.from({ length: 10 }, () => call(`GET /v1/fetch/${name}/a`)));
    expect(all.every(({ status, text }) => status === 200 && text.length === 5 * chunk.length)).toBe(true);
    expect(seen.length).toBe(1);
  });
});

describe("the root origin", () => {
  const root = { "x-test-env": JSON.stringify({ ROOT_ORIGIN: "http://127.0.0.1:9000", ROOT_ORIGIN_POLICY: '{"setCookie":"store"}' }) };
  const plain = { token: null, headers: root };

  it("has every path that is not the Worker's own, with any method and no token", async () => {
    const path = `/${fresh("page")}`;
    for (const method of ["GET", "HEAD", "POST", "PROPFIND", "OPTIONS"]) {
      const got = await call(`${method} ${path}?x=1`, plain);
      expect([got.status, seen.at(-1)!.method, seen.at(-1)!.url], method).toEqual([200, method === "HEAD" ? "GET" : method, `http://127.0.0.1:9000${path}?x=1`]);
      if (method === "HEAD") expect(got.headers.get("x-cache")).toBe("HIT");
    }
    for (const below of ["/health/live", "/openapi.json/x", "/healthz"]) expect((await call(`GET ${below}`, plain)).text).toBe("origin");
    for (const own of ["/health", "/openapi.json", "/v1/nothing", "/ofrep/v1/x"]) {
      const before = seen.length;
      await call(`GET ${own}`, plain);
      expect(seen.length, own).toBe(before);
    }
  });

  it("adds no CORS and changes no header of the origin", async () => {
    origin = () => new Response("x", { headers: { "X-Request-Id": "theirs", Vary: "Foo", "Server-Timing": "db;dur=1", "Access-Control-Allow-Origin": "*" } });
    const got = await call(`GET /${fresh("page")}`, { token: null, headers: { ...root, Origin: "https://browser.example" } });
    expect(got.headers.get("x-request-id")).toBe("theirs");
    expect(got.headers.get("vary")).toBe("Foo");
    expect(got.headers.get("access-control-allow-origin")).toBe("*");
    expect(got.headers.get("server-timing")).toMatch(/^db;dur=1, kv;desc=/);
  });

  it("passes Authorization on, and is off without the variable", async () => {
    await call(`GET /${fresh("page")}`, { token: "user-token", headers: root });
    expect(seen[0]!.headers.get("authorization")).toBe("Bearer user-token");
    expect((await call("GET /page", { token: null })).status).toBe(401);
  });

  it("says what is wrong with its policy", async () => {
    const headers = { "x-test-env": JSON.stringify({ ROOT_ORIGIN: "http://127.0.0.1:9000", ROOT_ORIGIN_POLICY: '{"wrong":1}' }) };
    expect(problem(await call("GET /page", { token: null, headers }))).toBe("503 not-configured");
  });
});

it("writes stored responses to KV under the tenant's own keys", async () => {
  const name = await configured();
  await call(`GET /v1/fetch/${name}/a`);
  // Written after the answer.
  await vi.waitFor(async () => {
    const { keys } = await env.CACHE.list({ prefix: `dev/response/${name}/` });
    expect(keys.length).toBe(1);
  });
});
