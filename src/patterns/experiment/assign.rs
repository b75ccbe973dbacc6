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

/// Why an allocation or a layer's slots are refused.
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
    /// An empty range, or one beyond [`LAYER_SLOTS`].
    #[error("a layer's slots start below where they end, which is at most {LAYER_SLOTS}")]
    Slots,
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

/// An experiment's part of a layer. A user has one slot in a layer, so experiments whose slots do not overlap share no
/// user. The slot does not depend on experiments, and says nothing about the variant, nor about other layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedSlots")]
pub struct Slots {
    layer: String,
    start: u64,
    end: u64,
}

/// Slots as they are stored, before their rules are checked again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedSlots {
    layer: String,
    start: u64,
    end: u64,
}

impl TryFrom<UncheckedSlots> for Slots {
    type Error = AssignError;

    fn try_from(unchecked: UncheckedSlots) -> Result<Self, AssignError> {
        Self::new(&unchecked.layer, unchecked.start, unchecked.end)
    }
}

impl Slots {
    /// The slots of `layer` from `start` to just before `end`, of [`LAYER_SLOTS`].
    ///
    /// # Errors
    /// [`AssignError::Name`], [`AssignError::Slots`].
    pub fn new(layer: &str, start: u64, end: u64) -> Result<Self, AssignError> {
        check_name(layer)?;
        if start < end && end <= LAYER_SLOTS {
            Ok(Self { layer: layer.to_owned(), start, end })
        } else {
            Err(AssignError::Slots)
        }
    }

    /// The layer's name.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The first slot.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The slot after the last.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether `user` has one of these slots. The salt holds a separator, so it is no experiment's.
    pub fn hold(&self, user: &str) -> bool {
        let slot = sha256_bucket(&["layer\u{1f}", &self.layer].concat(), user, LAYER_SLOTS);
        (self.start..self.end).contains(&slot)
    }

    /// Whether some user has a slot in both.
    pub fn overlap(&self, other: &Self) -> bool {
        self.layer == other.layer && self.start.max(other.start) < self.end.min(other.end)
    }

    /// The share of all users who have one of these slots.
    pub fn share(&self) -> f64 {
        to_f64(self.end - self.start) / to_f64(LAYER_SLOTS)
    }

    /// The share of all users who have one of these and one of the other slots.
    pub fn shared_with(&self, other: &Self) -> f64 {
        if self.layer != other.layer {
            // Slots of two layers are independent.
            return self.share() * other.share();
        }
        to_f64(self.end.min(other.end).saturating_sub(self.start.max(other.start))) / to_f64(LAYER_SLOTS)
    }
}

fn check_name(name: &str) -> Result<(), AssignError> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(AssignError::Name) }
}
