//! Goal: JSON Merge Patch and JSON Patch do what their RFCs say, and nothing a stranger sends makes them do more.
//! Method: the table of RFC 7396 appendix A, the cases of RFC 6902 appendix A (as data of our own), then limits.
#![allow(clippy::needless_pass_by_value, reason = "a JSON literal is handed over at the place where it stands")]

use kv_patterns::etag::{Precondition, entity_tag};
use kv_patterns::patch::{Bounds, Patch, PatchError, check, overlay};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const BOUNDS: Bounds = Bounds { bytes_max: 64 * 1024, depth_max: 32 };

#[track_caller]
fn check_merge(original: Value, patch: Value, expected: Value) {
    let text = format!("{original} with {patch}");
    assert_eq!(Patch::Merge(patch).apply(original, BOUNDS), Ok(expected), "{text}");
}

/// RFC 7396 appendix A, row by row.
#[test]
fn the_table_of_rfc_7396_holds() {
    check_merge(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}));
    check_merge(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}));
    check_merge(json!({"a":"b"}), json!({"a":null}), json!({}));
    check_merge(json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"}));
    check_merge(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}));
    check_merge(json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]}));
    check_merge(json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}}));
    check_merge(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}));
    check_merge(json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"]));
    check_merge(json!({"a":"b"}), json!(["c"]), json!(["c"]));
    check_merge(json!({"a":"foo"}), json!(null), json!(null));
    check_merge(json!({"a":"foo"}), json!("bar"), json!("bar"));
    check_merge(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}));
    check_merge(json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"}));
    check_merge(json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}}));
}

fn apply(document: Value, operations: Value) -> Result<Value, PatchError> {
    Patch::operations(operations)?.apply(document, BOUNDS)
}

#[track_caller]
fn check_patch(document: Value, operations: Value, expected: Result<Value, PatchError>) {
    let text = format!("{document} with {operations}");
    assert_eq!(apply(document, operations), expected, "{text}");
}

fn malformed(operation: usize, member: &'static str) -> PatchError {
    let why = match member {
        "op" => "must be one of: add, remove, replace, move, copy, test",
        "path" | "from" => "must be a JSON Pointer, such as \"/a/0\" (RFC 6901)",
        _ => "must be an object",
    };
    PatchError::Malformed { operation, member: Some(member).filter(|member| !member.is_empty()), why }
}

fn required(operation: usize, member: &'static str) -> PatchError {
    PatchError::Malformed { operation, member: Some(member), why: "required" }
}

fn impossible(operation: usize, why: &'static str) -> PatchError {
    PatchError::Impossible { operation, why }
}

/// RFC 6902 appendix A, A.1 to A.16; A.13 (a member twice) is refused before, by the parser.
#[test]
fn the_examples_of_rfc_6902_hold() {
    let nowhere = "\"path\" points to nothing";
    check_patch(
        json!({"foo":"bar"}),
        json!([{"op":"add","path":"/baz","value":"qux"}]),
        Ok(json!({"baz":"qux","foo":"bar"})),
    );
    check_patch(
        json!({"foo":["bar","baz"]}),
        json!([{"op":"add","path":"/foo/1","value":"qux"}]),
        Ok(json!({"foo":["bar","qux","baz"]})),
    );
    check_patch(json!({"baz":"qux","foo":"bar"}), json!([{"op":"remove","path":"/baz"}]), Ok(json!({"foo":"bar"})));
    check_patch(
        json!({"foo":["bar","qux","baz"]}),
        json!([{"op":"remove","path":"/foo/1"}]),
        Ok(json!({"foo":["bar","baz"]})),
    );
    check_patch(
        json!({"baz":"qux","foo":"bar"}),
        json!([{"op":"replace","path":"/baz","value":"boo"}]),
        Ok(json!({"baz":"boo","foo":"bar"})),
    );
    check_patch(
        json!({"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}),
        json!([{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]),
        Ok(json!({"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}})),
    );
    check_patch(
        json!({"foo":["all","grass","cows","eat"]}),
        json!([{"op":"move","from":"/foo/1","path":"/foo/3"}]),
        Ok(json!({"foo":["all","cows","eat","grass"]})),
    );
    check_patch(
        json!({"baz":"qux","foo":["a",2,"c"]}),
        json!([{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]),
        Ok(json!({"baz":"qux","foo":["a",2,"c"]})),
    );
    check_patch(
        json!({"baz":"qux"}),
        json!([{"op":"test","path":"/baz","value":"bar"}]),
        Err(PatchError::TestFailed(0)),
    );
    check_patch(
        json!({"foo":"bar"}),
        json!([{"op":"add","path":"/child","value":{"grandchild":{}}}]),
        Ok(json!({"foo":"bar","child":{"grandchild":{}}})),
    );
    check_patch(
        json!({"foo":"bar"}),
        json!([{"op":"add","path":"/baz","value":"qux","xyz":123}]),
        Ok(json!({"foo":"bar","baz":"qux"})),
    );
    check_patch(
        json!({"foo":"bar"}),
        json!([{"op":"add","path":"/baz/bat","value":"qux"}]),
        Err(impossible(0, nowhere)),
    );
    check_patch(json!({"/":9,"~1":10}), json!([{"op":"test","path":"/~01","value":10}]), Ok(json!({"/":9,"~1":10})));
    check_patch(
        json!({"/":9,"~1":10}),
        json!([{"op":"test","path":"/~01","value":"10"}]),
        Err(PatchError::TestFailed(0)),
    );
    check_patch(
        json!({"foo":["bar"]}),
        json!([{"op":"add","path":"/foo/-","value":["abc","def"]}]),
        Ok(json!({"foo":["bar",["abc","def"]]})),
    );
}

/// The rest of the public cases runs on the bundle: `tests/worker/patch.test.ts`.
#[test]
fn an_index_is_digits_without_leading_zeros_and_nothing_is_left_out_of_an_operation() {
    let nowhere = |operation| Err(impossible(operation, "\"path\" points to nothing"));
    let from_nowhere = Err(impossible(0, "\"from\" points to nothing"));
    check_patch(json!({"1e0":7}), json!([{"op":"test","path":"/1e0","value":7}]), Ok(json!({"1e0":7})));
    for index in ["1e0", "00", "01", "+1", " 1", "1.0", "-1", "x", "18446744073709551616"] {
        let (document, path) = (json!({"list":[7, 8, 9]}), format!("/list/{index}"));
        check_patch(document.clone(), json!([{"op":"test","path":path,"value":8}]), Err(PatchError::TestFailed(0)));
        for operation in [
            json!({"op":"remove","path":path}),
            json!({"op":"replace","path":path,"value":1}),
            json!({"op":"add","path":path,"value":1}),
        ] {
            check_patch(document.clone(), json!([operation]), nowhere(0));
        }
        check_patch(document.clone(), json!([{"op":"copy","from":path,"path":"/a"}]), from_nowhere.clone());
        check_patch(document, json!([{"op":"move","from":path,"path":"/a"}]), from_nowhere.clone());
    }
    check_patch(json!([5]), json!([{"op":"remove","path":"/1"}]), nowhere(0));
    check_patch(json!([5]), json!([{"op":"replace","path":"/1","value":6}]), nowhere(0));
    check_patch(json!({"a":{}}), json!([{"op":"replace","path":"/a/b","value":6}]), nowhere(0));
    check_patch(json!({"a":null}), json!([{"op":"copy","from":"/a","path":"/b"}]), Ok(json!({"a":null,"b":null})));
    for (operation, error) in [
        (json!({"op":"add","path":"/a"}), required(0, "value")),
        (json!({"op":"replace","path":"/a"}), required(0, "value")),
        (json!({"op":"test","path":"/a"}), required(0, "value")),
        (json!({"op":"copy","path":"/a"}), required(0, "from")),
        (json!({"op":"move","path":"/a"}), required(0, "from")),
        (json!({"op":"remove"}), required(0, "path")),
        (json!({"op":"Add","path":"/a","value":1}), malformed(0, "op")),
        (json!({"op":null,"path":"/a","value":1}), malformed(0, "op")),
        (json!({"op":"add","path":null,"value":1}), malformed(0, "path")),
        (json!({"op":"copy","from":"a","path":"/b"}), malformed(0, "from")),
    ] {
        check_patch(json!({"a":null}), json!([operation]), Err(error));
    }
}

#[test]
fn operations_at_the_edges_of_rfc_6902() {
    let nowhere = "\"path\" points to nothing";
    check_patch(json!({"a":1}), json!([{"op":"test","path":"/a","value":1.0}]), Ok(json!({"a":1})));
    check_patch(
        json!({"a":[1,{"b":2}]}),
        json!([{"op":"test","path":"","value":{"a":[1e0,{"b":2.0}]}}]),
        Ok(json!({"a":[1,{"b":2}]})),
    );
    check_patch(
        json!(9_007_199_254_740_993_u64),
        json!([{"op":"test","path":"","value":9_007_199_254_740_992_u64}]),
        Err(PatchError::TestFailed(0)),
    );
    check_patch(json!({"a":1}), json!([{"op":"add","path":"","value":[]}]), Ok(json!([])));
    check_patch(json!({"a":1}), json!([{"op":"move","from":"/a","path":"/a"}]), Ok(json!({"a":1})));
    check_patch(
        json!({"a":{"b":1}}),
        json!([{"op":"move","from":"/a","path":"/a/b"}]),
        Err(impossible(0, "a value cannot be moved into itself")),
    );
    check_patch(
        json!({"a":1}),
        json!([{"op":"copy","from":"/b","path":"/c"}]),
        Err(impossible(0, "\"from\" points to nothing")),
    );
    check_patch(json!([1]), json!([{"op":"remove","path":"/-"}]), Err(impossible(0, nowhere)));
    check_patch(json!([1, 2]), json!([{"op":"remove","path":"/01"}]), Err(impossible(0, nowhere)));
    check_patch(json!([1]), json!([{"op":"add","path":"/5","value":2}]), Err(impossible(0, nowhere)));
    check_patch(json!({"":1}), json!([{"op":"replace","path":"/","value":2}]), Ok(json!({"":2})));
}

#[test]
fn a_patch_applies_wholly_or_not_at_all() {
    let document = json!({"a":1});
    let patch = json!([{"op":"remove","path":"/a"},{"op":"test","path":"/b","value":1}]);
    assert_eq!(apply(document, patch), Err(PatchError::TestFailed(1)));
}

#[test]
fn what_is_not_a_patch_says_which_member_of_which_operation() {
    for (patch, expected) in [
        (json!({}), PatchError::NotAnArray),
        (json!([{"op":"test","path":"","value":1},{"op":"spam","path":"/a"}]), malformed(1, "op")),
        (json!([{"op":"add","path":"/a"}]), required(0, "value")),
        (json!([{"op":"add","path":"a","value":1}]), malformed(0, "path")),
        (json!([{"op":"add","path":"/~2","value":1}]), malformed(0, "path")),
        (json!([{"path":"/a"}]), required(0, "op")),
        (json!([7]), malformed(0, "")),
    ] {
        assert_eq!(Patch::operations(patch.clone()), Err(expected), "{patch}");
    }
}

#[test]
fn a_million_operations_are_refused_before_one_is_read() {
    let patch = Value::Array(vec![json!(null); 1_000_000]);
    assert_eq!(Patch::operations(patch), Err(PatchError::TooManyOperations));
}

#[test]
fn copies_cannot_double_a_document_without_end() {
    let copies: Vec<Value> = (0..100).map(|n| json!({"op":"copy","from":"","path":format!("/{n}")})).collect();
    let outcome = apply(json!({"a":"x".repeat(1000)}), Value::Array(copies));
    assert!(matches!(outcome, Err(PatchError::TooLarge(_) | PatchError::TooDeep(_))), "{outcome:?}");
}

#[test]
fn names_that_poison_prototypes_are_refused_wherever_they_stand() {
    for name in ["__proto__", "constructor", "prototype"] {
        let refused = Err(PatchError::ForbiddenName(name));
        assert_eq!(Patch::Merge(json!({"a":[{(name):1}]})).apply(json!({}), BOUNDS), refused);
        assert_eq!(apply(json!({}), json!([{"op":"add","path":format!("/{name}"),"value":1}])), refused);
        assert!(apply(json!({}), json!([{"op":"add","path":format!("/{name}/admin"),"value":true}])).is_err());
    }
}

#[test]
fn documents_are_bounded_in_size_and_depth() {
    let bounds = Bounds { bytes_max: 10, depth_max: 2 };
    assert_eq!(check(&json!([["1"]]), bounds), Ok(()));
    assert_eq!(check(&json!([[[]]]), bounds), Err(PatchError::TooDeep(2)));
    assert_eq!(check(&json!("12345678"), bounds), Ok(()));
    assert_eq!(check(&json!("123456789"), bounds), Err(PatchError::TooLarge(10)));
}

#[test]
fn a_pointer_far_past_the_limits_is_answered_quickly() {
    let path = "/a".repeat(30_000);
    assert!(apply(json!({}), json!([{"op":"add","path":path,"value":1}])).is_err());
}

#[test]
fn preconditions_compare_as_rfc_9110_says() {
    let tag = entity_tag(&json!({"a":1}));
    let if_match = |tags: &str| Precondition { if_match: Some(tags.to_owned()), if_none_match: None };
    let if_none = |tags: &str| Precondition { if_match: None, if_none_match: Some(tags.to_owned()) };
    assert!(Precondition::default().holds(None) && Precondition::default().holds(Some(&tag)));
    assert!(if_match("*").holds(Some(&tag)) && !if_match("*").holds(None));
    assert!(if_match(&format!("\"other\", {tag}")).holds(Some(&tag)));
    assert!(!if_match(&format!("W/{tag}")).holds(Some(&tag)), "the comparison is strong");
    assert!(!if_none("*").holds(Some(&tag)) && if_none("*").holds(None));
    assert!(!if_none(&format!("W/{tag}")).holds(Some(&tag)), "the comparison is weak");
    assert_eq!(tag, entity_tag(&json!({"a":1})));
    assert_ne!(tag, entity_tag(&json!({"a":2})));
}

#[test]
fn an_overlay_goes_member_by_member_and_keeps_a_null() {
    let joined = overlay(&json!({"a":{"b":1,"c":2},"d":3,"e":[1]}), &json!({"a":{"b":null},"e":[],"f":4}));
    assert_eq!(joined, json!({"a":{"b":null,"c":2},"d":3,"e":[],"f":4}));
    assert_eq!(overlay(&json!({"a":1}), &json!(7)), json!(7));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

proptest! {
    #[test]
    fn merging_the_same_patch_again_changes_nothing(document in any_json(), patch in any_json()) {
        let once = Patch::Merge(patch.clone()).apply(document, BOUNDS).unwrap();
        prop_assert_eq!(Patch::Merge(patch).apply(once.clone(), BOUNDS), Ok(once));
    }

    #[test]
    fn any_operations_on_any_document_give_a_document_or_an_error(
        document in any_json(),
        operations in prop::collection::vec(
            ("add|remove|replace|move|copy|test", "(/[a-d0-2-]){0,3}", "(/[a-d0-2-]){0,3}", any_json()),
            0..8,
        ),
    ) {
        let operations = operations.into_iter().map(|(op, path, from, value)| json!({"op":op,"path":path,"from":from,"value":value}));
        let _ = apply(document, Value::Array(operations.collect()));
    }
}
