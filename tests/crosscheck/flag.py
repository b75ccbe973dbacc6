# flagd's Python engine (generation v3) twice for each case of flag.mjs: as it is, and with the operators in which it is
# known to differ replaced by JSONLogic's reference behaviour (JavaScript's), noting which of them made a difference.
# One line in, one line out.
import json
import math
import re
import sys

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

# The package exports a function under its module's name, so the module is found by its path.
OPERATORS = sys.modules["openfeature.contrib.tools.flagd.core.targeting.targeting"].OPERATORS

OPERATORS_BEFORE = dict(OPERATORS)

noted = set()
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def number(value):
    """JavaScript's Number(value), of JSON values; text in hexadecimal and the like does not occur here."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        text = value.strip()
        return 0 if text == "" else float(text) if DECIMAL.fullmatch(text) else math.nan
    return math.nan


def kind(value):
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def strict(a, b):
    return kind(a) == kind(b) and not isinstance(a, (list, dict)) and a == b


def loose(a, b):
    if a is None or b is None:
        return a is b
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    return number(a) == number(b)


def ordered(holds):
    def compare(*values):
        def pair(a, b):
            return holds(a, b) if isinstance(a, str) and isinstance(b, str) else holds(number(a), number(b))

        return all(pair(a, b) for a, b in zip(values, values[1:]))

    return compare


def remainder(a, b):
    a, b = number(a), number(b)
    if b == 0:
        raise ZeroDivisionError  # not a number, which both engines call an error
    return math.copysign(abs(a) % abs(b), a)


REFERENCE = {
    "==": loose,
    "!=": lambda a, b: not loose(a, b),
    "===": strict,
    "!==": lambda a, b: not strict(a, b),
    "<": ordered(lambda a, b: a < b),
    "<=": ordered(lambda a, b: a <= b),
    ">": ordered(lambda a, b: a > b),
    ">=": ordered(lambda a, b: a >= b),
    "%": remainder,
    "-": lambda *values: -number(values[0]) if len(values) == 1 else number(values[0]) - number(values[1]),
    "in": lambda needle, hay: any(strict(needle, item) for item in hay) if isinstance(hay, list) else needle_in(needle, hay),
}


def needle_in(needle, hay):
    return OPERATORS_BEFORE["in"](None, needle, hay)


def name_of(operator, values):
    """The name of what makes the engine's result another one than the reference's."""
    if operator == "%":
        return "remainder-has-the-divisors-sign"
    if operator == "-":
        return "minus-missing-is-unary"
    if operator in ("===", "!==", "in"):
        return "booleans-are-numbers"
    if operator in ("==", "!="):
        return "null-equals-zero" if None in values else "empty-text-is-no-number"
    if len(values) > 2 and values[2] is None:
        return "between-missing-is-open"
    if None in values and any(isinstance(value, str) and value for value in values):
        return "text-beside-null"
    return "empty-text-is-no-number"


def amended(operator):
    def run(data, *values):
        expected = REFERENCE[operator](*values)
        if OPERATORS_BEFORE[operator](data, *values) != expected:
            noted.add(name_of(operator, values))
        return expected

    return run


AMENDED = {**OPERATORS, **{operator: amended(operator) for operator in REFERENCE}}


def answer(core, key, context, operators):
    OPERATORS.clear()
    OPERATORS.update(operators)
    try:
        details = core.resolve_string_value(key, "-", context)
        return {"variant": details.variant, "reason": str(details.reason.value)}
    except OpenFeatureError as error:
        return {"error": error.error_code.value}
    except ArithmeticError:
        return {"error": "GENERAL"}  # as the SDK reports whatever else a provider raises


core = None
for line in sys.stdin:
    case = json.loads(line)
    if "document" in case:
        core = FlagdCore()
        core.set_flags({name: part for name, part in case["document"].items() if name != "settings"})
    fields = case["context"]
    attributes = {name: value for name, value in fields.items() if name != "targetingKey"}
    context = EvaluationContext(fields.get("targetingKey"), attributes)
    noted.clear()
    theirs = answer(core, case["key"], context, OPERATORS_BEFORE)
    corrected = answer(core, case["key"], context, AMENDED)
    print(json.dumps({**theirs, "corrected": corrected, "noted": sorted(noted)}))
