//! What may go wrong and how often: delay [`Profile`]s, kinds of [`Fault`], and the [`Setup`] of one world.
//!
//! How long KV really takes to propagate is not published, so every delay is a parameter and there are three profiles.

use std::collections::BTreeMap;
use std::fmt;

use crate::kv::limits::CACHE_TTL_SECONDS_DEFAULT;
use crate::random::{Random, SeededRandom};

/// A random time: mostly up to `usual_millis_max`, in `tail_permille` of cases up to `millis_max`. Uniform in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The usual upper end, in milliseconds.
    pub usual_millis_max: u64,
    /// The upper end that is never passed, in milliseconds.
    pub millis_max: u64,
    /// How many of a thousand cases reach beyond the usual.
    pub tail_permille: u64,
}

impl Delay {
    /// No delay at all.
    pub const ZERO: Self = Self { usual_millis_max: 0, millis_max: 0, tail_permille: 0 };

    /// A delay of at most `usual` seconds, in a tenth of all cases at most `max` seconds.
    const fn seconds(usual: u64, max: u64) -> Self {
        Self { usual_millis_max: usual * 1000, millis_max: max * 1000, tail_permille: 100 }
    }

    /// A delay of at most `usual` milliseconds, in one case of a hundred at most `max`.
    const fn millis(usual: u64, max: u64) -> Self {
        Self { usual_millis_max: usual, millis_max: max, tail_permille: 10 }
    }

    /// One draw.
    pub fn sample(&self, random: &impl Random) -> u64 {
        let tail = self.tail_permille > 0 && random.below(1000) < self.tail_permille;
        random.below(if tail { self.millis_max } else { self.usual_millis_max }.saturating_add(1))
    }
}

/// How slow and how stale the simulated KV is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `optimistic`, `documented`, `pathological` or `ideal`.
    pub name: &'static str,
    /// From a write to the moment another location's caches can fetch it.
    pub propagation: Delay,
    /// What lists lag behind reads.
    pub list_lag: Delay,
    /// Whether a new key that nobody has looked for is there for everybody at once: no cache can hold a miss of it, so
    /// every read of it reaches the central store. Inferred from the documentation, not stated by it.
    pub new_keys_are_seen_at_once: bool,
    /// How many of a thousand writes the writing location does not see at once.
    pub own_write_hidden_permille: u64,
    /// Whether a delete within a second of a write to its key is refused like a write. Not documented either way.
    pub deletes_are_throttled: bool,
    /// One way of an operation answered from a location's cache.
    pub near: Delay,
    /// One way of an operation that reaches the central store.
    pub far: Delay,
    /// How far a location's clock may be off, in milliseconds, either way.
    pub clock_skew_millis_max: u64,
}

impl Profile {
    /// No delay: a strongly consistent store that still throttles. For the contract suite and for first tests.
    pub const IDEAL: Self = Self {
        name: "ideal",
        propagation: Delay::ZERO,
        list_lag: Delay::ZERO,
        new_keys_are_seen_at_once: true,
        own_write_hidden_permille: 0,
        deletes_are_throttled: false,
        near: Delay::ZERO,
        far: Delay::ZERO,
        clock_skew_millis_max: 0,
    };

    /// A good day: changes travel within a second, five at worst.
    pub const OPTIMISTIC: Self = Self {
        name: "optimistic",
        propagation: Delay::seconds(1, 5),
        list_lag: Delay::seconds(1, 5),
        near: Delay::millis(3, 10),
        far: Delay::millis(80, 300),
        ..Self::IDEAL
    };

    /// What the documentation warns of: up to 60 seconds before another location can see a change, to which the
    /// reader's own `cacheTtl` adds; the own write usually, not always, at once.
    /// Source: <https://developers.cloudflare.com/kv/concepts/how-kv-works/>
    pub const DOCUMENTED: Self = Self {
        name: "documented",
        propagation: Delay::seconds(10, 60),
        list_lag: Delay::seconds(10, 60),
        new_keys_are_seen_at_once: true,
        own_write_hidden_permille: 50,
        deletes_are_throttled: true,
        near: Delay::millis(5, 50),
        far: Delay::millis(150, 1000),
        clock_skew_millis_max: 50,
    };

    /// "60 seconds or more" taken at its word: minutes of propagation, own writes often hidden, clocks seconds off, and new keys
    /// that propagate like any other change.
    pub const PATHOLOGICAL: Self = Self {
        name: "pathological",
        propagation: Delay::seconds(60, 600),
        list_lag: Delay::seconds(60, 600),
        new_keys_are_seen_at_once: false,
        own_write_hidden_permille: 500,
        deletes_are_throttled: true,
        near: Delay::millis(20, 500),
        far: Delay::millis(500, 3000),
        clock_skew_millis_max: 2000,
    };

    /// The three that promises are measured under.
    pub const ALL: [Self; 3] = [Self::OPTIMISTIC, Self::DOCUMENTED, Self::PATHOLOGICAL];

    /// The profile of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The longest time after an acknowledged write for which a read that begins then may still miss it, in
    /// milliseconds, when every reader of that key asks for `cache_ttl_seconds` (60 when nothing is said).
    pub fn stale_millis_max(&self, cache_ttl_seconds: Option<u32>) -> u64 {
        let kept = u64::from(cache_ttl_seconds.unwrap_or(CACHE_TTL_SECONDS_DEFAULT)).saturating_mul(1000);
        self.propagation.millis_max.saturating_add(kept)
    }

    /// The same for lists, which are not kept by locations here.
    pub const fn list_stale_millis_max(&self) -> u64 {
        self.propagation.millis_max.saturating_add(self.list_lag.millis_max)
    }
}

/// A kind of misfortune. A swarm turns whole kinds on or off per run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A read or list is answered with a 5xx.
    ReadFails,
    /// A write or delete is answered with a 5xx and did nothing.
    WriteFailsBefore,
    /// A write or delete took effect and its answer was lost.
    WriteFailsAfter,
    /// An operation is never answered; a write may have taken effect or not.
    Hangs,
    /// An operation takes twenty times its time.
    Slow,
    /// A write is given up by the platform and lands up to 30 seconds later, over whatever is there then.
    LateWrite,
    /// A location forgets its copy of a key before its time.
    CacheEvicted,
    /// A fetch is answered by the replica that lags most, so a location steps back in time, within the propagation.
    StepsBack,
    /// A list page is cut short, often to nothing, with a cursor that goes on.
    ShortPages,
    /// A value is served up to a minute past its expiry.
    LateExpiry,
    /// An isolate dies in the middle of a request, with its memory and its background work.
    IsolateDies,
    /// An isolate is suspended for up to 20 seconds after an answer came, with its clock still at the answer.
    Pauses,
    /// Background work is dropped before it starts.
    BackgroundLost,
    /// A Durable Object is restarted before, in, or after a request.
    ObjectRestarts,
    /// A Durable Object refuses a request because too many wait.
    ObjectOverloaded,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::ReadFails,
        Self::WriteFailsBefore,
        Self::WriteFailsAfter,
        Self::Hangs,
        Self::Slow,
        Self::LateWrite,
        Self::CacheEvicted,
        Self::StepsBack,
        Self::ShortPages,
        Self::LateExpiry,
        Self::IsolateDies,
        Self::Pauses,
        Self::BackgroundLost,
        Self::ObjectRestarts,
        Self::ObjectOverloaded,
    ];

    /// How many of a thousand chances a swarm takes when the kind is on: often enough to meet each in a short run.
    pub const fn usual_permille(self) -> u64 {
        match self {
            Self::Hangs | Self::LateWrite | Self::IsolateDies | Self::Pauses | Self::ObjectOverloaded => 10,
            Self::ReadFails | Self::WriteFailsBefore | Self::WriteFailsAfter | Self::ObjectRestarts => 30,
            Self::Slow | Self::CacheEvicted | Self::StepsBack | Self::BackgroundLost => 50,
            Self::ShortPages | Self::LateExpiry => 200,
        }
    }
}

/// Which faults happen, and in how many of a thousand cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<Fault, u64>);

impl Faults {
    /// No fault.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every kind at its usual rate.
    pub fn all() -> Self {
        Self(Fault::ALL.into_iter().map(|fault| (fault, fault.usual_permille())).collect())
    }

    /// Each kind on or off by the toss of a coin, so that some runs meet a fault alone and some in company.
    /// Source: Groce et al., "Swarm testing", ISSTA 2012.
    pub fn swarm(random: &impl Random) -> Self {
        let mut faults = Self::all();
        faults.0.retain(|_, _| random.below(2) == 0);
        faults
    }

    /// These and `fault`, in `permille` of a thousand cases.
    #[must_use]
    pub fn with(mut self, fault: Fault, permille: u64) -> Self {
        self.0.insert(fault, permille);
        self
    }

    /// These without `fault`.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Self {
        self.0.remove(&fault);
        self
    }

    /// The kinds that are on.
    pub fn kinds(&self) -> impl Iterator<Item = Fault> {
        self.0.keys().copied()
    }

    /// Whether `fault` strikes this time. A kind that is off draws no randomness.
    pub(super) fn strikes(&self, fault: Fault, random: &impl Random) -> bool {
        self.0.get(&fault).is_some_and(|permille| random.below(1000) < *permille)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("none");
        }
        for (index, (fault, permille)) in self.0.iter().enumerate() {
            write!(formatter, "{}{fault:?} {permille}\u{2030}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Everything a world is made from. Equal setups make equal worlds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The seed of every random choice.
    pub seed: u64,
    /// Delays.
    pub profile: Profile,
    /// Faults.
    pub faults: Faults,
    /// How many locations there are.
    pub locations: usize,
}

impl Setup {
    /// One location, no delays, no faults.
    pub fn ideal(seed: u64) -> Self {
        Self { seed, profile: Profile::IDEAL, faults: Faults::none(), locations: 1 }
    }

    /// Five locations under `profile`, with a swarm of faults chosen by the seed.
    pub fn swarm(seed: u64, profile: Profile) -> Self {
        Self { seed, profile, faults: Faults::swarm(&stream(seed, "faults")), locations: 5 }
    }
}

/// The random numbers of one subsystem: one seed gives each a stream of its own, so that more draws in one do not
/// shift the others.
pub fn stream(seed: u64, subsystem: &str) -> SeededRandom {
    let label = subsystem.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    SeededRandom::new(SeededRandom::new(seed).next_u64() ^ label)
}

/// One step of FNV-1a, 64 bits (Fowler, Noll, Vo).
pub(super) const fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01B3)
}
