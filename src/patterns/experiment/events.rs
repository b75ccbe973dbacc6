//! Events: one key per user, phase and metric, written blindly; and the tally of them, user by user.
//!
//! The key is `experiment-event/<experiment id>/<pseudonym>/<phase>/<metric>`. The same event has the same key and
//! value, so repeating it changes nothing; what counts stands in the metadata, so a tally lists and reads no value.
//! All keys of a user lie side by side, so a conversion meets the exposure it belongs to without any other memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::Experiment;
use crate::kv::codec::Record;

/// The metric that says a user saw the variant; every other is a conversion.
pub const EXPOSURE: &str = "exposure";
/// Longest name of a metric, in bytes.
pub const METRIC_BYTES_MAX: usize = 128;
/// Metrics of one experiment that results tell apart, the first seen.
pub const METRICS_MAX: usize = 50;
/// How long an event is kept, in seconds: 400 days.
pub const EVENT_SECONDS: u64 = 400 * 86_400;

/// One event, as its key's metadata; short names, because metadata has 1024 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    #[serde(rename = "m")]
    pub(super) metric: String,
    #[serde(rename = "v")]
    pub(super) variant: String,
    #[serde(rename = "p")]
    pub(super) phase: u64,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
}

impl Record for Event {
    const KIND: &'static str = "experiment-event";
    const VERSION: u32 = 1;
}

/// What an isolate knows a key or its metadata by.
pub(super) type Fingerprint = [u8; 16];

pub(super) fn fingerprint(text: &str) -> Fingerprint {
    let mut fingerprint = [0; 16];
    fingerprint.iter_mut().zip(Sha256::digest(text)).for_each(|(byte, hashed)| *byte = hashed);
    fingerprint
}

/// What was counted of one metric in one variant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conversions {
    /// Exposed users with an event.
    pub users: u64,
    /// The sum of their values.
    pub value_sum: f64,
}

/// What was counted of one variant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arm {
    /// Users who saw this variant and no other.
    pub exposures: u64,
    /// Users placed by the current allocation who saw it.
    pub exposures_in_phase: u64,
    /// By metric.
    pub conversions: BTreeMap<String, Conversions>,
}

/// What the events of an experiment add up to. Every user counts at most once in each number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// By the variants the experiment has now.
    pub arms: BTreeMap<String, Arm>,
    /// Users who saw two variants; they count nowhere.
    pub switched: u64,
    /// Users with conversions and no exposure; they count nowhere.
    pub unexposed: u64,
    /// Users who saw a variant that was removed; they count nowhere.
    pub removed: u64,
    /// Events whose metadata cannot be read.
    pub unreadable: u64,
    /// Whether there are more users or metrics than were counted.
    pub truncated: bool,
    /// The share of all users that was counted: users are listed in random order, so it is a fair sample.
    pub sampled_share: f64,
    /// Every metric seen.
    pub metrics: BTreeSet<String>,
    phase: u64,
    /// The user whose events are being read.
    user: String,
    events: Vec<Event>,
}

impl Tally {
    pub(super) fn of(experiment: &Experiment) -> Self {
        let arms = experiment.variants().iter().map(|variant| (variant.name.clone(), Arm::default())).collect();
        let phase = experiment.last_served().map_or(0, |phase| phase.number);
        Self { arms, phase, sampled_share: 1.0, ..Self::default() }
    }

    /// Takes the next event in the order of keys.
    pub(super) fn add(&mut self, user: &str, event: Option<Event>) {
        if self.user != user {
            self.finish_user();
            user.clone_into(&mut self.user);
        }
        match event {
            Some(event) => self.events.push(event),
            None => self.unreadable = self.unreadable.saturating_add(1),
        }
    }

    /// There is nothing more to come.
    pub(super) fn complete(&mut self) {
        self.finish_user();
    }

    /// More would come: the last user, of whom events may be missing, does not count.
    pub(super) fn stop(&mut self) {
        self.events.clear();
        self.truncated = true;
        self.sampled_share = share_before(&self.user);
    }

    fn finish_user(&mut self) {
        let events = std::mem::take(&mut self.events);
        let mut exposures = events.iter().filter(|event| event.metric == EXPOSURE);
        let Some(first) = exposures.next() else {
            self.unexposed += u64::from(!events.is_empty());
            return;
        };
        for event in events.iter().filter(|event| event.metric == EXPOSURE && event.phase == self.phase) {
            if let Some(arm) = self.arms.get_mut(&event.variant) {
                arm.exposures_in_phase += 1;
            }
        }
        if exposures.any(|event| event.variant != first.variant) {
            self.switched += 1;
            return;
        }
        let Some(arm) = self.arms.get_mut(&first.variant) else {
            self.removed += 1;
            return;
        };
        arm.exposures += 1;
        // The last value of each metric: a user counts once, also when several phases hold the event.
        let of_variant = events.iter().filter(|event| event.metric != EXPOSURE && event.variant == first.variant);
        let values: BTreeMap<&str, f64> =
            of_variant.map(|event| (event.metric.as_str(), event.value.unwrap_or(0.0))).collect();
        for (metric, value) in values {
            if !self.metrics.contains(metric) {
                if self.metrics.len() >= METRICS_MAX {
                    self.truncated = true;
                    continue;
                }
                self.metrics.insert(metric.to_owned());
            }
            let conversions = arm.conversions.entry(metric.to_owned()).or_default();
            conversions.users += 1;
            conversions.value_sum += value;
        }
    }
}

/// The share of all pseudonyms that come before this one.
#[allow(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn share_before(pseudonym: &str) -> f64 {
    let leading = pseudonym.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    leading as f64 / (u64::MAX as f64)
}
