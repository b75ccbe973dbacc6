# Evaluates the cases of flag.mjs with flagd's Python engine: one line in, one line out.
import json
import sys

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

core = None
for line in sys.stdin:
    case = json.loads(line)
    if "document" in case:
        core = FlagdCore()
        core.set_flags({name: part for name, part in case["document"].items() if name != "settings"})
    fields = case["context"]
    attributes = {name: value for name, value in fields.items() if name != "targetingKey"}
    context = EvaluationContext(fields.get("targetingKey"), attributes)
    try:
        details = core.resolve_string_value(case["key"], "-", context)
        answer = {"variant": details.variant, "reason": str(details.reason.value)}
    except OpenFeatureError as error:
        answer = {"error": error.error_code.value}
    except Exception as error:  # the engine's own failures are a class of answers too
        answer = {"error": f"exception {type(error).__name__}"}
    print(json.dumps(answer))
