//! From JSON to a tree: names become operators, paths are split, `$ref` becomes an index, and everything is counted.
//!
//! What would make every evaluation fail is an error; what would only make it answer null (a malformed bucket, too few
//! arguments) is a lint, reported when a document is written. Recursion is bounded by [`MAX_DEPTH`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::bucketing::MAX_TOTAL_WEIGHT;
use super::{Expr, MAX_DEPTH, MAX_NODES, Op, RuleError};

/// A compiled rule and what is doubtful about it.
#[derive(Debug)]
pub(in super::super) struct Compiled {
    pub(in super::super) root: Expr,
    /// Levels of operators, those of evaluators included.
    pub(in super::super) height: usize,
    /// Place (JSON Pointer) and text of each doubt.
    pub(in super::super) lints: Vec<(String, String)>,
}

/// The evaluators a `$ref` can name: the index and height of each, or `None` for one that does not compile.
#[derive(Debug, Default)]
pub(in super::super) struct EvaluatorTable {
    pub(in super::super) by_name: BTreeMap<String, Option<(usize, usize)>>,
}

/// Compiles one rule. `path` is the JSON Pointer of the node at hand.
#[derive(Debug)]
pub(in super::super) struct Compiler<'a> {
    table: &'a EvaluatorTable,
    path: String,
    nodes: usize,
    height: usize,
    lints: Vec<(String, String)>,
}

/// Doubts kept of one rule; more are not worth the memory.
const MAX_LINTS: usize = 20;

type Failure = (String, RuleError);

impl<'a> Compiler<'a> {
    pub(in super::super) fn new(table: &'a EvaluatorTable, path: String) -> Self {
        Self { table, path, nodes: 0, height: 0, lints: Vec::new() }
    }

    pub(in super::super) fn compile(mut self, rule: &Value) -> Result<Compiled, Failure> {
        let root = self.expr(rule, 0)?;
        Ok(Compiled { root, height: self.height, lints: self.lints })
    }

    fn fail<T>(&self, error: RuleError) -> Result<T, Failure> {
        Err((self.path.clone(), error))
    }

    fn lint(&mut self, text: &str) {
        if self.lints.len() < MAX_LINTS {
            self.lints.push((self.path.clone(), text.to_owned()));
        }
    }

    /// Runs `inner` with `token` added to the path.
    fn within<T>(&mut self, token: &str, inner: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(&pointer_token(token));
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    fn expr(&mut self, rule: &Value, depth: usize) -> Result<Expr, Failure> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fail(RuleError::TooManyNodes);
        }
        if depth > MAX_DEPTH {
            return self.fail(RuleError::TooDeep);
        }
        self.height = self.height.max(depth);
        match rule {
            Value::Array(items) => {
                let items = self.all(items, depth + 1)?;
                Ok(literal_array(items))
            }
            Value::Object(members) if members.is_empty() => Ok(Expr::Literal(rule.clone())),
            Value::Object(members) => {
                let mut members = members.iter();
                match (members.next(), members.next()) {
                    (Some((name, argument)), None) => self.within(name, |c| c.operation(name, argument, depth)),
                    _ => self.fail(RuleError::NotOneOperator),
                }
            }
            scalar => Ok(Expr::Literal(scalar.clone())),
        }
    }

    fn all(&mut self, rules: &[Value], depth: usize) -> Result<Vec<Expr>, Failure> {
        let compile = |(index, rule): (usize, &Value)| self.within(&index.to_string(), |c| c.expr(rule, depth));
        rules.iter().enumerate().map(compile).collect()
    }

    fn operation(&mut self, name: &str, argument: &Value, depth: usize) -> Result<Expr, Failure> {
        if name == "$ref" {
            return self.reference(argument, depth);
        }
        let arguments = match argument {
            Value::Array(items) => self.all(items, depth + 1)?,
            single => vec![self.expr(single, depth + 1)?],
        };
        if name == "var" {
            return Ok(var(arguments));
        }
        let Some((op, least, most)) = Op::named(name) else {
            return self.fail(RuleError::UnknownOperator(name.to_owned()));
        };
        if op == Op::Fractional {
            if !argument.is_array() {
                return self.fail(RuleError::FractionalIsNotArray);
            }
            self.check_buckets(&arguments);
        } else if arguments.len() < least || arguments.len() > most {
            self.lint(&format!("{name} takes {}", count_text(least, most)));
        }
        if op == Op::SemVer && matches!(arguments.get(1), Some(Expr::Literal(sign)) if !super::semver::is_sign(sign)) {
            self.lint("sem_ver compares with =, !=, <, <=, >, >=, ~ or ^");
        }
        Ok(Expr::Call(op, arguments))
    }

    fn reference(&mut self, argument: &Value, depth: usize) -> Result<Expr, Failure> {
        let Value::String(name) = argument else {
            return self.fail(RuleError::RefIsNotText);
        };
        match self.table.by_name.get(name) {
            None => self.fail(RuleError::UnknownRef(name.clone())),
            Some(None) => self.fail(RuleError::BrokenRef(name.clone())),
            Some(Some((_, height))) if depth + 1 + height > MAX_DEPTH => self.fail(RuleError::TooDeep),
            Some(Some((index, height))) => {
                self.height = self.height.max(depth + 1 + height);
                Ok(Expr::Ref(*index))
            }
        }
    }

    /// Lints what can be known of a `fractional` before it runs.
    fn check_buckets(&mut self, arguments: &[Expr]) {
        let buckets = match arguments {
            [Expr::Literal(Value::Array(_)) | Expr::Array(_), ..] | [] => arguments,
            [_, buckets @ ..] => buckets,
        };
        if buckets.is_empty() {
            self.lint("fractional needs at least one bucket");
        }
        let mut total = 0_u64;
        for bucket in buckets {
            let (parts, weight) = match bucket {
                Expr::Literal(Value::Array(parts)) => (parts.len(), parts.get(1)),
                Expr::Array(parts) => (
                    parts.len(),
                    match parts.get(1) {
                        Some(Expr::Literal(weight)) => Some(weight),
                        _ => None,
                    },
                ),
                _ => (0, None),
            };
            if !(1..=2).contains(&parts) {
                self.lint("a bucket is [variant] or [variant, weight]");
            }
            match weight.map(Value::as_u64) {
                Some(None) => self.lint("a weight is a non-negative integer"),
                Some(Some(weight)) => total = total.saturating_add(weight),
                None => total = total.saturating_add(u64::from(parts == 1)),
            }
        }
        if total > MAX_TOTAL_WEIGHT {
            self.lint("the sum of weights is above 2147483647");
        }
    }
}

/// An array whose items are all literals is a literal, and costs nothing to evaluate.
fn literal_array(items: Vec<Expr>) -> Expr {
    if !items.iter().all(|item| matches!(item, Expr::Literal(_))) {
        return Expr::Array(items);
    }
    let values = items.into_iter().filter_map(|item| match item {
        Expr::Literal(value) => Some(value),
        _ => None,
    });
    Expr::Literal(Value::Array(values.collect()))
}

fn var(arguments: Vec<Expr>) -> Expr {
    let mut arguments = arguments.into_iter();
    let path = arguments.next();
    let default = arguments.next().map(Box::new);
    match path {
        None | Some(Expr::Literal(Value::Null)) => Expr::Var { path: Vec::new(), default },
        Some(Expr::Literal(Value::String(path))) => Expr::Var { path: split_path(&path), default },
        Some(Expr::Literal(Value::Number(index))) => Expr::Var { path: split_path(&index.to_string()), default },
        Some(path) => Expr::DynamicVar { path: Box::new(path), default },
    }
}

/// The members a dotted path names, outermost first; none for the empty path.
pub(super) fn split_path(path: &str) -> Vec<String> {
    if path.is_empty() { Vec::new() } else { path.split('.').map(str::to_owned).collect() }
}

/// `token` as part of a JSON Pointer (RFC 6901 §3).
pub(in super::super) fn pointer_token(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn count_text(least: usize, most: usize) -> String {
    match (least, most) {
        (least, usize::MAX) => format!("at least {least} arguments"),
        (1, 1) => "1 argument".to_owned(),
        (least, most) if least == most => format!("{least} arguments"),
        (least, most) => format!("{least} to {most} arguments"),
    }
}

impl Op {
    /// The operator called `name`, and the least and most arguments that make sense.
    fn named(name: &str) -> Option<(Self, usize, usize)> {
        const ANY: usize = usize::MAX;
        Some(match name {
            "missing" => (Self::Missing, 0, ANY),
            "missing_some" => (Self::MissingSome, 2, 2),
            "if" | "?:" => (Self::If, 1, ANY),
            "==" => (Self::LooseEqual, 2, 2),
            "===" => (Self::StrictEqual, 2, 2),
            "!=" => (Self::LooseUnequal, 2, 2),
            "!==" => (Self::StrictUnequal, 2, 2),
            "!" => (Self::Not, 1, 1),
            "!!" => (Self::Truthy, 1, 1),
            "or" => (Self::Or, 1, ANY),
            "and" => (Self::And, 1, ANY),
            ">" => (Self::Greater, 2, 3),
            ">=" => (Self::GreaterOrEqual, 2, 3),
            "<" => (Self::Less, 2, 3),
            "<=" => (Self::LessOrEqual, 2, 3),
            "max" => (Self::Max, 1, ANY),
            "min" => (Self::Min, 1, ANY),
            "+" => (Self::Add, 1, ANY),
            "-" => (Self::Subtract, 1, 2),
            "*" => (Self::Multiply, 1, ANY),
            "/" => (Self::Divide, 2, 2),
            "%" => (Self::Remainder, 2, 2),
            "map" => (Self::Map, 2, 2),
            "filter" => (Self::Filter, 2, 2),
            "reduce" => (Self::Reduce, 3, 3),
            "all" => (Self::All, 2, 2),
            "none" => (Self::None, 2, 2),
            "some" => (Self::Some, 2, 2),
            "merge" => (Self::Merge, 0, ANY),
            "in" => (Self::In, 2, 2),
            "cat" => (Self::Cat, 1, ANY),
            "substr" => (Self::Substr, 2, 3),
            "fractional" => (Self::Fractional, 1, ANY),
            "sem_ver" => (Self::SemVer, 3, 3),
            "starts_with" => (Self::StartsWith, 2, 2),
            "ends_with" => (Self::EndsWith, 2, 2),
            _ => return None,
        })
    }
}
