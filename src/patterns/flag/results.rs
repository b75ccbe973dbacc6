//! The variants a rule names in the places where its result comes from, checked against those the flag has.
//!
//! Only literals are checked: branches of `if`, alternatives of `or`, the last of `and`, variants of `fractional`. What
//! a rule computes is known when it runs, and an unknown variant is then `GENERAL`.

use serde_json::{Map, Value};

use super::document::{Problem, Problems};
use super::logic::{MAX_DEPTH, pointer_token};

/// Adds a problem for each literal result of `rule` that is not a variant.
pub(super) fn check_variants(rule: &Value, path: &str, variants: &Map<String, Value>, problems: &mut Problems) {
    walk(rule, path.to_owned(), variants, problems, MAX_DEPTH);
}

fn walk(rule: &Value, path: String, variants: &Map<String, Value>, problems: &mut Problems, depth: usize) {
    let name = match rule {
        Value::String(name) => name.as_str(),
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Object(members) => {
            let Some((depth, (operator, argument))) = depth.checked_sub(1).zip(members.iter().next()) else { return };
            for (token, result) in results(operator, argument) {
                let path = format!("{path}/{}{token}", pointer_token(operator));
                walk(result, path, variants, problems, depth);
            }
            return;
        }
        _ => return,
    };
    if !variants.contains_key(name) {
        problems.push(Problem::new(path, format_args!("\"{name}\" is not one of the flag's variants")));
    }
}

/// The arguments an operator may answer with, and where they are.
fn results<'r>(operator: &str, argument: &'r Value) -> Vec<(String, &'r Value)> {
    let Value::Array(arguments) = argument else { return Vec::new() };
    let count = arguments.len();
    let indexed = arguments.iter().enumerate();
    let chosen = indexed.filter_map(|(index, argument)| match operator {
        "if" | "?:" if index % 2 == 1 || index + 1 == count => Some((format!("/{index}"), argument)),
        "or" => Some((format!("/{index}"), argument)),
        "and" if index + 1 == count => Some((format!("/{index}"), argument)),
        "fractional" => argument.get(0).map(|variant| (format!("/{index}/0"), variant)),
        _ => None,
    });
    chosen.collect()
}
