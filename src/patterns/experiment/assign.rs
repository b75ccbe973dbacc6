//! Assignment by weighted rendezvous hashing: raising one variant's weight takes users from the others, never moves
//! anybody between them, and moves no more users than the new weights require.
//!
//! Each variant draws an exponential waiting time from the user's hash, divided by its weight; the shortest wins. A
//! variant's draw does not depend on the other variants, which is all that the promise needs. Variants are known by
//! name: a renamed variant is a new one. A hash has 53 bits, so shares are exact to 10^-15.
//!
//! Sources: weighted rendezvous hashing (J. Resch, 2015,
//! <https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf>);
//! the minimum of exponentials: <https://en.wikipedia.org/wiki/Exponential_distribution#Distribution_of_the_minimum_of_exponential_random_variables>.

use serde::{Deserialize, Serialize};

use crate::patterns::flag::bucketing::{sha256_bucket, sha256_hash};

/// Variants of one experiment.
pub const MAX_VARIANTS: usize = 20;
/// The largest weight; what counts is the ratio of weights.
pub const MAX_WEIGHT: u64 = 1_000_000_000;
/// Experiments in one layer.
pub const MAX_LAYER_RANGES: usize = 100;
/// Slots of a layer: shares down to a millionth of the users.
pub const LAYER_SLOTS: u64 = 1_000_000;

/// Bytes of a variant's, experiment's or salt's name.
const MAX_NAME_BYTES: usize = 256;

/// One variant and its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What it is called, and known by.
    pub name: String,
    /// Its part of the sum of weights; zero takes no users.
    pub weight: u64,
}

/// Why an allocation or a layer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Zero variants, or more than [`MAX_VARIANTS`].
    #[error("an experiment has 1 to {MAX_VARIANTS} variants")]
    VariantCount,
    /// The same name twice.
    #[error("two variants are called \"{0}\"")]
    DuplicateVariant(String),
    /// Empty, longer than 256 bytes, or with control characters, which separate names in what is hashed.
    #[error("a name is 1 to 256 bytes long, without control characters")]
    Name,
    /// Above [`MAX_WEIGHT`].
    #[error("a weight is at most {MAX_WEIGHT}")]
    Weight,
    /// All weights are zero.
    #[error("the sum of weights must be positive")]
    ZeroWeights,
    /// More than [`MAX_LAYER_RANGES`].
    #[error("a layer has at most {MAX_LAYER_RANGES} ranges")]
    RangeCount,
    /// An empty range, or one beyond [`LAYER_SLOTS`].
    #[error("the range of \"{0}\" is empty or ends after slot {LAYER_SLOTS}")]
    Range(String),
    /// Two ranges share slots.
    #[error("the range of \"{0}\" overlaps another")]
    Overlap(String),
}

/// A salt and weighted variants, checked: a pure function from users to variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Allocation {
    salt: String,
    variants: Vec<Variant>,
}

/// An allocation as it is stored, before its rules are checked again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    salt: String,
    variants: Vec<Variant>,
}

impl TryFrom<Unchecked> for Allocation {
    type Error = AssignError;

    fn try_from(unchecked: Unchecked) -> Result<Self, AssignError> {
        Self::new(&unchecked.salt, unchecked.variants)
    }
}

impl Allocation {
    /// The allocation of users to `variants` under `salt`; other salts give independent ones.
    ///
    /// # Errors
    /// See [`AssignError`], those about variants, names and weights.
    pub fn new(salt: &str, variants: Vec<Variant>) -> Result<Self, AssignError> {
        if !(1..=MAX_VARIANTS).contains(&variants.len()) {
            return Err(AssignError::VariantCount);
        }
        check_name(salt)?;
        for (index, variant) in variants.iter().enumerate() {
            check_name(&variant.name)?;
            if variant.weight > MAX_WEIGHT {
                return Err(AssignError::Weight);
            }
            if variants.iter().take(index).any(|earlier| earlier.name == variant.name) {
                return Err(AssignError::DuplicateVariant(variant.name.clone()));
            }
        }
        if variants.iter().all(|variant| variant.weight == 0) {
            return Err(AssignError::ZeroWeights);
        }
        Ok(Self { salt: salt.to_owned(), variants })
    }

    /// What is hashed with each user.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The variants, in the order given; the first is the control.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// The variant of `user`. The order of variants does not matter.
    pub fn assign(&self, user: &str) -> &str {
        let mut best: Option<(f64, &str)> = None;
        for variant in self.variants.iter().filter(|variant| variant.weight > 0) {
            let time = waiting_time(&self.salt, &variant.name, user) / to_f64(variant.weight);
            let wins = best.is_none_or(|(shortest, name)| {
                time < shortest || (time.to_bits() == shortest.to_bits() && variant.name.as_str() < name)
            });
            if wins {
                best = Some((time, &variant.name));
            }
        }
        best.map_or("", |(_, name)| name)
    }

    /// The share of all users that `name` gets.
    pub fn share(&self, name: &str) -> f64 {
        to_f64(self.weight(name)) / to_f64(self.total())
    }

    /// The share of all users whose variant differs between this allocation and `next`: exactly zero when nobody moves,
    /// otherwise within 10^-12 of the true share.
    ///
    /// A user stays in variant i when i has the shortest time under both weights, which for exponential times has the
    /// probability `1 / (1 + sum over j of max(w_j / w_i, w'_j / w'_i))`.
    pub fn moved_share(&self, next: &Self) -> f64 {
        if self.salt != next.salt {
            let same = |variant: &Variant| self.share(&variant.name) * next.share(&variant.name);
            return (1.0 - self.variants.iter().map(same).sum::<f64>()).max(0.0);
        }
        if self.is_proportional_to(next) {
            return 0.0;
        }
        let names = self.names_with(next);
        let stays: f64 = names.iter().map(|name| self.staying_share(next, name, &names)).sum();
        (1.0 - stays).max(0.0)
    }

    fn staying_share(&self, next: &Self, name: &str, names: &[&str]) -> f64 {
        let (before, after) = (self.weight(name), next.weight(name));
        if before == 0 || after == 0 {
            return 0.0;
        }
        let rivals = names.iter().filter(|other| **other != name).map(|other| {
            let ratio_before = to_f64(self.weight(other)) / to_f64(before);
            ratio_before.max(to_f64(next.weight(other)) / to_f64(after))
        });
        1.0 / (1.0 + rivals.sum::<f64>())
    }

    /// Whether both give every variant the same share, in integers.
    fn is_proportional_to(&self, next: &Self) -> bool {
        self.names_with(next).iter().all(|name| {
            u128::from(self.weight(name)) * u128::from(next.total())
                == u128::from(next.weight(name)) * u128::from(self.total())
        })
    }

    fn names_with<'a>(&'a self, next: &'a Self) -> Vec<&'a str> {
        let mut names: Vec<_> =
            self.variants.iter().chain(&next.variants).map(|variant| variant.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn weight(&self, name: &str) -> u64 {
        self.variants.iter().find(|variant| variant.name == name).map_or(0, |variant| variant.weight)
    }

    fn total(&self) -> u64 {
        self.variants.iter().map(|variant| variant.weight).sum()
    }
}

/// An exponential waiting time with rate 1, drawn by hash. `libm` gives the same bits on every target.
fn waiting_time(salt: &str, variant: &str, user: &str) -> f64 {
    let hash = sha256_hash(&[salt, "\u{1f}", variant].concat(), user);
    // The middle of one of 2^53 equal parts of (0, 1), so that the logarithm is finite.
    let uniform = (to_f64(hash >> 11) + 0.5) / to_f64(1 << 53);
    -libm::log(uniform)
}

#[allow(clippy::cast_precision_loss, reason = "every number here is at most 2^53")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// A part of a layer's slots that belongs to one experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The experiment's name; it may have several ranges.
    pub experiment: String,
    /// The first slot, of [`LAYER_SLOTS`].
    pub start: u64,
    /// The slot after the last.
    pub end: u64,
}

/// A layer: experiments in it share no user, because a user has one slot and a slot belongs to one experiment.
/// Other layers have other salts, and are independent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    salt: String,
    ranges: Vec<SlotRange>,
}

impl Layer {
    /// The layer with these ranges; slots in none belong to nobody (a holdout).
    ///
    /// # Errors
    /// See [`AssignError`], those about names and ranges.
    pub fn new(salt: &str, mut ranges: Vec<SlotRange>) -> Result<Self, AssignError> {
        check_name(salt)?;
        if ranges.len() > MAX_LAYER_RANGES {
            return Err(AssignError::RangeCount);
        }
        ranges.sort_by_key(|range| range.start);
        let mut taken = 0;
        for range in &ranges {
            check_name(&range.experiment)?;
            if range.start >= range.end || range.end > LAYER_SLOTS {
                return Err(AssignError::Range(range.experiment.clone()));
            }
            if range.start < taken {
                return Err(AssignError::Overlap(range.experiment.clone()));
            }
            taken = range.end;
        }
        Ok(Self { salt: salt.to_owned(), ranges })
    }

    /// The one experiment of this layer that `user` may be in.
    pub fn experiment_of(&self, user: &str) -> Option<&str> {
        let slot = sha256_bucket(&self.salt, user, LAYER_SLOTS);
        let range = self.ranges.iter().find(|range| (range.start..range.end).contains(&slot))?;
        Some(&range.experiment)
    }
}

fn check_name(name: &str) -> Result<(), AssignError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(AssignError::Name) }
}
