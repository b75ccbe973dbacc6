"""Three checks of our own for schemathesis: valid requests are taken, no reply has a header that the document does not name, and
no tenant sees what another one made.

A request that the schema allows and the Worker refuses is a fault, unless the rule is one that a schema cannot say; those are
named below, each with its reason. The second tenant's token must be in `.dev.vars`; it never writes anything.
"""

import re

import requests
import schemathesis

OTHER = {"Authorization": "Bearer other-token"}

# Operation and field to blame, as patterns; and why no schema says it.
BEYOND_SCHEMAS = [
    (r".*", r"cursor", "sealed by the Worker: a stranger's is none"),
    (r"POST /v1/sessions/\w+", r"token", "not needed with the cookie"),
    (r"GET /v1/counters/\{name\}", r"snapshot", "of exact counters only"),
    (r"POST /v1/locks/.*/acquire", r"waitSeconds", "not in mode kv-demo"),
    (r"POST /v1/locks/.*/renew", r"lockId", "of mode kv-demo: cannot be renewed"),
    (r"PUT /v1/collections/\{collection\}", r"migrations.*", "a whole chain, whose places are JSON Pointers"),
    (r"PUT /v1/experiments/\{name\}", r"variants.*|overrides.*|layer", "names once; overrides name variants; slots that end after they start"),
    (r"PUT /v1/flags", r"/.*", "flagd's rules, and what JSONLogic may hold"),
    (r"PUT /v1/flags/\{key\}", r"key|(variants|defaultVariant|targeting|metadata|overrides)(/.*)?", "its own key; the same, by its place in the flag"),
    (r"PUT /v1/flags/\{key\}/overrides/\{user\}", r"variant", "one of the flag's"),
    (r"(PUT|POST) /v1/origins/.*", r"baseUrl|prefix", "public hosts only; at most 16 segments"),
    (r"(PUT|PATCH) /v1/users/\{user\}/preferences", r".*", "the tenant's own fields, languages and zones by their shape"),
    (r"PATCH .*", r"|\d+|/.*|__proto__|constructor|prototype", "operations on what is not there, or that leave no object; names that pollute prototypes"),
    (r"PUT /v1/cache/.*", r"Content-Type|tags", "bytes, not characters"),
    (r"GET /v1/keys/\{binding\}|DELETE /v1/keys/\{binding\}", r"prefix", "whole segments of keys, escaped as keys are"),
    (r".*", r"If-.*|Idempotency-Key", "bytes, not characters"),
]


def is_beyond_schemas(label, field):
    return any(re.fullmatch(operation, label) and re.fullmatch(name, field, re.DOTALL) for operation, name, _ in BEYOND_SCHEMAS)


def too_many_bytes(case):
    """Ids have 256 bytes, and a schema counts characters."""
    return any(len(str(value).encode("utf-8", "surrogatepass")) > 256 for value in (case.path_parameters or {}).values())


@schemathesis.check
def valid_requests_are_taken(ctx, response, case):
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code not in (400, 415, 422):
        return
    problem = response.json()
    # OFREP has its own form; any context is a valid one or says why not.
    if "errorCode" in problem or too_many_bytes(case):
        return
    label = f"{case.operation.method.upper()} {case.operation.path}"
    field = problem.get("field", "")
    assert is_beyond_schemas(label, field), f"{label} refused a valid request: {response.text}"


# What any reply may carry, and no operation says.
OF_ANY_REPLY = re.compile(r"content-(type|length|encoding)|transfer-encoding|connection|date|vary|x-content-type-options|access-control-.*")


@schemathesis.check
def headers_are_documented(ctx, response, case):
    documented = case.operation.responses.find_by_status_code(response.status_code)
    # Other methods are tried as well, and OPTIONS is no operation of the document.
    if documented is None or response.request.method != case.operation.method.upper():
        return
    known = {name.lower() for name, _ in documented.headers.items()}
    more = [name for name in response.headers if name.lower() not in known and not OF_ANY_REPLY.fullmatch(name.lower())]
    assert not more, f"{case.operation.label} answered {response.status_code} with {more}"


def says_nothing(answer):
    """Whether a reply holds nothing but what a tenant without data is told."""
    if answer.status_code in (304, 400, 404, 412):
        return True
    body = answer.json()
    nothing = [("items", []), ("value", 0), ("held", False), ("source", "default")]
    return any(body.get(name, "?") == empty for name, empty in nothing)


@schemathesis.check
def no_tenant_sees_another(ctx, response, case):
    path = case.operation.path
    # Those have the same defaults for everybody; the other two are nobody's.
    if case.method != "GET" or response.status_code != 200 or path in ("/v1/users/{user}/preferences", "/health", "/openapi.json"):
        return
    headers = {**response.request.headers, **OTHER}
    answer = requests.get(response.request.url, headers=headers, timeout=20)
    assert says_nothing(answer), f"another tenant is answered {answer.status_code} {answer.text[:300]}"
