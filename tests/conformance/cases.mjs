// The cases of run.mjs: RFC 9111, 9110 (conditions, ranges), 5861, 9213, one short script each.
//
// `origin` is what the origin answers if it is asked; `cached: true` means that it must not be, `false` that it must.

const FRESH = [["Cache-Control", "max-age=3600"]];
const tag = '"abc"';
const cases = [];
const add = (name, ...requests) => cases.push({ name, requests });
const get = (headers, expect, more = {}) => ({ origin: { headers }, expect, ...more });

/** The response is reused for a second request, or is not. */
function reuse(name, headers, reused, { status, pause = 2, first = {}, second = {}, noDate } = {}) {
  add(
    `${reused ? "reuses" : "does not reuse"} ${name}`,
    { origin: { headers, status, noDate }, expect: { status: status ?? 200 }, ...first },
    { origin: { headers: [], status: 200 }, expect: { cached: reused }, pause, ...second },
  );
}

// Freshness
reuse("max-age", FRESH, true);
reuse("max-age that is over", [["Cache-Control", "max-age=2"]], false, { pause: 4 });
reuse("max-age with Age within", [["Cache-Control", "max-age=3600"], ["Age", "1800"]], true);
reuse("max-age with Age beyond", [["Cache-Control", "max-age=3600"], ["Age", "12000"]], false);
reuse("max-age=0", [["Cache-Control", "max-age=0"]], false);
reuse("s-maxage over max-age", [["Cache-Control", "max-age=0, s-maxage=3600"]], true);
reuse("short s-maxage over max-age", [["Cache-Control", "s-maxage=1, max-age=3600"]], false, { pause: 3 });
reuse("Expires in the future", [["Expires", 3600]], true);
reuse("Expires in the past", [["Expires", -3600]], false);
reuse("Expires now", [["Expires", 0]], false);
reuse("Expires 0", [["Expires", "0"]], false);
reuse("an Expires that is no date", [["Expires", "soon"]], false);
reuse("max-age over Expires in the past", [["Cache-Control", "max-age=3600"], ["Expires", -3600]], true);
reuse("max-age=0 over Expires in the future", [["Cache-Control", "max-age=0"], ["Expires", 3600]], false);
reuse("Expires relative to an old Date", [["Date", -7200], ["Expires", -3600]], false);
reuse("MAX-AGE in capitals", [["Cache-Control", "MAX-AGE=3600"]], true);
reuse("a quoted max-age", [["Cache-Control", 'max-age="3600"']], true);
reuse("max-age with a space before =", [["Cache-Control", "max-age =3600"]], false);
reuse("a huge max-age", [["Cache-Control", "max-age=99999999999"]], true);
reuse("a negative max-age", [["Cache-Control", "max-age=-3600"]], false);
reuse("max-age in a quoted extension", [["Cache-Control", 'x="max-age=3600", max-age=1']], false, { pause: 3 });
reuse("max-age in single quotes", [["Cache-Control", "max-age='3600'"]], false);
reuse("a response without any lifetime", [], false);
reuse("an old Last-Modified by heuristic", [["Last-Modified", -86400]], true);
for (const status of [203, 204, 300, 301, 308, 404, 405, 410, 414, 501]) reuse(`${status} by heuristic`, [["Last-Modified", -86400]], true, { status });
for (const status of [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 599]) reuse(`${status} without a lifetime`, [["Last-Modified", -86400]], false, { status });
for (const status of [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599])
  reuse(`${status} with max-age`, FRESH, true, { status });
reuse("an unknown status with public and Last-Modified", [["Cache-Control", "public"], ["Last-Modified", -86400]], true, { status: 599 });

// Directives of responses
reuse("no-store", [["Cache-Control", "no-store, max-age=3600"]], false);
reuse("private", [["Cache-Control", "private, max-age=3600"]], false);
reuse("no-cache", [["Cache-Control", "no-cache, max-age=3600"]], false);
reuse("must-understand with no-store on a known status", [["Cache-Control", "max-age=3600, no-store, must-understand"]], true);
reuse("must-understand on an unknown status", [["Cache-Control", "max-age=3600, must-understand"]], false, { status: 499 });
reuse("a field in two lines", [["Cache-Control", "public"], ["Cache-Control", "max-age=3600"]], true);
reuse("a Pragma on a response", [...FRESH, ["Pragma", "no-cache"]], true);
reuse("a response with Set-Cookie where the operator stores it", [...FRESH, ["Set-Cookie", "a=b"]], true);
reuse("CDN-Cache-Control over no-store", [["CDN-Cache-Control", "max-age=3600"], ["Cache-Control", "no-store"]], true);
reuse("CDN-Cache-Control over Expires", [["CDN-Cache-Control", "max-age=3600"], ["Expires", -3600]], true);
reuse("CDN-Cache-Control no-store over max-age", [["CDN-Cache-Control", "no-store"], ...FRESH], false);
reuse("CDN-Cache-Control private", [["CDN-Cache-Control", "private, max-age=3600"], ...FRESH], false);
reuse("an invalid CDN-Cache-Control", [["CDN-Cache-Control", "max-age=3600, &&&"], ["Cache-Control", "no-store"]], false);
reuse("a CDN-Cache-Control string", [["CDN-Cache-Control", 'max-age="3600"'], ["Cache-Control", "no-store"]], false);
reuse("a lapsed CDN-Cache-Control with Age", [["CDN-Cache-Control", "max-age=3600"], ["Age", "4000"]], false);
add("no-cache with a field strips that field only", get([["Cache-Control", 'max-age=3600, no-cache="a"'], ["A", "1"], ["B", "2"]], {}), get([], { cached: true, headers: { a: null, b: "2" } }));
add("private with a field strips that field only", get([["Cache-Control", 'max-age=3600, private="a"'], ["A", "1"], ["B", "2"]], {}), get([], { cached: true, headers: { a: null, b: "2" } }));
add("no-cache is validated with the tag", get([["Cache-Control", "no-cache"], ["ETag", tag]], {}), { origin: { status: 304, headers: [["ETag", tag]] }, expect: { cached: false, status: 200, body: "body 1", sent: { "If-None-Match": tag } } });

// Age and Date
add("a hit has Age, Date and every field as stored", get([...FRESH, ["X-Test", "one"], ["X-Test", "two"], ["Content-Foo", "ü"], ["Date", -1]], {}), get([], { cached: true, headers: { age: /^[1-9]$/, date: /GMT/, "x-test": "one, two" }, body: "body 1" }, { pause: 1 }));
add("Age adds up", get([...FRESH, ["Age", "30"]], { headers: { age: "30" } }), get([], { cached: true, headers: { age: /^3[2-4]$/ } }, { pause: 2 }));
add("a forwarded response has no Age of ours", get([], { headers: { age: null } }));
add("the first of a list in Age counts", get([...FRESH, ["Age", "0, 9000"]], {}), get([], { cached: true }));
add("an Age that is no number is ignored", get([...FRESH, ["Age", "abc"]], {}), get([], { cached: true, headers: { age: /^\d+$/ } }));
add("a redirect is not followed", { origin: { status: 302, headers: [...FRESH, ["Location", "/elsewhere"]] }, expect: { status: 302, headers: { location: "/elsewhere" } } }, get([], { cached: true, status: 302, headers: { location: "/elsewhere" } }));

// Vary
const vary = (name, header, first, second, expected, stored = []) =>
  add(`Vary: ${name}`, get([...FRESH, ["Vary", header], ...stored], {}, { headers: first }), get([...FRESH, ["Vary", header], ...stored], { cached: expected }, { headers: second }));
vary("same", "Foo", [["Foo", "1"]], [["Foo", "1"]], true);
vary("different", "Foo", [["Foo", "1"]], [["Foo", "2"]], false);
vary("missing", "Foo", [["Foo", "1"]], [], false);
vary("added", "Foo", [], [["Foo", "1"]], false);
vary("star", "*", [], [], false);
vary("star in a list", "Foo, *", [["Foo", "1"]], [["Foo", "1"]], false);
vary("three names match", "Foo, Bar, Baz", [["Foo", "1"], ["Bar", "2"], ["Baz", "3"]], [["Baz", "3"], ["Bar", "2"], ["Foo", "1"]], true);
vary("one of three differs", "Foo, Bar, Baz", [["Foo", "1"], ["Bar", "2"], ["Baz", "3"]], [["Foo", "1"], ["Bar", "2"], ["Baz", "4"]], false);
vary("combined lines", "Foo", [["Foo", "1,  2"]], [["Foo", "1, 2"]], true);
vary("Accept-Language order of weights", "Accept-Language", [["Accept-Language", "en, de;q=0.5"]], [["Accept-Language", "de;q=0.5, en"]], true);
vary("Accept-Language selects by Content-Language", "Accept-Language", [["Accept-Language", "en, de"]], [["Accept-Language", "en"]], true, [["Content-Language", "en"]]);
// `Vary: Accept-Encoding` is not here: the platform replaces what clients send.
add("variants live side by side", ...["1", "2", "3"].map((foo) => get([...FRESH, ["Vary", "Foo"]], { body: `body ${foo}` }, { headers: [["Foo", foo]] })), ...["1", "2", "3"].map((foo) => get([], { cached: true, body: `body ${foo}` }, { headers: [["Foo", foo]] })));

// Authorization
const auth = [["Authorization", "Basic abc"]];
const authorized = (cache, reused) => reuse(`an authorized response with ${cache}`, [["Cache-Control", cache]], reused, { first: { headers: auth }, second: { headers: auth } });
authorized("max-age=3600", false);
authorized("max-age=3600, public", true);
authorized("max-age=3600, must-revalidate", true);
authorized("s-maxage=3600", true);
add("Authorization reaches the origin", get([], { sent: { authorization: "Basic abc" } }, { headers: auth }));

// Validation
const stale = (...more) => [["Cache-Control", "max-age=1"], ...more];
add("a stale tag is sent", get(stale(["ETag", tag]), {}), { pause: 3, origin: { status: 304, headers: [["ETag", tag]] }, expect: { cached: false, status: 200, body: "body 1", sent: { "If-None-Match": tag } } });
add("a stale weak tag is sent", get(stale(["ETag", 'W/"a"']), {}), { pause: 3, origin: { status: 304, headers: [["ETag", 'W/"a"']] }, expect: { cached: false, status: 200, body: "body 1", sent: { "If-None-Match": 'W/"a"' } } });
add("a stale date is sent", get(stale(["Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT"]), {}), { pause: 3, origin: { status: 304 }, expect: { cached: false, status: 200, body: "body 1", sent: { "If-Modified-Since": "Tue, 01 Jan 2019 00:00:00 GMT" } } });
add("a tag is answered with 304 from the cache", get([...FRESH, ["ETag", tag]], {}), get([], { cached: true, status: 304, headers: { etag: tag } }, { headers: [["If-None-Match", tag]] }));
add("a weak tag matches a strong one", get([...FRESH, ["ETag", tag]], {}), get([], { cached: true, status: 304 }, { headers: [["If-None-Match", `W/${tag}`]] }));
add("a strong tag matches a weak one", get([...FRESH, ["ETag", `W/${tag}`]], {}), get([], { cached: true, status: 304 }, { headers: [["If-None-Match", tag]] }));
add("a list of tags", get([...FRESH, ["ETag", tag]], {}), get([], { cached: true, status: 304 }, { headers: [["If-None-Match", `"x", ${tag}, "y"`]] }));
add("a star of tags", get([...FRESH, ["ETag", tag]], {}), get([], { cached: true, status: 304 }, { headers: [["If-None-Match", "*"]] }));
add("another tag gets the whole", get([...FRESH, ["ETag", tag]], {}), get([], { cached: true, status: 200, body: "body 1" }, { headers: [["If-None-Match", '"other"']] }));
add("If-Modified-Since is answered with 304", get([...FRESH, ["Last-Modified", -3000]], {}), get([], { cached: true, status: 304 }, { headers: [["If-Modified-Since", -2000]] }));
add("If-Modified-Since before the change gets the whole", get([...FRESH, ["Last-Modified", -2000]], {}), get([], { cached: true, status: 200 }, { headers: [["If-Modified-Since", -3000]] }));
add("If-None-Match counts before If-Modified-Since", get([...FRESH, ["ETag", tag], ["Last-Modified", -3000]], {}), get([], { cached: true, status: 200 }, { headers: [["If-None-Match", '"other"'], ["If-Modified-Since", -1]] }));
add("a client's tag reaches the origin of what is not stored", { headers: [["If-None-Match", tag]], origin: { status: 304, headers: [["ETag", tag]] }, expect: { status: 304, sent: { "If-None-Match": tag } } });
add("a new body after validation replaces the old", get(stale(["ETag", tag]), {}), { pause: 3, origin: { headers: [...FRESH, ["ETag", '"new"']], body: "new" }, expect: { status: 200, body: "new" } }, get([], { cached: true, body: "new", headers: { etag: '"new"' } }));
add("a new body that the client has is a 304", get(stale(["ETag", tag]), {}), { pause: 3, headers: [["If-None-Match", '"new"']], origin: { headers: [...FRESH, ["ETag", '"new"']], body: "new" }, expect: { status: 304 } }, get([], { cached: true, body: "new" }));
for (const name of ["X-Test", "Cache-Control", "Expires", "Content-Type", "Content-Language", "ETag-Not", "Link", "Set-Cookie"]) {
  const [before, after] = name === "Cache-Control" ? ["max-age=1", "max-age=1000"] : name === "Expires" ? [3000, 4000] : ["a/1", "b/2"];
  add(`a 304 updates ${name}`,
    get([...stale(["ETag", tag]).filter(([held]) => held !== name), [name, before]].concat(name === "Cache-Control" ? [] : []), {}),
    { pause: 3, origin: { status: 304, headers: [["ETag", tag], [name, after], ["Content-Type", name === "Content-Type" ? after : "text/plain"]].filter(([held], at, all) => all.findIndex(([other]) => other === held) === at) }, expect: name === "Expires" ? { status: 200 } : { cached: false, status: 200, body: "body 1", headers: { [name]: after } } });
}
add("a 304 keeps Content-Length", get(stale(["ETag", tag]), {}), { pause: 3, origin: { status: 304, headers: [["ETag", tag], ["Content-Length", "99"]] }, expect: { status: 200, body: "body 1" } });
add("a 304 makes fresh again", get(stale(["ETag", tag]), {}), { pause: 3, origin: { status: 304, headers: [["ETag", tag], ...FRESH] }, expect: { cached: false } }, get([], { cached: true, body: "body 1" }, { pause: 2 }));

// HEAD
add("HEAD is answered from a GET", get([...FRESH, ["Content-Length", "6"]], {}), get([], { cached: true, status: 200, body: "", headers: { "content-length": "6" } }, { method: "HEAD" }));
add("HEAD freshens a stored GET", get(stale(["ETag", tag]), {}), { pause: 3, method: "HEAD", origin: { headers: [...FRESH, ["ETag", tag]] }, expect: { cached: false, status: 200 } }, get([], { cached: true, body: "body 1" }));
add("HEAD with another tag drops a stored GET", get(stale(["ETag", tag]), {}), { pause: 3, method: "HEAD", origin: { headers: [...FRESH, ["ETag", '"new"']] }, expect: { cached: false } }, get([], { cached: false }));
add("HEAD is not stored for GET", { method: "HEAD", origin: { headers: FRESH } }, get([], { cached: false, body: "body 2" }));
add("HEAD keeps Content-Length of the origin", { method: "HEAD", origin: { headers: [["Content-Length", "1234"]] }, expect: { headers: { "content-length": "1234" } } });

// Ranges
const text = "01234567890";
add("a range is cut from the whole", { origin: { headers: FRESH, body: text } }, get([], { cached: true, status: 206, body: "12", headers: { "content-range": "bytes 1-2/11" } }, { headers: [["Range", "bytes=1-2"]] }));
add("the end is cut", { origin: { headers: FRESH, body: text } }, get([], { cached: true, status: 206, body: "90" }, { headers: [["Range", "bytes=-2"]] }));
add("an open range is cut", { origin: { headers: FRESH, body: text } }, get([], { cached: true, status: 206, body: "567890" }, { headers: [["Range", "bytes=5-"]] }));
add("a range beyond the end is 416", { origin: { headers: FRESH, body: text } }, get([], { cached: true, status: 416, headers: { "content-range": "bytes */11" } }, { headers: [["Range", "bytes=50-60"]] }));
add("a part is stored and reused", { headers: [["Range", "bytes=-5"]], origin: { status: 206, headers: [...FRESH, ["Content-Range", "bytes 6-10/11"]], body: "67890" }, expect: { status: 206, body: "67890", headers: { "content-range": "bytes 6-10/11" } } }, get([], { cached: true, status: 206, body: "67890" }, { headers: [["Range", "bytes=-5"]] }));
add("a smaller part is cut from a part", { headers: [["Range", "bytes=-5"]], origin: { status: 206, headers: [...FRESH, ["Content-Range", "bytes 6-10/11"]], body: "67890" } }, get([], { cached: true, status: 206, body: "0" }, { headers: [["Range", "bytes=-1"]] }));
add("a part does not answer for the whole", { headers: [["Range", "bytes=-5"]], origin: { status: 206, headers: [...FRESH, ["Content-Range", "bytes 6-10/11"]], body: "67890" } }, { origin: { headers: FRESH, body: text }, expect: { cached: false, status: 200, body: text } });
add("a complete part is the whole", { headers: [["Range", "bytes=0-"]], origin: { status: 206, headers: [...FRESH, ["Content-Range", "bytes 0-10/11"]], body: text } }, get([], { cached: true, status: 200, body: text }));
add("If-Range with another tag gets the whole", { origin: { headers: [...FRESH, ["ETag", tag]], body: text } }, get([], { cached: true, status: 200, body: text }, { headers: [["Range", "bytes=1-2"], ["If-Range", '"other"']] }));
add("If-Range with the tag gets the range", { origin: { headers: [...FRESH, ["ETag", tag]], body: text } }, get([], { cached: true, status: 206, body: "12" }, { headers: [["Range", "bytes=1-2"], ["If-Range", tag]] }));
add("a range of what is not stored reaches the origin", { headers: [["Range", "bytes=1-2"]], origin: { status: 206, headers: [["Content-Range", "bytes 1-2/11"]], body: "12" }, expect: { status: 206, body: "12", sent: { range: "bytes=1-2" } } });

// Request directives
const asks = (name, directive, headers, expect, more = {}) => add(`request ${name}`, get(headers, {}), { origin: { headers: FRESH }, expect, headers: [["Cache-Control", directive]], ...more });
asks("no-cache is validated", "no-cache", FRESH, { cached: false });
asks("no-store is not answered from the cache", "no-store", FRESH, { cached: false });
asks("max-age within", "max-age=600", FRESH, { cached: true }, { pause: 1 });
asks("max-age beyond", "max-age=1", FRESH, { cached: false }, { pause: 3 });
asks("max-age=0", "max-age=0", FRESH, { cached: false });
asks("min-fresh within", "min-fresh=1000", FRESH, { cached: true });
asks("min-fresh beyond", "min-fresh=5000", FRESH, { cached: false });
asks("max-stale", "max-stale=1000", stale(), { cached: true }, { pause: 3 });
asks("max-stale too old", "max-stale=1", stale(), { cached: false }, { pause: 4 });
asks("max-stale does not override must-revalidate", "max-stale=1000", [["Cache-Control", "max-age=1, must-revalidate"]], { cached: false }, { pause: 3 });
asks("only-if-cached hit", "only-if-cached", FRESH, { cached: true, status: 200 });
add("request only-if-cached miss is 504", get([], { status: 504, cached: true }, { headers: [["Cache-Control", "only-if-cached"]] }));
add("request no-store is not stored", get(FRESH, {}, { headers: [["Cache-Control", "no-store"]] }), get([], { cached: false }));
add("request Pragma: no-cache is ignored or validated", get(FRESH, {}), get(FRESH, { status: 200 }, { headers: [["Pragma", "no-cache"]] }));

// Unsafe methods
for (const method of ["POST", "PUT", "DELETE", "PATCH", "FOO-NOT"].slice(0, 4)) {
  add(`${method} invalidates`, get(FRESH, {}), { method, body: "x", expect: { cached: false } }, get(FRESH, { cached: false }));
  add(`${method} that fails invalidates nothing`, get(FRESH, {}), { method, body: "x", origin: { status: 500 }, expect: { status: 500 } }, get([], { cached: true }));
}
add("PURGE, PROPFIND and the like reach the origin", { method: "PROPFIND", body: "x", expect: { sentMethod: "PROPFIND", status: 200 } });
add("Location is invalidated", get(FRESH, {}, { path: "/a" }), { method: "POST", body: "x", origin: { headers: [["Location", "a"]] }, path: "/b" }, get([], { cached: false }, { path: "/a" }));
add("Content-Location is invalidated", get(FRESH, {}, { path: "/a" }), { method: "POST", body: "x", origin: { headers: [["Content-Location", "a"]] }, path: "/b" }, get([], { cached: false }, { path: "/a" }));
add("OPTIONS goes through and invalidates nothing", get(FRESH, {}), { method: "OPTIONS", expect: { cached: false, sentMethod: "OPTIONS" } }, get([], { cached: true }));
add("a POST is not stored", { method: "POST", body: "x", origin: { headers: FRESH } }, get([], { cached: false }));
add("bodies of unsafe methods arrive", { method: "POST", body: "hello", headers: [["Content-Type", "text/x"]], expect: { sentBody: "hello", sent: { "content-type": "text/x", "content-length": "5" } } });
add("an empty POST arrives", { method: "POST", expect: { sentBody: "", status: 200 } });

// Stale answers
add("a closed connection is answered stale", get(stale(), {}), { pause: 3, origin: { disconnect: true }, expect: { status: 200, body: "body 1" } });
add("a closed connection with must-revalidate is an error", get([["Cache-Control", "max-age=1, must-revalidate"]], {}), { pause: 3, origin: { disconnect: true }, expect: { status: 504, headers: { "cache-status": "kv-patterns; fwd=stale" } } });
add("a closed connection with s-maxage is an error", get([["Cache-Control", "s-maxage=1"]], {}), { pause: 3, origin: { disconnect: true }, expect: { status: 504, headers: { "cache-status": "kv-patterns; fwd=stale" } } });
for (const status of [500, 502, 503, 504]) add(`stale-if-error on ${status}`, get([["Cache-Control", "max-age=1, stale-if-error=60"]], {}), { pause: 3, origin: { status }, expect: { status: 200, body: "body 1" } });
add("stale-while-revalidate answers at once and refreshes", get([["Cache-Control", "max-age=1, stale-while-revalidate=60"]], {}), { pause: 3, origin: { headers: FRESH, body: "new" }, expect: { status: 200, body: "body 1" } }, get([], { cached: true, body: "new" }, { pause: 1 }));
add("stale-while-revalidate that is over waits", get([["Cache-Control", "max-age=1, stale-while-revalidate=1"]], {}), { pause: 4, origin: { headers: FRESH, body: "new" }, expect: { cached: false, body: "new" } });
add("a cut body is not stored", { origin: { headers: [...FRESH, ["Content-Length", "1000"]], cut: true }, expect: { status: 502 } }, get([], { cached: false, status: 200 }));
add("a cut chunked body is not stored", { origin: { headers: FRESH, cut: true }, expect: { broken: true } }, get([], { cached: false, status: 200 }));
add("a cut body is replaced by what is stale", get(stale(), {}), { pause: 3, origin: { headers: [...FRESH, ["Content-Length", "1000"]], cut: true }, expect: { status: 200, body: "body 1" } });

// Fields
for (const name of ["Proxy-Authenticate-Not", "X-Other", "Content-Disposition", "Link", "Content-Security-Policy", "Set-Cookie", "Content-Encoding-Not", "Via", "Warning", "Location", "Access-Control-Allow-Origin", "X-Request-Id", "X-Cache-Not"])
  add(`stores ${name}`, get([...FRESH, [name, "a=b"]], { headers: { [name]: "a=b" } }), get([], { cached: true, headers: { [name]: "a=b" } }));
for (const name of ["Proxy-Authenticate", "Proxy-Connection", "Keep-Alive", "TE"]) add(`does not store ${name}`, get([...FRESH, [name, "a=b"]], {}), get([], { cached: true, headers: { [name]: name === "Keep-Alive" ? (value) => value !== "a=b" : null } }));
add("request fields pass", get([], { sent: { "x-one": "1", cookie: "a=b", accept: "x/y" } }, { headers: [["X-One", "1"], ["Cookie", "a=b"], ["Accept", "x/y"]] }));
add("an unknown Content-Encoding passes", { origin: { headers: [...FRESH, ["Content-Encoding", "x-foo"]] }, expect: { headers: { "content-encoding": "x-foo" } } }, get([], { cached: true, headers: { "content-encoding": "x-foo" } }));
add("a path with a query is its own", get(FRESH, {}, { path: "?a=1" }), get(FRESH, { cached: false }, { path: "?a=2" }), get([], { cached: true, body: "body 1" }, { path: "?a=1" }));
add("a large body", { origin: { headers: FRESH, body: "x".repeat(1_000_000) }, expect: { body: "x".repeat(1_000_000) } }, get([], { cached: true, body: "x".repeat(1_000_000) }));

// Dates in the three formats, and what is none
for (const [text, reused] of [
  ["Sun, 06 Nov 2094 08:49:37 GMT", true],
  ["Saturday, 06-Nov-94 08:49:37 GMT", false],
  ["Sat Nov  6 08:49:37 2094", true],
  ["sat, 06 nov 2094 08:49:37 gmt", true],
  ["Sat, 06 Nov 2094 08:49:37 UTC", false],
  ["Sat, 06 Nov 2094 08:49:37", false],
  ["Sat, 6 Nov 2094 08:49:37 GMT", false],
  ["Sat, 06 Nov 2094  08:49:37 GMT", false],
  ["Sat 06 Nov 2094 08:49:37 GMT", false],
  ["Sat, 06 Nov 94 08:49:37 GMT", false],
  ["Sat, 06 Nov 2094 8:49:37 GMT", false],
])
  reuse(`Expires: ${text}`, [["Expires", text]], reused);
reuse("two lines of Expires", [["Expires", 3600], ["Expires", 7200]], false);
for (const [age, reused] of [["12000", false], ["0", true], ["-12000", true], ["12000.0", true], ["abc", true], ["0, 12000", true], ["12000, 0", false], ["12000;foo=bar", true]])
  reuse(`max-age=3600 with Age: ${age}`, [...FRESH, ["Age", age]], reused);

// More of validation
add("If-Modified-Since without Last-Modified is compared with Date", get([...FRESH, ["Date", -10]], {}), get([], { cached: true, status: 304 }, { headers: [["If-Modified-Since", 0]] }));
add("If-Modified-Since in RFC 850 format", get([...FRESH, ["Last-Modified", -86400 * 365]], {}), get([], { cached: true, status: 304 }, { headers: [["If-Modified-Since", (([, day, month, year, time]) => `Monday, ${day}-${month}-${year.slice(2)} ${time} GMT`)(new Date().toUTCString().split(" "))]] }));
add("a stale entry is validated, and the client's own tag is answered from it", get(stale(["ETag", tag]), {}), { pause: 3, headers: [["If-None-Match", tag]], origin: { status: 304, headers: [["ETag", tag]] }, expect: { cached: false, status: 304, sent: { "If-None-Match": tag } } });
add("both validators are sent", get(stale(["ETag", tag], ["Last-Modified", "Tue, 01 Jan 2019 00:00:00 GMT"]), {}), { pause: 3, origin: { status: 304, headers: [["ETag", tag]] }, expect: { sent: { "If-None-Match": tag, "If-Modified-Since": "Tue, 01 Jan 2019 00:00:00 GMT" } } });
add("a 304 from the cache carries the stored fields", get([...FRESH, ["ETag", tag], ["Last-Modified", -3000], ["Content-Location", "/x"], ["Vary", "Foo"]], {}), get([], { cached: true, status: 304, headers: { etag: tag, "content-location": "/x", vary: "Foo", "cache-control": "max-age=3600", date: /GMT/, "content-length": null } }, { headers: [["If-None-Match", tag]] }));
add("a client's date reaches the origin of what is not stored", { headers: [["If-Modified-Since", "Tue, 01 Jan 2019 00:00:00 GMT"]], origin: { status: 304 }, expect: { status: 304, sent: { "If-Modified-Since": "Tue, 01 Jan 2019 00:00:00 GMT" } } });
for (const etag of ["abc", 'W/"a, b"', '"a\\"', '""', '"é"'.normalize("NFC")])
  add(`the odd tag ${etag} is validated`, get(stale(["ETag", etag]), {}), { pause: 3, origin: { status: 304, headers: [["ETag", etag]] }, expect: { cached: false, status: 200, body: "body 1" } });

// POST responses
add("a POST with a lifetime and its own Content-Location answers GET", { method: "POST", body: "x", path: "/p", origin: { headers: [...FRESH, ["Content-Location", "p"]] } }, get([], { cached: true, body: "body 1" }, { path: "/p" }));
add("a POST with another Content-Location does not", { method: "POST", body: "x", path: "/p", origin: { headers: [...FRESH, ["Content-Location", "q"]] } }, get([], { cached: false }, { path: "/p" }));
// Unknown methods such as M-SEARCH are not here: the platform answers 501 before a Worker runs.
add("other hosts in Location are not invalidated here", get(FRESH, {}, { path: "/a" }), { method: "POST", body: "x", origin: { headers: [["Location", "http://other.example/test"]] }, path: "/b" }, get([], { cached: true }, { path: "/a" }));
for (const status of [301, 302, 303, 307, 308]) add(`a POST answered with ${status} invalidates`, get(FRESH, {}), { method: "POST", body: "x", origin: { status, headers: [["Location", "/z"]] }, expect: { status } }, get(FRESH, { cached: false }));
add("a POST with a stored answer always reaches the origin", get(FRESH, {}), { method: "POST", body: "x", expect: { cached: false, body: "body 2" } });

export { cases };
