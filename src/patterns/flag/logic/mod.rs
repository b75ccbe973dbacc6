//! JSONLogic with flagd's additions, compiled once and evaluated many times, in bounded time.
//!
//! [`Rule::compile`] turns a rule into a tree and names the place that is wrong; [`Rule::apply`] evaluates it. Limits:
//! [`MAX_DEPTH`] nested operators ($ref included), [`MAX_NODES`] nodes of a rule, [`MAX_STEPS`] steps of an evaluation,
//! where copying or comparing text and values counts by size. So a rule over a large context ends in an error, not in
//! a request that never ends.
//!
//! Operators and their coercions follow the JSONLogic reference (JavaScript's rules), except that arithmetic on what
//! is no number is an error ([`EvalError::NotANumber`]), because NaN has no place in JSON; integers stay integers.
//! Sources: <https://jsonlogic.com/operations.html>, <https://flagd.dev/reference/custom-operations/>.

mod coerce;
mod compile;
mod eval;
mod fractional;
mod ops;
mod semver;

use serde_json::{Map, Value};

use super::bucketing::HashGeneration;

pub(super) use compile::{Compiler, EvaluatorTable, pointer_token};
pub(super) use eval::{Machine, Scope};

/// Operators inside operators, counting those reached by `$ref`. Two JSON levels each, so a rule that `serde_json` can
/// read (128 levels) is not refused for less.
pub const MAX_DEPTH: usize = 48;

/// Nodes of one rule: operators, their arguments, literals.
pub const MAX_NODES: usize = 20_000;

/// Steps of one evaluation: one per node visited, one per element handled, one per [`STEP_BYTES`] of text.
/// Ten milliseconds of work at worst; an ordinary rule takes tens of steps.
pub const MAX_STEPS: u32 = 100_000;

/// Bytes of text that count as one step.
pub const STEP_BYTES: usize = 32;

/// A compiled expression. Literals keep the spelling of their numbers (`1.0` stays `1.0`).
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Literal(Value),
    Array(Vec<Expr>),
    /// A path known when compiled; empty for the whole of the data.
    Var {
        path: Vec<String>,
        default: Option<Box<Expr>>,
    },
    /// A path that is itself computed.
    DynamicVar {
        path: Box<Expr>,
        default: Option<Box<Expr>>,
    },
    /// An evaluator of the document, by its place in the table.
    Ref(usize),
    Call(Op, Vec<Expr>),
}

impl Expr {
    /// Whether the expression may look at `path` of the context, such as `$flagd` and `timestamp`. Never falsely no;
    /// falsely yes where a path is computed, or where the whole of the data is taken.
    pub(super) fn may_read(&self, path: &[&str]) -> bool {
        let looks_at = |var: &[String]| var.iter().zip(path).all(|(segment, wanted)| segment == wanted);
        match self {
            Self::Literal(_) | Self::Ref(_) => false,
            Self::Array(items) => items.iter().any(|item| item.may_read(path)),
            Self::Var { path: var, default } => {
                looks_at(var) || default.as_ref().is_some_and(|default| default.may_read(path))
            }
            Self::DynamicVar { .. } | Self::Call(Op::Missing | Op::MissingSome, _) => true,
            Self::Call(_, arguments) => arguments.iter().any(|argument| argument.may_read(path)),
        }
    }
}

/// The operators, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Missing,
    MissingSome,
    If,
    LooseEqual,
    StrictEqual,
    LooseUnequal,
    StrictUnequal,
    Not,
    Truthy,
    Or,
    And,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Max,
    Min,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Map,
    Filter,
    Reduce,
    All,
    None,
    Some,
    Merge,
    In,
    Cat,
    Substr,
    Fractional,
    SemVer,
    StartsWith,
    EndsWith,
}

/// Why an evaluation has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// More than [`MAX_STEPS`] steps.
    #[error("the rule needs more than {MAX_STEPS} steps for this context")]
    TooManySteps,
    /// A value nested too deep came up.
    #[error("a value is nested too deep")]
    TooDeep,
    /// Arithmetic on what is no number, or a result that is none (a division by zero).
    #[error("arithmetic on a value that is not a number, or a result that is none")]
    NotANumber,
}

/// Why a rule does not compile. The place is given beside it, as a JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An object with several members, or none where a rule is needed.
    #[error("a rule is an object with exactly one operator")]
    NotOneOperator,
    /// Not an operator of JSONLogic or flagd.
    #[error("unknown operator \"{0}\"")]
    UnknownOperator(String),
    /// `$ref` takes the name of an evaluator.
    #[error("$ref takes the name of an evaluator as a string")]
    RefIsNotText,
    /// No such evaluator in the document.
    #[error("$ref to \"{0}\", which $evaluators does not have")]
    UnknownRef(String),
    /// The evaluator itself does not compile, or is circular.
    #[error("$ref to \"{0}\", which is wrong itself")]
    BrokenRef(String),
    /// The evaluator refers to itself, directly or through others.
    #[error("a circular $ref")]
    CircularRef,
    /// `fractional` needs an array of buckets.
    #[error("fractional takes an array of buckets, each [variant] or [variant, weight]")]
    FractionalIsNotArray,
    /// Deeper than [`MAX_DEPTH`].
    #[error("operators nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More nodes than [`MAX_NODES`].
    #[error("more than {MAX_NODES} nodes in one rule")]
    TooManyNodes,
}

/// One rule without a document around it: plain JSONLogic for a library's caller.
#[derive(Clone, Debug)]
pub struct Rule {
    root: Expr,
}

impl Rule {
    /// Compiles `rule`; any JSON value is one, most are literals.
    ///
    /// # Errors
    /// The place that is wrong as a JSON Pointer, and a [`RuleError`] saying why.
    pub fn compile(rule: &Value) -> Result<Self, (String, RuleError)> {
        let table = EvaluatorTable::default();
        let root = Compiler::new(&table, String::new()).compile(rule)?.root;
        Ok(Self { root })
    }

    /// Evaluates the rule over `data`.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn apply(&self, data: &Value) -> Result<Value, EvalError> {
        let empty = Map::new();
        let mut machine = Machine::new(&[], HashGeneration::default(), "", &empty, MAX_STEPS);
        let result = machine.eval(&self.root, Scope::Value(data))?;
        machine.own(result)
    }
}
