//! What the counts say, ready for clients: every figure from [`super::stats`], and a verdict only where one is due.
//!
//! A verdict compares a variant with control by the always-valid test, so looking often does no harm; with several
//! variants its threshold is divided by their number (Bonferroni). It is withheld while the sample ratio does not fit,
//! because then the users themselves differ, and while there is too little data for the normal approximation.

use serde::Serialize;

use super::config::{Experiment, Status};
use super::events::{Conversions, Tally};
use super::stats::{self, Interval, SRM_ALPHA};

/// False alarms a verdict may give, over all looks and variants.
pub const VERDICT_ALPHA: f64 = 0.05;
/// Exposures an arm needs for a verdict.
pub const EXPOSURES_MIN: u64 = 100;
/// Conversions an arm needs for a verdict.
pub const CONVERSIONS_MIN: u64 = 10;

/// The two ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    low: f64,
    high: f64,
}

impl From<Interval> for Bounds {
    fn from(interval: Interval) -> Self {
        Self { low: interval.low, high: interval.high }
    }
}

/// What the data decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It converts better than control.
    Better,
    /// It converts worse than control.
    Worse,
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Withheld {
    /// The exposures do not fit the weights: something loses or adds users of some variants.
    SampleRatioMismatch,
    /// Fewer than [`EXPOSURES_MIN`] exposures or [`CONVERSIONS_MIN`] conversions in one of the two.
    NotEnoughData,
    /// The difference may be chance.
    NotSignificant,
}

/// A variant beside control.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Relative to control: 0.1 is 10 % better.
    pub uplift: Option<f64>,
    /// At 95 %, for one look.
    pub uplift_interval: Option<Bounds>,
    /// Of the two-proportion z-test, for one look.
    pub p_value: Option<f64>,
    /// Right however often one looks.
    pub always_valid_p_value: Option<f64>,
    /// The uplift's, at 95 %, right however often one looks.
    pub always_valid_interval: Option<Bounds>,
    /// Beta-binomial, uniform priors.
    pub probability_to_beat_control: f64,
    /// Nothing: see `withheld`.
    pub verdict: Option<Verdict>,
    /// Why there is no verdict.
    pub withheld: Option<Withheld>,
}

/// One metric of one variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    /// Its name.
    pub metric: String,
    /// Exposed users with an event.
    pub conversions: u64,
    /// Conversions per exposure.
    pub rate: Option<f64>,
    /// Wilson's, at 95 %.
    pub rate_interval: Bounds,
    /// The sum of the events' values.
    pub value_sum: f64,
    /// Beside control; nothing for control itself.
    pub comparison: Option<Comparison>,
}

/// One variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantReport {
    /// Its name.
    pub variant: String,
    /// Its weight now.
    pub weight: u64,
    /// Users who saw it and no other.
    pub exposures: u64,
    /// Every metric of the experiment.
    pub metrics: Vec<MetricReport>,
}

/// Whether the sample can be trusted: exposures of users placed by the current weights, against these weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleRatio {
    /// Exposures looked at.
    pub exposures: u64,
    /// Chi-square, for one look.
    pub p_value: Option<f64>,
    /// Right however often one looks.
    pub always_valid_p_value: Option<f64>,
    /// One of them is below 0.001: no verdict is given.
    pub mismatch: bool,
}

/// What does not count, and how many of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Excluded {
    /// Users who saw two variants.
    pub switched: u64,
    /// Users with conversions and no exposure.
    pub unexposed: u64,
    /// Users of a variant that was removed.
    pub removed: u64,
}

/// The results of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    name: String,
    status: Status,
    /// The variant the others are compared with.
    pub control: String,
    /// In the order of the definition.
    pub variants: Vec<VariantReport>,
    /// Whether the sample can be trusted.
    pub sample_ratio: SampleRatio,
    /// What does not count.
    pub excluded: Excluded,
    /// Whether only a sample of the users, or of the metrics, was counted.
    pub truncated: bool,
    /// The share of the users that was counted.
    pub sampled_share: f64,
}

impl Report {
    /// What `tally` says about `experiment`.
    pub fn of(experiment: &Experiment, tally: &Tally) -> Self {
        let sample_ratio = sample_ratio(experiment, tally);
        let control = experiment.variants().first().map(|variant| variant.name.clone()).unwrap_or_default();
        let treatments = u32::try_from(experiment.variants().len().saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        let rule = Rule { mismatch: sample_ratio.mismatch, alpha: VERDICT_ALPHA / f64::from(treatments) };
        let variants = experiment.variants().iter().map(|variant| VariantReport {
            variant: variant.name.clone(),
            weight: variant.weight,
            exposures: tally.arms.get(&variant.name).map_or(0, |arm| arm.exposures),
            metrics: tally.metrics.iter().map(|metric| rule.metric(tally, metric, &variant.name, &control)).collect(),
        });
        Self {
            name: experiment.name().to_owned(),
            status: experiment.status(),
            variants: variants.collect(),
            control,
            sample_ratio,
            excluded: Excluded { switched: tally.switched, unexposed: tally.unexposed, removed: tally.removed },
            truncated: tally.truncated,
            sampled_share: tally.sampled_share,
        }
    }
}

/// When a verdict is due.
struct Rule {
    mismatch: bool,
    alpha: f64,
}

impl Rule {
    fn metric(&self, tally: &Tally, metric: &str, variant: &str, control: &str) -> MetricReport {
        let (arm, conversions) = counts(tally, metric, variant);
        let is_control = variant == control;
        MetricReport {
            metric: metric.to_owned(),
            conversions: conversions.users,
            rate: arm.rate(),
            rate_interval: arm.wilson_interval().into(),
            value_sum: conversions.value_sum,
            comparison: (!is_control).then(|| self.compare(counts(tally, metric, control).0, arm)),
        }
    }

    fn compare(&self, control: stats::Arm, treatment: stats::Arm) -> Comparison {
        let uplift = stats::uplift(control, treatment);
        let sequential = stats::sequential(control, treatment);
        let decided = self.decide(control, treatment);
        Comparison {
            uplift: uplift.map(|uplift| uplift.value),
            uplift_interval: uplift.and_then(|uplift| uplift.interval).map(Into::into),
            p_value: stats::two_proportion_z(control, treatment).map(|test| test.p_value),
            always_valid_p_value: sequential.map(|test| test.p_value),
            always_valid_interval: sequential.map(|test| test.interval.into()),
            probability_to_beat_control: stats::probability_to_beat(control, treatment),
            verdict: decided.ok(),
            withheld: decided.err(),
        }
    }

    fn decide(&self, control: stats::Arm, treatment: stats::Arm) -> Result<Verdict, Withheld> {
        if self.mismatch {
            return Err(Withheld::SampleRatioMismatch);
        }
        let suffices = |arm: stats::Arm| arm.exposures >= EXPOSURES_MIN && arm.conversions >= CONVERSIONS_MIN;
        if !suffices(control) || !suffices(treatment) {
            return Err(Withheld::NotEnoughData);
        }
        let significant = stats::sequential(control, treatment).is_some_and(|test| test.p_value < self.alpha);
        if !significant {
            return Err(Withheld::NotSignificant);
        }
        Ok(if treatment.rate() > control.rate() { Verdict::Better } else { Verdict::Worse })
    }
}

/// What was counted of one metric in one variant.
fn counts(tally: &Tally, metric: &str, variant: &str) -> (stats::Arm, Conversions) {
    let Some(arm) = tally.arms.get(variant) else { return (stats::Arm::default(), Conversions::default()) };
    let conversions = arm.conversions.get(metric).copied().unwrap_or_default();
    (stats::Arm { exposures: arm.exposures, conversions: conversions.users }, conversions)
}

fn sample_ratio(experiment: &Experiment, tally: &Tally) -> SampleRatio {
    let variants = experiment.last_served().map(|phase| phase.allocation.variants()).unwrap_or_default();
    let seen = |name: &str| tally.arms.get(name).map_or(0, |arm| arm.exposures_in_phase);
    let exposures: Vec<u64> = variants.iter().map(|variant| seen(&variant.name)).collect();
    let weights: Vec<u64> = variants.iter().map(|variant| variant.weight).collect();
    let p_value = stats::sample_ratio(&exposures, &weights).map(|test| test.p_value);
    let always_valid_p_value = stats::sequential_sample_ratio(&exposures, &weights);
    SampleRatio {
        exposures: exposures.iter().sum(),
        p_value,
        always_valid_p_value,
        mismatch: p_value.into_iter().chain(always_valid_p_value).any(|p_value| p_value < SRM_ALPHA),
    }
}
