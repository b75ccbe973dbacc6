//! The flag engine against flagd's and JSONLogic's own cases, and against rules written to hurt it.

use kv_patterns::clock::Timestamp;
use kv_patterns::patterns::flag::bucketing::{MAX_TOTAL_WEIGHT, murmur3, sha256_bucket, sha256_hash};
use kv_patterns::patterns::flag::logic::{EvalError, MAX_DEPTH, MAX_NODES, Rule, RuleError};
use kv_patterns::patterns::flag::{
    ContextError, ErrorCode, EvaluationContext, FlagSet, HashGeneration, MAX_EVALUATORS, MAX_FLAGS, Outcome, Problem,
    Reason, ValueType,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn data(name: &str) -> Value {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn context(value: &Value) -> EvaluationContext {
    EvaluationContext::new(value.clone()).unwrap()
}

/// A document with one flag, `f`, of the string variants `on` and `off`, with the default `off`.
fn document(targeting: &Value) -> Value {
    json!({ "flags": { "f": {
        "state": "ENABLED", "variants": { "on": "on", "off": "off" }, "defaultVariant": "off", "targeting": targeting,
    } } })
}

#[track_caller]
fn load(document: &Value) -> FlagSet {
    FlagSet::load(document).unwrap()
}

/// The variant and reason of flag `f`, or the error code.
fn answer(document: &Value, fields: &Value) -> Result<(String, Reason), ErrorCode> {
    let set = load(document);
    match set.evaluate("f", &context(fields), NOW).outcome {
        Outcome::Value { variant, reason, .. } => Ok((variant.to_owned(), reason)),
        Outcome::CodeDefault { reason } => Ok((String::new(), reason)),
        Outcome::Error { code, .. } => Err(code),
    }
}

// The public cases.

fn kit_with(bucketing: &str) -> FlagSet {
    let mut document = data("flag-evaluation-flags.json");
    document["settings"] = json!({ "bucketing": bucketing });
    load(&document)
}

fn value_type(name: &str) -> ValueType {
    match name {
        "boolean" => ValueType::Boolean,
        "string" => ValueType::String,
        "integer" => ValueType::Integer,
        "float" => ValueType::Float,
        "object" => ValueType::Object,
        other => panic!("unknown type {other}"),
    }
}

/// What is wrong with the engine's answer to `case`, if anything.
fn kit_failure(case: &Value, set: &FlagSet) -> Option<String> {
    let key = case["flagKey"].as_str().unwrap();
    let wanted = value_type(case["type"].as_str().unwrap());
    let evaluation = set.evaluate(key, &context(&case["context"]), NOW).require(wanted);
    let (value, reason, error) = match &evaluation.outcome {
        Outcome::Value { value, reason, .. } => (*value, reason.as_str(), ""),
        Outcome::CodeDefault { reason } => (&case["codeDefault"], reason.as_str(), ""),
        Outcome::Error { code, .. } => (&case["codeDefault"], "ERROR", code.as_str()),
    };
    for (name, expected) in case["expect"].as_object().unwrap() {
        let holds = match name.as_str() {
            "value" => expected == value,
            "reason" => expected == reason,
            "errorCode" => expected == error,
            "metadata" => expected.as_object().unwrap() == evaluation.metadata,
            other => panic!("unknown expectation {other}"),
        };
        if !holds {
            return Some(format!("{key} {}: {name} is not {expected}: {evaluation:?}", case["context"]));
        }
    }
    None
}

#[test]
fn every_case_of_flagds_evaluator_kit_passes() {
    let cases = data("flag-evaluation-cases.json");
    let cases = cases.as_array().unwrap();
    let (v1, v2) = (kit_with("v1"), kit_with("v2"));
    let mut counted = (0, 0);
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|case| match case["bucketing"].as_str().unwrap() {
            "v1" => {
                counted.0 += 1;
                kit_failure(case, &v1)
            }
            "v2" => {
                counted.1 += 1;
                kit_failure(case, &v2)
            }
            other => panic!("unknown generation {other}"),
        })
        .collect();
    assert_eq!(counted, (15, 125), "the case file is complete");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_kit_tells_the_hash_generations_apart() {
    let cases = data("flag-evaluation-cases.json");
    let v3 = kit_with("v3");
    let failures = cases.as_array().unwrap().iter().filter(|case| kit_failure(case, &v3).is_some()).count();
    assert!(failures > 10, "only {failures} cases notice another hash");
}

#[test]
fn every_jsonlogic_reference_case_passes() {
    let cases = data("jsonlogic-cases.json");
    let cases: Vec<_> = cases.as_array().unwrap().iter().filter_map(Value::as_array).collect();
    assert_eq!(cases.len(), 275, "the case file is complete");
    let mut failures = Vec::new();
    for case in cases {
        let result = Rule::compile(&case[0]).unwrap().apply(&case[1]);
        if result.as_ref() != Ok(&case[2]) {
            failures.push(format!("{} over {}: {result:?}, not {}", case[0], case[1], case[2]));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn validation_names_exactly_the_doubtful_rules_of_the_kit() {
    let problems = FlagSet::validate(&data("flag-evaluation-flags.json")).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        places,
        [
            "/flags/ends-with-wrong-args-flag/targeting/ends_with",
            "/flags/fractional-negative-weight-flag/targeting/fractional",
            "/flags/ref-to-nonexistent-evaluator-flag/targeting/if/0/$ref",
            "/flags/semver-invalid-operator-flag/targeting/sem_ver",
            "/flags/semver-wrong-args-flag/targeting/sem_ver",
            "/flags/starts-with-wrong-args-flag/targeting/starts_with",
        ]
    );
}

// JSONLogic beyond the reference cases.

#[track_caller]
fn check_rule(rule: &Value, data: &Value, expected: &Result<Value, EvalError>) {
    let result = Rule::compile(rule).unwrap().apply(data);
    // Compared as text, so that the spelling of numbers counts.
    assert_eq!(result.map(|value| value.to_string()), expected.clone().map(|value| value.to_string()), "{rule}");
}

#[test]
fn numbers_keep_their_spelling() {
    let spelled: Value = serde_json::from_str(r#"{"a": 1.0, "b": 10000000000000001, "c": 1e2}"#).unwrap();
    check_rule(&json!({ "var": "a" }), &spelled, &Ok(json!(1.0)));
    check_rule(&json!({ "var": "b" }), &spelled, &Ok(json!(10_000_000_000_000_001_u64)));
    check_rule(&json!({ "+": [{ "var": "b" }, 1] }), &spelled, &Ok(json!(10_000_000_000_000_002_u64)));
    check_rule(&json!({ "/": [6, 3] }), &spelled, &Ok(json!(2)));
    check_rule(&json!({ "/": [7, 2] }), &spelled, &Ok(json!(3.5)));
    check_rule(&json!({ "%": [-7, 2] }), &spelled, &Ok(json!(-1)));
}

#[test]
fn arithmetic_never_overflows_and_never_makes_a_nan() {
    check_rule(&json!({ "*": [u64::MAX, u64::MAX, u64::MAX] }), &json!(null), &Ok(json!(6.277_101_735_386_681e57)));
    check_rule(&json!({ "+": [i64::MAX, 1] }), &json!(null), &Ok(json!(9_223_372_036_854_775_808_u64)));
    check_rule(&json!({ "-": [i64::MIN, 1] }), &json!(null), &Ok(json!(-9_223_372_036_854_775_808.0)));
    check_rule(&json!({ "*": [1e308, 10] }), &json!(null), &Err(EvalError::NotANumber));
    for rule in [
        json!({ "/": [1, 0] }),
        json!({ "%": [1, 0] }),
        json!({ "+": ["x", 1] }),
        json!({ "max": [1, {}] }),
        json!({ "min": [] }),
        json!({ "-": [[1, 2]] }),
    ] {
        check_rule(&rule, &json!(null), &Err(EvalError::NotANumber));
    }
}

#[test]
fn comparing_with_what_is_no_number_is_false() {
    for sign in ["<", "<=", ">", ">="] {
        check_rule(&json!({ sign: ["abc", 1] }), &json!(null), &Ok(json!(false)));
        check_rule(&json!({ sign: [1] }), &json!(null), &Ok(json!(false)));
    }
}

#[test]
fn where_the_engines_of_flagd_differ_ours_does_what_the_cross_check_says() {
    // One or two rules for each class that `tests/crosscheck/flag.mjs` names.
    let missing = json!({ "var": "gone" });
    let cases = [
        (json!({ "all": [missing, true] }), Ok(json!(false))),
        (json!({ "none": [missing, true] }), Ok(json!(true))),
        (json!({ "==": ["pro", 1] }), Ok(json!(false))),
        (json!({ "!=": ["pro", 1] }), Ok(json!(true))),
        (json!({ "<": ["pro", 1] }), Ok(json!(false))),
        (json!({ "==": [missing, 0] }), Ok(json!(false))),
        (json!({ "==": [missing, false] }), Ok(json!(false))),
        (json!({ "min": [missing, 7] }), Ok(json!(0))),
        (json!({ "substr": [missing, 1, 2] }), Ok(json!("ul"))),
        (json!({ "cat": ["a", missing] }), Ok(json!("anull"))),
        (json!({ "if": [true, "on", { "%": [1, 0] }] }), Ok(json!("on"))),
        (json!({ "%": [1, 0] }), Err(EvalError::NotANumber)),
        (json!({ "==": ["", 0] }), Ok(json!(true))),
        (json!({ "===": [true, 1] }), Ok(json!(false))),
        (json!({ "in": [false, [0]] }), Ok(json!(false))),
        (json!({ "%": [-1, 2] }), Ok(json!(-1))),
        (json!({ "-": [10, missing] }), Ok(json!(10))),
        (json!({ "<": [1, 2, missing] }), Ok(json!(false))),
        (json!({ ">": ["pro", missing] }), Ok(json!(false))),
    ];
    for (rule, expected) in cases {
        check_rule(&rule, &json!({}), &expected);
    }
}

#[test]
fn var_takes_its_default_for_what_is_absent_or_null() {
    let data = json!({ "a": null, "list": [{ "b": 0 }] });
    check_rule(&json!({ "var": ["a", 7] }), &data, &Ok(json!(7)));
    check_rule(&json!({ "var": ["list.0.b", 7] }), &data, &Ok(json!(0)));
    check_rule(&json!({ "var": ["list.1.b", { "+": [1, 1] }] }), &data, &Ok(json!(2)));
    check_rule(&json!({ "var": { "cat": ["list.", 0, ".b"] } }), &data, &Ok(json!(0)));
}

#[test]
fn text_is_counted_in_characters() {
    check_rule(&json!({ "substr": ["naïveté", -2] }), &json!(null), &Ok(json!("té")));
    check_rule(&json!({ "substr": ["日本語", 1, 1] }), &json!(null), &Ok(json!("本")));
    check_rule(&json!({ "substr": ["abc", -9, 99] }), &json!(null), &Ok(json!("abc")));
    check_rule(&json!({ "substr": ["abc", 1e300, -1e300] }), &json!(null), &Ok(json!("")));
}

// Order of decisions.

#[test]
fn a_disabled_flag_is_off_for_everybody_overridden_or_not() {
    let mut document = document(&json!({ "if": [true, "on"] }));
    document["flags"]["f"]["overrides"] = json!({ "ann": "on" });
    assert_eq!(answer(&document, &json!({ "targetingKey": "ann" })), Ok(("on".into(), Reason::TargetingMatch)));
    document["flags"]["f"]["state"] = json!("DISABLED");
    assert_eq!(answer(&document, &json!({ "targetingKey": "ann" })), Ok((String::new(), Reason::Disabled)));
    document["settings"] = json!({ "serveDefaultWhenDisabled": true });
    assert_eq!(answer(&document, &json!({ "targetingKey": "ann" })), Ok(("off".into(), Reason::Disabled)));
}

#[test]
fn an_override_wins_over_the_rule_and_concerns_one_user_only() {
    let mut document = document(&json!({ "if": [true, "off"] }));
    document["flags"]["f"]["overrides"] = json!({ "default": "on", "config": "on", "f": "on", "a:b": "on" });
    for user in ["default", "config", "f", "a:b"] {
        assert_eq!(answer(&document, &json!({ "targetingKey": user })), Ok(("on".into(), Reason::TargetingMatch)));
    }
    for user in ["defaul", "a", "overrides", ""] {
        assert_eq!(answer(&document, &json!({ "targetingKey": user })), Ok(("off".into(), Reason::TargetingMatch)));
    }
    assert_eq!(answer(&document, &json!({})), Ok(("off".into(), Reason::TargetingMatch)));
}

#[test]
fn the_reason_says_split_only_when_a_fractional_chose() {
    let split = json!({ "fractional": [["on", 1], ["off", 1]] });
    let (_, reason) = answer(&document(&split), &json!({ "targetingKey": "u" })).unwrap();
    assert_eq!(reason, Reason::Split);
    assert_eq!(answer(&document(&split), &json!({})), Ok(("off".into(), Reason::Default)));
    let guarded = json!({ "if": [{ "var": "beta" }, split, "off"] });
    assert_eq!(
        answer(&document(&guarded), &json!({ "targetingKey": "u" })),
        Ok(("off".into(), Reason::TargetingMatch))
    );
}

#[test]
fn flagds_own_properties_cannot_be_forged() {
    let rule = json!({ "if": [{ "and": [{ "==": [{ "var": "$flagd.flagKey" }, "f"] }, { "===": [{ "var": "$flagd.timestamp" }, 1_700_000_000] }] }, "on"] });
    let forged = json!({ "$flagd": { "flagKey": "x", "timestamp": 0 } });
    assert_eq!(answer(&document(&rule), &forged), Ok(("on".into(), Reason::TargetingMatch)));
}

#[test]
fn a_rule_that_names_no_variant_is_general() {
    assert_eq!(answer(&document(&json!({ "var": "x" })), &json!({ "x": "nope" })), Err(ErrorCode::General));
    assert_eq!(
        answer(&document(&json!({ "var": "x" })), &json!({ "x": ["on"] })),
        Ok(("on".into(), Reason::TargetingMatch))
    );
    assert_eq!(
        answer(&document(&json!({ "+": [{ "var": "x" }, 1] })), &json!({ "x": "text" })),
        Err(ErrorCode::General)
    );
}

#[test]
fn metadata_of_the_flag_covers_the_sets() {
    let mut document = document(&json!({}));
    document["metadata"] = json!({ "flagSetId": "shop", "team": "core" });
    document["flags"]["f"]["metadata"] = json!({ "team": "checkout", "ratio": 1.0 });
    let set = load(&document);
    let metadata = serde_json::to_string(set.evaluate("f", &context(&json!({})), NOW).metadata).unwrap();
    assert_eq!(metadata, r#"{"flagSetId":"shop","ratio":1.0,"team":"checkout"}"#);
    assert_eq!(set.evaluate("none", &context(&json!({})), NOW).metadata, set.metadata());
}

#[test]
fn bulk_answers_equal_single_answers() {
    let set = kit_with("v3");
    let who = context(
        &json!({ "targetingKey": "jon@company.com", "tier": "premium", "version": 1.2, "email": "ballmer@macrosoft.com" }),
    );
    let all = set.evaluate_all(&who, NOW);
    assert_eq!(all.len(), set.keys().count());
    for evaluation in all {
        assert_eq!(evaluation, set.evaluate(evaluation.key, &who, NOW));
    }
}

// References.

fn with_evaluators(targeting: &Value, evaluators: &Value) -> Value {
    let mut document = document(targeting);
    document["$evaluators"] = evaluators.clone();
    document
}

#[test]
fn references_nest() {
    let evaluators = json!({
        "staff": { "ends_with": [{ "var": "email" }, "@example.com"] },
        "tester": { "and": [{ "$ref": "staff" }, { "var": "beta" }] },
        "anyone": { "or": [{ "$ref": "tester" }, { "$ref": "staff" }] },
    });
    let document =
        with_evaluators(&json!({ "if": [{ "$ref": "tester" }, "on", { "$ref": "anyone" }, "off", null] }), &evaluators);
    FlagSet::validate(&document).unwrap();
    assert_eq!(answer(&document, &json!({ "email": "a@example.com", "beta": true })).unwrap().0, "on");
    assert_eq!(answer(&document, &json!({ "email": "a@example.com" })).unwrap().1, Reason::TargetingMatch);
    assert_eq!(answer(&document, &json!({ "email": "a@elsewhere" })).unwrap().1, Reason::Default);
}

#[test]
fn circular_references_break_only_the_rules_that_need_them() {
    let evaluators = json!({
        "a": { "!": { "$ref": "b" } }, "b": { "!": { "$ref": "a" } }, "self": { "$ref": "self" },
        "outside": { "$ref": "a" }, "fine": { "!!": true },
    });
    for name in ["a", "b", "self", "outside"] {
        let document = with_evaluators(&json!({ "if": [{ "$ref": name }, "on"] }), &evaluators);
        assert_eq!(answer(&document, &json!({})), Err(ErrorCode::ParseError), "{name}");
    }
    let document = with_evaluators(&json!({ "if": [{ "$ref": "fine" }, "on"] }), &evaluators);
    assert_eq!(answer(&document, &json!({})), Ok(("on".into(), Reason::TargetingMatch)));
    let problems: Vec<_> = FlagSet::validate(&document).unwrap_err().iter().map(Problem::to_string).collect();
    assert_eq!(
        problems,
        [
            "/$evaluators/a: a circular $ref",
            "/$evaluators/b: a circular $ref",
            "/$evaluators/outside: $ref to \"a\", which is wrong itself",
            "/$evaluators/self: a circular $ref",
        ]
    );
}

#[test]
fn references_that_multiply_end_in_bounded_time() {
    // Each level evaluates the one below twice: 2^20 evaluations if nothing stopped them.
    let mut evaluators = Map::new();
    evaluators.insert("e0".into(), json!({ "!!": true }));
    for level in 1..=20 {
        let below = json!({ "$ref": format!("e{}", level - 1) });
        evaluators.insert(format!("e{level}"), json!({ "merge": [below, below] }));
    }
    let document = with_evaluators(&json!({ "if": [{ "$ref": "e20" }, "on"] }), &evaluators.into());
    assert_eq!(answer(&document, &json!({})), Err(ErrorCode::General));
}

#[test]
fn a_chain_of_references_deeper_than_the_limit_is_refused() {
    let mut evaluators = Map::new();
    evaluators.insert("e0".into(), json!({ "!!": true }));
    for level in 1..MAX_EVALUATORS {
        evaluators.insert(format!("e{level}"), json!({ "!": { "$ref": format!("e{}", level - 1) } }));
    }
    let last = format!("e{}", MAX_EVALUATORS - 1);
    let document = with_evaluators(&json!({ "if": [{ "$ref": last }, "on"] }), &evaluators.into());
    assert_eq!(answer(&document, &json!({})), Err(ErrorCode::ParseError));
}

// Validation.

/// The first problem of the document with `change` applied to a good one.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut Value), expected: &str) {
    let mut document = document(&json!({ "if": [true, "on", "off"] }));
    FlagSet::validate(&document).unwrap();
    change(&mut document);
    let problems = FlagSet::validate(&document).unwrap_err();
    assert_eq!(problems[0].to_string(), expected);
}

#[test]
fn every_kind_of_fault_is_named_by_its_place() {
    let flag = |document: &mut Value, member: &str, value: Value| document["flags"]["f"][member] = value;
    check_refused(|d| *d = json!([]), "must be an object");
    check_refused(|d| *d = json!({}), "/flags: a document needs its flags, as an object or an array");
    check_refused(|d| d["flag"] = json!({}), "/flag: unknown member");
    check_refused(|d| d["flags"]["a/b~"] = json!(1), "/flags/a~1b~0: must be an object");
    check_refused(
        |d| d["flags"][""] = d["flags"]["f"].clone(),
        "/flags/: a name is 1 to 256 bytes long, without control characters",
    );
    check_refused(|d| d["metadata"] = json!({ "a": [] }), "/metadata/a: must be a boolean, a string or a number");
    check_refused(
        |d| d["settings"] = json!({ "bucketing": "v4" }),
        "/settings/bucketing: must be one of \"v1\", \"v2\", \"v3\"",
    );
    check_refused(
        |d| d["settings"] = json!({ "serveDefaultWhenDisabled": 1 }),
        "/settings/serveDefaultWhenDisabled: must be true or false",
    );
    check_refused(|d| flag(d, "state", json!("ON")), "/flags/f/state: must be \"ENABLED\" or \"DISABLED\"");
    check_refused(|d| flag(d, "variants", json!({})), "/flags/f/variants: must be an object with at least one variant");
    check_refused(
        |d| flag(d, "variants", json!({ "on": 1, "off": "1" })),
        "/flags/f/variants/on: the variants of a flag are all of one type",
    );
    check_refused(
        |d| flag(d, "variants", json!({ "on": [], "off": "" })),
        "/flags/f/variants/on: a variant is a boolean, a string, a number or an object",
    );
    check_refused(
        |d| flag(d, "defaultVariant", json!("none")),
        "/flags/f/defaultVariant: must be the name of one of the variants, or null",
    );
    check_refused(
        |d| flag(d, "overrides", json!({ "u": "none" })),
        "/flags/f/overrides/u: must be the name of one of the variants",
    );
    check_refused(|d| flag(d, "defualtVariant", json!("on")), "/flags/f/defualtVariant: unknown member");
    check_refused(|d| flag(d, "targeting", json!("on")), "/flags/f/targeting: a rule is an object");
    check_refused(
        |d| flag(d, "targeting", json!({ "if": [{ "xor": [1, 2] }, "on"] })),
        "/flags/f/targeting/if/0/xor: unknown operator \"xor\"",
    );
    check_refused(
        |d| flag(d, "targeting", json!({ "if": [{ "!": 1, "!!": 2 }, "on"] })),
        "/flags/f/targeting/if/0: a rule is an object with exactly one operator",
    );
    check_refused(
        |d| flag(d, "targeting", json!({ "if": [{ "$ref": 1 }, "on"] })),
        "/flags/f/targeting/if/0/$ref: $ref takes the name of an evaluator as a string",
    );
    check_refused(
        |d| flag(d, "targeting", json!({ "if": [1, "no", { "fractional": [["off"], ["x", 2]] }] })),
        "/flags/f/targeting/if/1: \"no\" is not one of the flag's variants",
    );
    check_refused(
        |d| flag(d, "targeting", json!({ "if": [1, "on", { "fractional": [["off"], ["x", 2]] }] })),
        "/flags/f/targeting/if/2/fractional/1/0: \"x\" is not one of the flag's variants",
    );
    check_refused(|d| flag(d, "targeting", json!({ "==": [1] })), "/flags/f/targeting/==: == takes 2 arguments");
    check_refused(
        |d| flag(d, "targeting", json!({ "fractional": "on" })),
        "/flags/f/targeting/fractional: fractional takes an array of buckets, each [variant] or [variant, weight]",
    );
}

#[test]
fn weights_that_overflow_are_refused_and_never_evaluated() {
    let overflow = "/flags/f/targeting/fractional: the sum of weights is above 2147483647";
    let rule = |a: Value, b: Value| json!({ "fractional": [["on", a], ["off", b]] });
    let fits = rule(json!(MAX_TOTAL_WEIGHT - 1), json!(1));
    FlagSet::validate(&document(&fits)).unwrap();
    assert_eq!(answer(&document(&fits), &json!({ "targetingKey": "u" })).unwrap().1, Reason::Split);
    for weight in [json!(MAX_TOTAL_WEIGHT), json!(u64::MAX), json!(i64::MAX)] {
        check_refused(|d| d["flags"]["f"]["targeting"] = rule(weight.clone(), json!(1)), overflow);
        assert_eq!(
            answer(&document(&rule(weight, json!(1))), &json!({ "targetingKey": "u" })),
            Ok(("off".into(), Reason::Default))
        );
    }
    for weight in [json!(1.5), json!("1"), json!(true), json!(1e300), json!({ "var": "huge" })] {
        let fields = json!({ "targetingKey": "u", "huge": u64::MAX });
        assert_eq!(answer(&document(&rule(weight, json!(1))), &fields), Ok(("off".into(), Reason::Default)));
    }
}

#[test]
fn flags_may_come_as_an_array() {
    let flag = json!({ "key": "f", "state": "ENABLED", "variants": { "on": true }, "defaultVariant": "on" });
    let document = json!({ "flags": [flag] });
    FlagSet::validate(&document).unwrap();
    assert_eq!(answer(&document, &json!({})), Ok(("on".into(), Reason::Static)));
    let problems = FlagSet::validate(&json!({ "flags": [flag, flag] })).unwrap_err();
    assert_eq!(problems[0].to_string(), "/flags/1: a flag with this key came before");
}

#[test]
fn a_flag_names_no_other_key_than_its_own() {
    for named in [json!("g"), json!(5), json!(null)] {
        let flag = json!({ "key": named, "state": "ENABLED", "variants": { "on": true } });
        let problems = FlagSet::validate(&json!({ "flags": { "f": flag } })).unwrap_err();
        assert_eq!(problems[0].to_string(), "/flags/f/key: must be the flag's own key");
    }
}

// Hostile documents, rules and contexts.

#[test]
fn a_document_too_large_in_any_way_is_refused() {
    let flag = &document(&json!({}))["flags"]["f"];
    let many: Map<_, _> = (0..=MAX_FLAGS).map(|n| (format!("f{n}"), flag.clone())).collect();
    assert_eq!(
        FlagSet::load(&json!({ "flags": many })).unwrap_err().to_string(),
        "/flags: must have at most 5000 entries"
    );
    let wide = json!({ "flags": {}, "metadata": { "a": vec![0; 300_000] } });
    assert_eq!(FlagSet::load(&wide).unwrap_err().message, "the document has more than 200000 values");
    let long = json!({ "flags": { "x".repeat(100_000): {} } });
    assert_eq!(FlagSet::load(&long).unwrap_err().message, "the document has a string longer than 65536 bytes");
    let mut deep = json!(1);
    for _ in 0..5_000 {
        deep = json!([deep]);
    }
    assert_eq!(
        FlagSet::load(&json!({ "flags": deep })).unwrap_err().message,
        "the document is nested deeper than 110 levels"
    );
    std::mem::forget(deep);
}

#[test]
fn a_document_full_of_faults_reports_the_first_fifty() {
    let doubtful = json!({ "or": vec![json!({ "==": [] }); 5_000] });
    let flags: Map<_, _> = (0..10).map(|n| (format!("f{n}"), document(&doubtful)["flags"]["f"].clone())).collect();
    assert_eq!(FlagSet::validate(&json!({ "flags": flags })).unwrap_err().len(), 50);
}

#[test]
fn metadata_is_small_because_every_answer_carries_it() {
    check_refused(
        |d| d["metadata"] = json!({ "a": "x".repeat(5_000) }),
        "/metadata: the metadata has a string longer than 4096 bytes",
    );
    check_refused(
        |d| d["flags"]["f"]["metadata"] = json!({ "a": "x".repeat(4_090) }),
        "/flags/f/metadata: the metadata is larger than 4096 bytes",
    );
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(true), |rule, _| json!({ "!": [rule] }))
}

#[test]
fn a_context_too_large_says_which_bound_and_which_member() {
    let refused = |value: Value| EvaluationContext::new(value).unwrap_err().to_string();
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(
        refused(json!({ "a": 1, "bio": [long] })),
        "the context's member \"bio\" has a string longer than 65536 bytes"
    );
    assert_eq!(refused(json!({ "a": vec![0; 10_000] })), "the context's member \"a\" has more than 10000 values");
    assert_eq!(refused(json!({ "a": vec![0; 6_000], "b": vec![0; 6_000] })), "the context has more than 10000 values");
    assert_eq!(refused(json!({ long: 1 })), "the context has a string longer than 65536 bytes");
}

#[test]
fn the_deepest_rule_works_and_one_level_more_is_refused() {
    let deepest = nested(MAX_DEPTH);
    assert_eq!(Rule::compile(&deepest).unwrap().apply(&json!(null)), Ok(json!(true)));
    assert_eq!(Rule::compile(&nested(MAX_DEPTH + 1)).unwrap_err().1, RuleError::TooDeep);
    let text = document(&nested(MAX_DEPTH)).to_string();
    let parsed: Value = serde_json::from_str(&text).expect("a rule within the limit can be read from text");
    assert!(FlagSet::load(&parsed).is_ok());
}

#[test]
fn a_rule_with_too_many_nodes_is_refused() {
    let rule = json!({ "in": [1, vec![0; MAX_NODES]] });
    assert_eq!(Rule::compile(&rule).unwrap_err().1, RuleError::TooManyNodes);
}

#[test]
fn loops_over_large_contexts_end_in_an_error() {
    let data = json!({ "list": vec![1; 9_000], "text": "x".repeat(60_000) });
    let list = json!({ "var": "list" });
    let square = json!({ "map": [list, { "map": [list, 1] }] });
    assert_eq!(
        Rule::compile(&square).unwrap().apply(&data),
        Ok(json!(vec![json!([]); 9_000])),
        "inner loops see the element only"
    );
    let doubling = json!({ "reduce": [list, { "merge": [{ "var": "accumulator" }, { "var": "accumulator" }] }, [1]] });
    let exploding = json!({ "reduce": [list, { "cat": [{ "var": "accumulator" }, { "var": "accumulator" }] }, "x"] });
    let deepening = json!({ "reduce": [list, [{ "var": "accumulator" }], 1] });
    let copying = json!({ "map": [list, { "cat": ["x".repeat(60_000)] }] });
    for (rule, error) in [
        (doubling, EvalError::TooManySteps),
        (exploding, EvalError::TooManySteps),
        (deepening, EvalError::TooDeep),
        (copying, EvalError::TooManySteps),
    ] {
        assert_eq!(Rule::compile(&rule).unwrap().apply(&data), Err(error), "{rule}");
    }
}

#[test]
fn one_expensive_flag_does_not_spend_every_flags_steps() {
    let expensive = json!({ "if": [{ "reduce": [{ "var": "list" }, { "merge": [{ "var": "accumulator" }, { "var": "list" }] }, []] }, "on"] });
    let mut document = document(&expensive);
    document["flags"]["g"] = document["flags"]["f"].clone();
    document["flags"]["g"]["targeting"] = json!({ "if": [true, "on"] });
    let set = load(&document);
    let all = set.evaluate_all(&context(&json!({ "list": vec![1; 9_000] })), NOW);
    assert!(matches!(all[0].outcome, Outcome::Error { code: ErrorCode::General, .. }));
    assert!(matches!(all[1].outcome, Outcome::Value { variant: "on", .. }));
}

#[test]
fn contexts_are_checked() {
    let refused = |value: Value| EvaluationContext::new(value).unwrap_err();
    assert_eq!(refused(json!([])), ContextError::NotAnObject);
    assert_eq!(refused(json!({ "targetingKey": 7 })), ContextError::TargetingKeyIsNotText);
    assert!(matches!(refused(json!({ "a": vec!["x".repeat(1000); 1000] })), ContextError::MemberTooLarge(..)));
    assert!(matches!(refused(json!({ "a": vec![0; 100_000] })), ContextError::MemberTooLarge(..)));
    assert_eq!(context(&json!({ "targetingKey": null })).targeting_key(), None);
    let forged = context(&json!({ "cf": "mine" })).with("cf", json!({ "country": "NL" }));
    assert_eq!(forged.fields()["cf"]["country"], "NL");
}

// Bucketing.

#[test]
fn murmur3_equals_published_vectors() {
    // https://en.wikipedia.org/wiki/MurmurHash#Test_vectors, those with seed zero.
    let vectors = [
        ("", 0),
        ("test", 0xba6b_d213),
        ("Hello, world!", 0xc036_3e43),
        ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
    ];
    for (text, hash) in vectors {
        assert_eq!(murmur3(text.as_bytes()), hash, "{text}");
    }
}

#[test]
fn v3_hashes_equal_those_of_flagds_python_engine() {
    // PyPI openfeature-flagd-core 2.0.0.
    let vectors = [
        (r#""jon@company.com""#, 0x1bcc_fe8b),
        (r#"["flag","user-1"]"#, 0x47cf_a3cb),
        (r#""日本""#, 0x00f4_ecbf),
        ("0", 0x514e_28b7),
        ("-1", 0x7ef4_9b98),
        ("1.5", 0x14ad_e9b6),
        ("0.1", 0x0680_c93c),
        ("1e-7", 0x33b2_8f4c),
        ("16777217.5", 0x718f_691f),
        ("3.4028234663852886e38", 0x5e54_1bbf),
        ("5.960464477539063e-8", 0xe53d_042b),
        ("18446744073709551615", 0x71bb_7821),
        ("-9223372036854775808", 0x1494_852d),
        ("true", 0x31d7_a60b),
        (r#"{"b":[1.0,null],"a":{"x":"y"},"aa":-0.0}"#, 0xf2b4_39c8),
        ("[]", 0x0feb_9e1d),
    ];
    for (text, hash) in vectors {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(HashGeneration::V3.hash(&value), Ok(Some(hash)), "{text}");
    }
}

#[test]
fn v3_hashes_equal_numbers_equally_and_other_types_differently() {
    let hash = |value: Value| HashGeneration::V3.hash(&value).unwrap();
    assert_eq!(hash(json!(1)), hash(json!(1.0)));
    assert_eq!(hash(json!({ "a": [1, -0.0], "b": 2 })), hash(json!({ "b": 2.0, "a": [1.0, 0] })));
    assert_ne!(hash(json!(1)), hash(json!("1")));
    assert_ne!(hash(json!(true)), hash(json!("true")));
    assert_eq!(hash(json!(null)), None);
    assert_eq!(HashGeneration::V2.hash(&json!(1)), Ok(None));
}

#[test]
fn shorthands_are_ambiguous_in_v2_and_not_in_v3() {
    let (v2, v3) = (HashGeneration::V2, HashGeneration::V3);
    assert_eq!(v2.shorthand("a", "bc"), v2.shorthand("ab", "c"));
    assert_ne!(v3.shorthand("a", "bc"), v3.shorthand("ab", "c"));
}

#[test]
fn the_extreme_hashes_fall_into_the_first_and_the_last_bucket() {
    for generation in [HashGeneration::V2, HashGeneration::V3] {
        assert_eq!(generation.choose(0, &[0, 1, 1]), Some(1));
        assert_eq!(generation.choose(u32::MAX, &[1, 1, 0]), Some(1));
    }
    assert_eq!(HashGeneration::V1.choose(0x8000_0000, &[1, 1, 0]), Some(1), "|i32::MIN| is above 100 %");
    for generation in [HashGeneration::V1, HashGeneration::V2, HashGeneration::V3] {
        assert_eq!(generation.choose(7, &[0, 0]), None);
        assert_eq!(generation.choose(7, &[]), None);
    }
}

#[test]
fn native_buckets_have_published_values() {
    // printf 'salt\037unit' | sha256sum
    assert_eq!(sha256_hash("salt", "unit"), 0x6451_a2cd_fa97_9a09);
    assert_eq!(sha256_bucket("salt", "unit", 0), 0);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Any rule, well-formed or not, over the paths of the context beside it.
fn rule() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 38] = [
        "var",
        "missing",
        "missing_some",
        "if",
        "==",
        "===",
        "!=",
        "!==",
        "!",
        "!!",
        "or",
        "and",
        ">",
        ">=",
        "<",
        "<=",
        "max",
        "min",
        "+",
        "-",
        "*",
        "/",
        "%",
        "map",
        "filter",
        "reduce",
        "all",
        "none",
        "some",
        "merge",
        "in",
        "cat",
        "substr",
        "fractional",
        "sem_ver",
        "starts_with",
        "ends_with",
        "$ref",
    ];
    let leaf = prop_oneof![
        json_value(),
        prop::sample::select(vec!["a", "a.b", "0", "", "accumulator", "current", "targetingKey"]).prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let operation = (prop::sample::select(NAMES.to_vec()), prop::collection::vec(inner.clone(), 0..4))
            .prop_map(|(name, arguments)| json!({ name: arguments }));
        prop_oneof![4 => operation, 1 => prop::collection::vec(inner, 0..3).prop_map(Value::from)]
    })
}

proptest! {
    #[test]
    fn any_rule_over_any_data_answers_the_same_twice_and_never_panics(rule in rule(), data in json_value(), user in ".{0,12}") {
        if let Ok(rule) = Rule::compile(&rule) {
            prop_assert_eq!(rule.apply(&data), rule.apply(&data));
        }
        let set = load(&document(&rule));
        let who = context(&json!({ "targetingKey": user, "a": data }));
        prop_assert_eq!(set.evaluate("f", &who, NOW), set.evaluate("f", &who, NOW));
    }

    #[test]
    fn loading_any_json_never_panics(document in json_value()) {
        let _ = FlagSet::load(&document);
        let _ = FlagSet::validate(&json!({ "flags": document }));
    }

    #[test]
    fn every_unit_gets_a_bucket_with_a_positive_weight(hash: u32, weights in prop::collection::vec(0_u64..1000, 1..8)) {
        for generation in [HashGeneration::V1, HashGeneration::V2, HashGeneration::V3] {
            match generation.choose(hash, &weights) {
                Some(index) => prop_assert!(weights[index] > 0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }

    #[test]
    fn native_buckets_stay_below_their_count(salt in "[a-z]{1,8}", unit in ".{1,20}", total in 1_u64..) {
        prop_assert!(sha256_bucket(&salt, &unit, total) < total);
    }
}

#[test]
fn weights_are_met_within_sampling_error() {
    for generation in [HashGeneration::V1, HashGeneration::V2, HashGeneration::V3] {
        let mut counts = [0_i32; 3];
        for user in 0..100_000 {
            let unit = generation.shorthand("flag", &format!("user-{user}"));
            let hash = generation.hash(&unit).unwrap().unwrap();
            counts[generation.choose(hash, &[10, 30, 60]).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip([10_000, 30_000, 60_000]) {
            assert!((count - share).abs() < 800, "{generation:?}: {counts:?}");
        }
    }
}
