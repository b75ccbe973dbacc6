//! Feature flags: flagd's documents, evaluated by our own engine, the same answer in every location.
//!
//! A document is read once per revision ([`FlagSet::load`], or [`FlagSet::validate`] before it is stored), its rules
//! are compiled, and each evaluation is a pure function of the rules, the caller's [`EvaluationContext`] and the time.
//! [`Flags`] keeps the document of a tenant in KV, with its promises and its cost; [`Memory`] is what an isolate knows.
//! Limits, all of them checked: the size of documents and contexts ([`bounds`]), the depth and node count of rules
//! ([`logic`]), and the steps one evaluation may take ([`logic::MAX_STEPS`]).
//!
//! Where this engine differs from flagd's, and why:
//! - reason `SPLIT` when `fractional` decided; flagd says `TARGETING_MATCH`. OpenFeature defines `SPLIT` for this.
//! - `$ref` may be nested, and a circular one is an error of the rule instead of a loop.
//! - v1 and v2 hash the UTF-8 bytes of the bucketing value, as flagd in Go does; its JavaScript engine hashes UTF-16
//!   units and differs for ids outside ASCII.
//! - a rule too expensive to finish ends in an error; flagd has no bound.
//! - where flagd's engines differ from JSONLogic's reference, mostly over missing values, ours follows the reference:
//!   `null == 0` and `null == false` are false, as in flagd's own server (the JavaScript and the Python engine say true);
//!   comparing text with a number is false, `min`, `max` and `substr` take a missing value (errors in JavaScript's);
//!   `""` is the number 0, `true === 1` is false, `-1 % 2` is -1, `{"-": [10, missing]}` is 10 (otherwise in Python's).
//! - but `cat` writes a missing value as `null`, as both engines do, where the reference writes nothing: what is hashed
//!   is often the result of a `cat`. And arithmetic without a result, such as `% 0`, is an error, as in both.
//!
//! `tests/crosscheck` counts each kind of difference over random rules and fails on one without a name.
//!
//! Sources: <https://flagd.dev/reference/flag-definitions/>, <https://jsonlogic.com/operations.html>,
//! <https://openfeature.dev/specification/types#resolution-details>.

pub mod bounds;
pub mod bucketing;
mod cbor;
mod document;
mod edit;
mod evaluation;
mod evaluators;
pub mod logic;
mod memory;
mod results;
mod store;

pub use bucketing::HashGeneration;
pub use document::{FlagSet, MAX_EVALUATORS, MAX_FLAGS, MAX_OVERRIDES, MAX_VARIANTS, Problem, Settings};
pub use edit::{Edit, flag_of};
pub use evaluation::{ContextError, ErrorCode, Evaluation, EvaluationContext, Outcome, Reason, ValueType};
pub use memory::{BYTES_MAX, Memory, POINTER_SECONDS, Revision, Snapshot, TENANTS_MAX};
pub use store::{Error, Flags, HISTORY_MAX, PLACE};
