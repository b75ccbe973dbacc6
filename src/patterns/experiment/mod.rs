//! Experiments: who gets which variant, and what the counts say; both pure functions.
//!
//! [`assign`] places users without storing anything: the same salt, user and weights give the same variant everywhere,
//! and a change of weights moves only the users it must. [`stats`] reads integer counts. Limits: 20 variants, weights up
//! to 10^9, 100 experiments in a layer.

pub mod assign;
pub mod stats;
