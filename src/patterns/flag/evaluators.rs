//! `$evaluators`: rules that others name by `$ref`, also each other, compiled once and never copied.
//!
//! They are compiled in the order of their dependencies, found without recursion, so a long chain cannot overflow the
//! stack and a circle is what remains when nothing else can be compiled.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::bounds::children;
use super::document::{MAX_EVALUATORS, Problem, Problems, at_most, check_name, object};
use super::logic::{Compiler, EvaluatorTable, Expr, RuleError, pointer_token};

/// Compiles all evaluators. One that is wrong is a problem, and breaks the rules that name it.
///
/// # Errors
/// A [`Problem`] when `$evaluators` is no object, has too many members, or one with an impossible name.
pub(super) fn compile(value: Option<&Value>, problems: &mut Problems) -> Result<(EvaluatorTable, Vec<Expr>), Problem> {
    let mut table = EvaluatorTable::default();
    let mut compiled = Vec::new();
    let Some(value) = value else { return Ok((table, compiled)) };
    let rules = object(value, "/$evaluators")?;
    at_most(MAX_EVALUATORS, rules.len(), "/$evaluators")?;
    for name in rules.keys() {
        check_name(name, &place(name))?;
    }
    let (order, circular) = by_dependency(rules);
    for (name, rule) in circular {
        // Those that only name a circle are told so by the compiler; those in it would name themselves.
        table.by_name.insert(name.clone(), None);
        problems.push(Problem::new(place(name), circular_or_broken(rule, name, rules)));
    }
    for (name, rule) in order {
        let entry = match Compiler::new(&table, place(name)).compile(rule) {
            Ok(rule) => {
                problems.extend(rule.lints);
                compiled.push(rule.root);
                Some((compiled.len() - 1, rule.height))
            }
            Err((path, error)) => {
                problems.push(Problem::new(path, error));
                None
            }
        };
        table.by_name.insert(name.clone(), entry);
    }
    Ok((table, compiled))
}

fn place(name: &str) -> String {
    format!("/$evaluators/{}", pointer_token(name))
}

type Named<'r> = (&'r String, &'r Value);

/// The rules in an order in which each comes after those it names, and those for which there is none (Kahn 1962).
fn by_dependency(rules: &Map<String, Value>) -> (Vec<Named<'_>>, Vec<Named<'_>>) {
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut dependents: BTreeMap<&str, Vec<Named<'_>>> = BTreeMap::new();
    let mut ready: Vec<Named<'_>> = Vec::new();
    for named @ (name, rule) in rules {
        let references: BTreeSet<&str> =
            references(rule).into_iter().filter(|other| rules.contains_key(*other)).collect();
        if references.is_empty() {
            ready.push(named);
        }
        waiting.insert(name, references.len());
        for reference in references {
            dependents.entry(reference).or_default().push(named);
        }
    }
    let mut order = Vec::with_capacity(rules.len());
    while let Some(named) = ready.pop() {
        order.push(named);
        for dependent in dependents.remove(named.0.as_str()).unwrap_or_default() {
            if let Some(count) = waiting.get_mut(dependent.0.as_str()) {
                *count -= 1;
                if *count == 0 {
                    ready.push(dependent);
                }
            }
        }
    }
    let circular =
        rules.iter().filter(|(name, _)| waiting.get(name.as_str()).is_some_and(|count| *count > 0)).collect();
    (order, circular)
}

/// Every name a rule gives to `$ref`, at any depth.
fn references(rule: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let mut pending = vec![rule];
    while let Some(value) = pending.pop() {
        if let Some(name) = value.get("$ref").and_then(Value::as_str) {
            found.push(name);
        }
        pending.extend(children(value));
    }
    found
}

/// Whether following references from `name` leads back to it, or only into somebody else's circle.
fn circular_or_broken(rule: &Value, name: &str, rules: &Map<String, Value>) -> RuleError {
    let mut seen = BTreeSet::new();
    let mut pending = references(rule);
    let first = pending.first().copied().unwrap_or(name).to_owned();
    while let Some(other) = pending.pop() {
        if other == name {
            return RuleError::CircularRef;
        }
        if seen.insert(other) {
            pending.extend(rules.get(other).map(references).unwrap_or_default());
        }
    }
    RuleError::BrokenRef(first)
}
