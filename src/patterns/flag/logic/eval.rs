//! The evaluator: walks the tree, counts its steps, and borrows from rule and context where it can.
//!
//! Recursion is bounded by the tree's height, which the compiler bounds. Whatever copies a value counts its size, so
//! neither time nor memory can grow beyond the step limit.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::super::bucketing::HashGeneration;
use super::compile::split_path;
use super::{EvalError, Expr, Op, STEP_BYTES, coerce};

/// Levels of nesting in a value that is copied or turned into text.
const MAX_VALUE_DEPTH: usize = 64;

/// The data `var` reads.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Scope<'v> {
    /// A flag's evaluation: the context's fields and flagd's own under `$flagd`.
    Context { fields: &'v Map<String, Value>, flagd: &'v Value },
    /// One value: plain data, or an element inside `map`, `filter`, `all`, `some` and `none`.
    Value(&'v Value),
    /// Inside `reduce`.
    Reduce { current: &'v Value, accumulator: &'v Value },
}

impl<'v> Scope<'v> {
    fn member(self, name: &str) -> Option<&'v Value> {
        match self {
            Self::Context { flagd, .. } if name == "$flagd" => Some(flagd),
            Self::Context { fields, .. } => fields.get(name),
            Self::Value(value) => member(value, name),
            Self::Reduce { current, .. } if name == "current" => Some(current),
            Self::Reduce { accumulator, .. } if name == "accumulator" => Some(accumulator),
            Self::Reduce { .. } => None,
        }
    }

    /// The value at `path`; null counts as absent, as flagd's engines take it.
    fn get(self, path: &[String]) -> Option<&'v Value> {
        let (first, rest) = path.split_first()?;
        let found = rest.iter().try_fold(self.member(first)?, |value, name| member(value, name))?;
        (!found.is_null()).then_some(found)
    }
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// A value borrowed from rule or context, or made on the way.
pub(super) type Evaluated<'v> = Result<Cow<'v, Value>, EvalError>;

/// One evaluation: what it may read besides the scope, the steps it has left, and whether a `fractional` decided.
#[derive(Debug)]
pub(in super::super) struct Machine<'e> {
    evaluators: &'e [Expr],
    pub(super) generation: HashGeneration,
    pub(super) flag_key: &'e str,
    pub(super) context: &'e Map<String, Value>,
    steps_left: u32,
    pub(super) split: bool,
}

impl<'e> Machine<'e> {
    pub(in super::super) fn new(
        evaluators: &'e [Expr],
        generation: HashGeneration,
        flag_key: &'e str,
        context: &'e Map<String, Value>,
        steps: u32,
    ) -> Self {
        Self { evaluators, generation, flag_key, context, steps_left: steps, split: false }
    }

    /// Whether a `fractional` chose a bucket so far.
    pub(in super::super) fn split(&self) -> bool {
        self.split
    }

    /// Steps not used yet.
    pub(in super::super) fn steps_left(&self) -> u32 {
        self.steps_left
    }

    pub(super) fn charge(&mut self, steps: usize) -> Result<(), EvalError> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps_left.checked_sub(steps));
        self.steps_left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(EvalError::TooManySteps)
    }

    /// Charges for reading or copying all of `value`.
    pub(super) fn charge_value(&mut self, value: &Value) -> Result<(), EvalError> {
        self.charge_nested(value, MAX_VALUE_DEPTH)
    }

    fn charge_nested(&mut self, value: &Value, depth: usize) -> Result<(), EvalError> {
        let depth = depth.checked_sub(1).ok_or(EvalError::TooDeep)?;
        match value {
            Value::String(text) => self.charge(1 + text.len() / STEP_BYTES),
            Value::Array(items) => {
                self.charge(1)?;
                items.iter().try_for_each(|item| self.charge_nested(item, depth))
            }
            Value::Object(members) => members.iter().try_for_each(|(name, member)| {
                self.charge(1 + name.len() / STEP_BYTES)?;
                self.charge_nested(member, depth)
            }),
            _ => self.charge(1),
        }
    }

    /// The value itself, copied at its price if it is borrowed.
    pub(in super::super) fn own(&mut self, value: Cow<'_, Value>) -> Result<Value, EvalError> {
        if let Cow::Borrowed(borrowed) = value {
            self.charge_value(borrowed)?;
        }
        Ok(value.into_owned())
    }

    pub(in super::super) fn eval<'v>(&mut self, expr: &'v Expr, scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        self.charge(1)?;
        match expr {
            Expr::Literal(value) => Ok(Cow::Borrowed(value)),
            Expr::Array(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let value = self.eval(item, scope)?;
                    values.push(self.own(value)?);
                }
                Ok(Cow::Owned(Value::Array(values)))
            }
            Expr::Var { path, default } => self.var(path, default.as_deref(), scope),
            Expr::DynamicVar { path, default } => {
                let path = self.eval(path, scope)?;
                let path = if path.is_null() { Vec::new() } else { split_path(&self.text(&path)?) };
                self.charge(path.len())?;
                self.var(&path, default.as_deref(), scope)
            }
            Expr::Ref(index) => match self.evaluators.get(*index) {
                Some(evaluator) => self.eval(evaluator, scope),
                None => Ok(Cow::Owned(Value::Null)),
            },
            Expr::Call(op, arguments) => self.call(*op, arguments, scope),
        }
    }

    fn var<'v>(&mut self, path: &[String], default: Option<&'v Expr>, scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        if path.is_empty() {
            return self.whole(scope);
        }
        match (scope.get(path), default) {
            (Some(value), _) => Ok(Cow::Borrowed(value)),
            (None, Some(default)) => self.eval(default, scope),
            (None, None) => Ok(Cow::Owned(Value::Null)),
        }
    }

    /// All of the data, for an empty path.
    fn whole<'v>(&mut self, scope: Scope<'v>) -> Evaluated<'v> {
        let members: Vec<(&str, &Value)> = match scope {
            Scope::Value(value) => return Ok(Cow::Borrowed(value)),
            Scope::Reduce { current, accumulator } => vec![("current", current), ("accumulator", accumulator)],
            Scope::Context { fields, flagd } => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), value));
                fields.chain([("$flagd", flagd)]).collect()
            }
        };
        let mut object = Map::new();
        for (name, value) in members {
            object.insert(name.to_owned(), self.own(Cow::Borrowed(value))?);
        }
        Ok(Cow::Owned(Value::Object(object)))
    }

    /// The text `value` stands for, at its price.
    pub(in super::super) fn text<'t>(&mut self, value: &'t Value) -> Result<Cow<'t, str>, EvalError> {
        self.charge_value(value)?;
        Ok(coerce::text(value))
    }

    /// The argument at `index`, null when there is none.
    pub(super) fn argument<'v>(&mut self, arguments: &'v [Expr], index: usize, scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        arguments.get(index).map_or(Ok(Cow::Owned(Value::Null)), |argument| self.eval(argument, scope))
    }

    pub(super) fn arguments<'v>(
        &mut self,
        arguments: &'v [Expr],
        scope: Scope<'v>,
    ) -> Result<Vec<Cow<'v, Value>>, EvalError>
    where
        'e: 'v,
    {
        arguments.iter().map(|argument| self.eval(argument, scope)).collect()
    }

    fn call<'v>(&mut self, op: Op, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        match op {
            Op::If => self.choose_branch(arguments, scope),
            Op::Or => self.first_where(true, arguments, scope),
            Op::And => self.first_where(false, arguments, scope),
            Op::Map | Op::Filter => self.each(op, arguments, scope),
            Op::All | Op::Some | Op::None => self.quantify(op, arguments, scope),
            Op::Reduce => self.reduce(arguments, scope),
            Op::Missing | Op::MissingSome => self.missing(op, arguments, scope),
            _ => {
                let values = self.arguments(arguments, scope)?;
                self.operate(op, values)
            }
        }
    }

    /// `if`: condition and branch in turn, then an optional last branch.
    fn choose_branch<'v>(&mut self, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        for pair in arguments.chunks(2) {
            match pair {
                [last] => return self.eval(last, scope),
                [condition, branch] if coerce::truthy(&*self.eval(condition, scope)?) => {
                    return self.eval(branch, scope);
                }
                _ => {}
            }
        }
        Ok(Cow::Owned(Value::Null))
    }

    /// `or` and `and`: the first argument as true (or false) as asked, else the last one; the rest is not evaluated.
    fn first_where<'v>(&mut self, wanted: bool, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let mut last = Cow::Owned(Value::Null);
        for argument in arguments {
            last = self.eval(argument, scope)?;
            if coerce::truthy(&last) == wanted {
                break;
            }
        }
        Ok(last)
    }

    fn each<'v>(&mut self, op: Op, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let list = self.argument(arguments, 0, scope)?;
        let mut out = Vec::new();
        for item in items(&list) {
            let result = self.argument(arguments, 1, Scope::Value(item))?;
            if op == Op::Map {
                out.push(self.own(result)?);
            } else if coerce::truthy(&result) {
                out.push(self.own(Cow::Borrowed(item))?);
            }
        }
        Ok(Cow::Owned(Value::Array(out)))
    }

    /// `all` (false for an empty list, as the reference has it), `some` and `none`.
    fn quantify<'v>(&mut self, op: Op, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let list = self.argument(arguments, 0, scope)?;
        let items = items(&list);
        // The search stops at the first element that decides: one that fails for `all`, one that holds for the others.
        let deciding = op != Op::All;
        let mut decided = items.is_empty() && op == Op::All;
        for item in items {
            if coerce::truthy(&*self.argument(arguments, 1, Scope::Value(item))?) == deciding {
                decided = true;
                break;
            }
        }
        Ok(Cow::Owned(Value::Bool(decided == (op == Op::Some))))
    }

    fn reduce<'v>(&mut self, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let list = self.argument(arguments, 0, scope)?;
        let initial = self.argument(arguments, 2, scope)?;
        let mut accumulator = self.own(initial)?;
        for current in items(&list) {
            let next = self.argument(arguments, 1, Scope::Reduce { current, accumulator: &accumulator })?;
            accumulator = self.own(next)?;
        }
        Ok(Cow::Owned(accumulator))
    }

    /// `missing` and `missing_some`: which of the named paths are absent, null or empty text.
    fn missing<'v>(&mut self, op: Op, arguments: &'v [Expr], scope: Scope<'v>) -> Evaluated<'v>
    where
        'e: 'v,
    {
        let values = self.arguments(arguments, scope)?;
        let (need, names): (_, Vec<&Value>) = match (op, values.as_slice()) {
            (Op::MissingSome, [need, names, ..]) => (Some(&**need), items(names).iter().collect()),
            (_, [names, ..]) if names.is_array() => (None, items(names).iter().collect()),
            (_, names) => (None, names.iter().map(|name| &**name).collect()),
        };
        let mut absent = Vec::new();
        for name in &names {
            let path = split_path(&self.text(name)?);
            self.charge(path.len())?;
            if scope.get(&path).is_none_or(|found| found.as_str() == Some("")) {
                absent.push(Value::clone(name));
            }
        }
        let present = names.len() - absent.len();
        let present = u32::try_from(present).unwrap_or(u32::MAX);
        let enough = need.is_some_and(|need| f64::from(present) >= coerce::number(need).to_f64());
        Ok(Cow::Owned(Value::Array(if enough { Vec::new() } else { absent })))
    }
}

/// The elements of a list; none of what is no list.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
