//! Evaluating a flag: flagd's order of decisions, OpenFeature's reasons and error codes.
//!
//! No such flag, disabled, override, no rule, rule; each answer is a value, or no value (the caller's own default
//! applies), or an error code. Nothing is read but the arguments, so equal arguments give equal answers.
//! Sources: <https://flagd.dev/reference/specifications/providers/>, <https://openfeature.dev/specification/types>.

use serde_json::{Map, Value, json};

use super::bounds::{CONTEXT, TooLarge};
use super::document::{Flag, FlagSet, Targeting};
use super::logic::{EvalError, Expr, MAX_STEPS, Machine, Scope};
use crate::clock::Timestamp;

/// Steps that all flags of a bulk evaluation may take together; those after it is spent answer `GENERAL`.
/// Ten rules may be as expensive as a rule may be; 5000 ordinary ones take less than half of it.
const MAX_BULK_STEPS: u32 = 10 * MAX_STEPS;

/// Who asks: the OpenFeature evaluation context, checked.
#[derive(Clone, Debug, Default)]
pub struct EvaluationContext {
    fields: Map<String, Value>,
}

/// Why a context is refused (`INVALID_CONTEXT`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Contexts are JSON objects.
    #[error("the context is not an object")]
    NotAnObject,
    /// A targeting key is a string.
    #[error("the targetingKey is not a string")]
    TargetingKeyIsNotText,
    /// Beyond [`CONTEXT`].
    #[error("the context {0}")]
    TooLarge(TooLarge),
    /// One member alone is beyond [`CONTEXT`].
    #[error("the context's member {0:?} {1}")]
    MemberTooLarge(String, TooLarge),
}

impl ContextError {
    fn too_large(fields: &Map<String, Value>, error: TooLarge) -> Self {
        let beyond = fields.iter().find_map(|(name, value)| Some((name, CONTEXT.check(value).err()?)));
        beyond.map_or(Self::TooLarge(error), |(name, error)| Self::MemberTooLarge(name.clone(), error))
    }
}

impl EvaluationContext {
    /// The context in `value`; a missing or null targeting key is fine.
    ///
    /// # Errors
    /// See [`ContextError`].
    pub fn new(value: Value) -> Result<Self, ContextError> {
        let bounds = CONTEXT.check(&value);
        let Value::Object(fields) = value else { return Err(ContextError::NotAnObject) };
        bounds.map_err(|error| ContextError::too_large(&fields, error))?;
        match fields.get("targetingKey") {
            None | Some(Value::Null | Value::String(_)) => Ok(Self { fields }),
            Some(_) => Err(ContextError::TargetingKeyIsNotText),
        }
    }

    /// The same context with what the server knows under `name`, over whatever the caller sent there.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The unit that is bucketed and overridden.
    pub fn targeting_key(&self) -> Option<&str> {
        self.fields.get("targetingKey")?.as_str()
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

/// Why this value, in OpenFeature's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flag has no rule.
    Static,
    /// The rule answered null, or there is no default variant.
    Default,
    /// The rule, or an override, chose.
    TargetingMatch,
    /// A `fractional` in the rule chose.
    Split,
    /// The flag is switched off.
    Disabled,
}

impl Reason {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Disabled => "DISABLED",
        }
    }
}

/// OpenFeature's error codes, as far as a server gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No such flag.
    FlagNotFound,
    /// The flag's definition is wrong.
    ParseError,
    /// The value is not of the type asked for.
    TypeMismatch,
    /// The operation needs a targeting key. The engine never says so: flagd serves the default instead.
    TargetingKeyMissing,
    /// The context is not usable.
    InvalidContext,
    /// Anything else.
    General,
}

impl ErrorCode {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::ParseError => "PARSE_ERROR",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::General => "GENERAL",
        }
    }
}

/// The types a caller can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A number without a fraction, however it is spelled.
    Integer,
    /// Any number.
    Float,
    /// An object.
    Object,
}

/// The answer for one flag.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// The flag's key.
    pub key: &'a str,
    /// What was decided.
    pub outcome: Outcome<'a>,
    /// The flag's metadata over the set's.
    pub metadata: &'a Map<String, Value>,
}

/// What was decided for one flag.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// This value.
    Value {
        /// The variant's value, its numbers spelled as in the document.
        value: &'a Value,
        /// The variant's name.
        variant: &'a str,
        /// Why this one.
        reason: Reason,
    },
    /// No value: the caller's own default applies.
    CodeDefault {
        /// `Disabled`, or `Default` where the flag has no default variant.
        reason: Reason,
    },
    /// No value, because something is wrong.
    Error {
        /// What kind of thing.
        code: ErrorCode,
        /// One sentence for whoever maintains the flags.
        details: String,
    },
}

impl Outcome<'_> {
    fn error(code: ErrorCode, details: impl Into<String>) -> Self {
        Self::Error { code, details: details.into() }
    }
}

impl Evaluation<'_> {
    /// The same answer, or `TYPE_MISMATCH` where its value is not of type `wanted`.
    #[must_use]
    pub fn require(mut self, wanted: ValueType) -> Self {
        if let Outcome::Value { value, variant, .. } = self.outcome {
            let fits = match wanted {
                ValueType::Boolean => value.is_boolean(),
                ValueType::String => value.is_string(),
                ValueType::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                ValueType::Float => value.is_number(),
                ValueType::Object => value.is_object(),
            };
            if !fits {
                let details = format!("variant \"{variant}\" is not of the type asked for");
                self.outcome = Outcome::error(ErrorCode::TypeMismatch, details);
            }
        }
        self
    }
}

impl FlagSet {
    /// Evaluates one flag for `context` at `now`.
    pub fn evaluate<'a>(&'a self, key: &'a str, context: &EvaluationContext, now: Timestamp) -> Evaluation<'a> {
        self.evaluate_within(key, context, now, &mut { MAX_STEPS })
    }

    /// Evaluates every flag, in the order of their keys.
    pub fn evaluate_all(&self, context: &EvaluationContext, now: Timestamp) -> Vec<Evaluation<'_>> {
        let mut steps = MAX_BULK_STEPS;
        self.keys().map(|key| self.evaluate_within(key, context, now, &mut steps)).collect()
    }

    fn evaluate_within<'a>(
        &'a self,
        key: &'a str,
        context: &EvaluationContext,
        now: Timestamp,
        steps: &mut u32,
    ) -> Evaluation<'a> {
        let (outcome, metadata) = match self.flags.get(key) {
            None => (Outcome::error(ErrorCode::FlagNotFound, format!("no flag \"{key}\"")), &self.metadata),
            Some(Err(problem)) => (Outcome::error(ErrorCode::ParseError, problem.to_string()), &self.metadata),
            Some(Ok(flag)) => {
                (self.decide(key, flag, context, now, steps), flag.metadata.as_ref().unwrap_or(&self.metadata))
            }
        };
        Evaluation { key, outcome, metadata }
    }

    fn decide<'a>(
        &'a self,
        key: &str,
        flag: &'a Flag,
        context: &EvaluationContext,
        now: Timestamp,
        steps: &mut u32,
    ) -> Outcome<'a> {
        if !flag.enabled {
            return if self.settings.serve_default_when_disabled {
                default_of(flag, Reason::Disabled)
            } else {
                Outcome::CodeDefault { reason: Reason::Disabled }
            };
        }
        if let Some(variant) = context.targeting_key().and_then(|user| flag.overrides.get(user)) {
            return variant_of(flag, variant, Reason::TargetingMatch);
        }
        match &flag.targeting {
            Targeting::Absent => default_of(flag, Reason::Static),
            Targeting::Broken(problem) => Outcome::error(ErrorCode::ParseError, problem.to_string()),
            Targeting::Rule(rule) => match self.run(rule, key, context, now, steps) {
                Ok((None, _)) => default_of(flag, Reason::Default),
                Ok((Some(variant), reason)) => variant_of(flag, &variant, reason),
                Err(error) => Outcome::error(ErrorCode::General, error.to_string()),
            },
        }
    }

    /// The variant the rule names, and why; `None` for null.
    fn run(
        &self,
        rule: &Expr,
        key: &str,
        context: &EvaluationContext,
        now: Timestamp,
        steps: &mut u32,
    ) -> Result<(Option<String>, Reason), EvalError> {
        let flagd = json!({ "flagKey": key, "timestamp": now.seconds() });
        let granted = (*steps).min(MAX_STEPS);
        let mut machine = Machine::new(&self.evaluators, self.settings.bucketing, key, &context.fields, granted);
        let scope = Scope::Context { fields: &context.fields, flagd: &flagd };
        let result = machine.eval(rule, scope).and_then(|result| match &*result {
            Value::Null => Ok(None),
            result => machine.text(result).map(|variant| Some(variant.into_owned())),
        });
        *steps -= granted - machine.steps_left();
        let reason = if machine.split() { Reason::Split } else { Reason::TargetingMatch };
        result.map(|variant| (variant, reason))
    }
}

/// The flag's default variant, or no value where it has none (which is then the reason).
fn default_of(flag: &Flag, reason: Reason) -> Outcome<'_> {
    match (&flag.default_variant, reason) {
        (Some(variant), reason) => variant_of(flag, variant, reason),
        (None, Reason::Disabled) => Outcome::CodeDefault { reason },
        (None, _) => Outcome::CodeDefault { reason: Reason::Default },
    }
}

fn variant_of<'a>(flag: &'a Flag, variant: &str, reason: Reason) -> Outcome<'a> {
    match flag.variants.get_key_value(variant) {
        Some((variant, value)) => Outcome::Value { value, variant, reason },
        // What a rule computes may carry the caller's data, so it is not repeated.
        None => Outcome::error(ErrorCode::General, "the rule chose a variant the flag does not have"),
    }
}
