//! One experiment: what its owner says, who sees what, and which edits would move users. No I/O.
//!
//! - **Who decides**: the status first, for everybody; then a tester's override; then the layer's slots; then a sticky
//!   token; then the hash. So draft, paused and ended take effect for everybody, also for those who hold a token, and a
//!   user outside the slots is in no variant, whatever came before.
//! - **Allocation history**: each allocation that was served and then changed stays in the record, numbered as a
//!   *phase*, the newest [`PHASES_MAX`] of them. A sticky token names the phase in which its user came, nothing else,
//!   so the variant is computed, never stored.
//! - **The guard** compares what users were last served with what they would be served now. An edit of a paused
//!   experiment moves nobody; resuming it may, and is guarded then. Slots taken from a served experiment move their users
//!   to control; slots given to it move nobody who was served.

use std::collections::BTreeMap;
use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;

use super::assign::{Allocation, AssignError, Slots, Variant};
use crate::clock::Timestamp;
use crate::kv::CursorSeal;
use crate::kv::codec::Record;
use crate::random::Random;

/// Longest name of a variant, in bytes: name and metric of an event must fit into 1024 bytes of metadata, escaped.
pub const VARIANT_BYTES_MAX: usize = 128;
/// Testers with a variant of their own.
pub const OVERRIDES_MAX: usize = 100;
/// Allocations remembered, the current one included.
pub const PHASES_MAX: usize = 10;
/// Longest user id, in bytes.
const USER_BYTES_MAX: usize = 256;
/// Random bytes of an id and of a salt.
const ID_BYTES: usize = 16;
/// Bytes of the keyed hash that stands for a user.
const USER_HASH_BYTES: usize = 16;

/// Whether an experiment decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not yet.
    Draft,
    /// Users get their variants, and events count.
    Running,
    /// Everybody gets control for now.
    Paused,
    /// Everybody gets control.
    Ended,
}

/// What the owner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The first is the control.
    pub variants: Vec<Variant>,
    /// Whether it decides anything.
    pub status: Status,
    /// What is hashed with each user; when not said, kept, or random for a new experiment.
    pub salt: Option<String>,
    /// Whether a token keeps its user in the variant of the phase it names.
    pub sticky: bool,
    /// Testers, and the variant each one gets while it runs. Their events do not count.
    pub overrides: BTreeMap<String, String>,
    /// The slots of a layer it is confined to.
    pub slots: Option<Slots>,
}

/// Why an edit is refused.
#[derive(Clone, Debug, PartialEq, ThisError)]
pub enum Refused {
    /// `field` is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// Where.
        field: String,
        /// Why.
        why: String,
    },
    /// It would give this share of all users another variant than they were served.
    #[error("the edit would move a share of {0} of all users")]
    WouldMove(f64),
    /// This experiment has some of its slots.
    #[error("\"{0}\" has some of these slots")]
    Overlaps(String),
}

impl Refused {
    fn invalid(field: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Invalid { field: field.into(), why: why.to_string() }
    }
}

/// A key that no client sees: it seals tokens and hides user ids in the names of events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Secret([u8; 32]);

impl TryFrom<String> for Secret {
    type Error = base64ct::Error;

    fn try_from(text: String) -> Result<Self, base64ct::Error> {
        let mut bytes = [0; 32];
        let length = Base64UrlUnpadded::decode(&text, &mut bytes)?.len();
        if length == bytes.len() { Ok(Self(bytes)) } else { Err(base64ct::Error::InvalidLength) }
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        Base64UrlUnpadded::encode_string(&secret.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// An allocation and its place in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Phase {
    /// From 1, upwards.
    pub number: u64,
    /// Whether users were ever placed by it.
    pub served: bool,
    /// Who gets what.
    pub allocation: Allocation,
    /// Who gets anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<Slots>,
}

impl Phase {
    /// The share of all users whom `next` gives another variant than this phase did, `control` for those it leaves out.
    fn moved_share(&self, next: &Self, control: &str) -> f64 {
        let before = self.slots.as_ref().map_or(1.0, Slots::share);
        let stay = match (&self.slots, &next.slots) {
            (Some(slots), Some(next)) => slots.shared_with(next),
            (None, Some(next)) => next.share(),
            (_, None) => before,
        };
        let left = (before - stay).max(0.0) * (1.0 - self.allocation.share(control));
        stay * self.allocation.moved_share(&next.allocation) + left
    }
}

/// An experiment as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Experiment {
    name: String,
    /// Random: an experiment made anew under an old name shares no events and no tokens with it.
    id: String,
    secret: Secret,
    /// Greater than that of the version it replaced, and not below the time in milliseconds.
    sequence: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    status: Status,
    sticky: bool,
    overrides: BTreeMap<String, String>,
    phase: Phase,
    /// Served phases before it, newest first.
    history: Vec<Phase>,
}

impl Record for Experiment {
    const KIND: &'static str = "experiment";
    const VERSION: u32 = 1;
}

/// An experiment as clients see it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    name: &'a str,
    variants: &'a [Variant],
    status: Status,
    salt: &'a str,
    sticky: bool,
    overrides: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<LayerView<'a>>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The slots of a layer as clients see them.
#[derive(Clone, Debug, Serialize)]
struct LayerView<'a> {
    name: &'a str,
    start: u64,
    end: u64,
}

/// Why a user has the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The hash of the user, or a tester's override, says so.
    Assigned,
    /// The token says when the user came, and the allocation of that time still holds for it.
    Sticky,
    /// The experiment is not running: everybody has control.
    NotRunning,
    /// The user's slot in the layer is not this experiment's: control, and no event counts.
    NotInLayer,
}

/// Where a user stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// The variant.
    pub variant: &'a str,
    /// Why.
    pub reason: Reason,
    /// The phase whose allocation decided; nothing when none did, and then no event counts.
    pub phase: Option<u64>,
}

impl Experiment {
    /// The experiment `name` after an edit of `before`.
    ///
    /// # Errors
    ///
    /// [`Refused::Invalid`]; [`Refused::WouldMove`] unless `allow_reassign`.
    pub fn edited(
        before: Option<&Self>,
        name: &str,
        definition: Definition,
        allow_reassign: bool,
        now: Timestamp,
        random: &impl Random,
    ) -> Result<Self, Refused> {
        let salt = definition.salt.or_else(|| before.map(|before| before.phase.allocation.salt().to_owned()));
        let salt = salt.unwrap_or_else(|| random_id(random));
        let allocation = check_allocation(&salt, definition.variants)?;
        check_overrides(&definition.overrides, &allocation)?;
        let runs = definition.status == Status::Running;
        let served = before.and_then(Self::last_served);
        let control = allocation.variants().first().map_or("", |variant| variant.name.as_str()).to_owned();
        let mut phase = Phase { number: 1, served: runs, allocation, slots: definition.slots };
        if let Some(last) = served {
            let moved = last.moved_share(&phase, &control);
            if runs && moved > 0.0 && !allow_reassign {
                return Err(Refused::WouldMove(moved));
            }
            let is_same = moved == 0.0 && last.slots == phase.slots;
            phase.number = if is_same { last.number } else { last.number.saturating_add(1) };
            phase.served |= is_same;
        }
        let number = phase.number;
        let past = before.map(|before| std::iter::once(&before.phase).chain(&before.history)).into_iter().flatten();
        let history = past.filter(|past| past.served && past.number < number).take(PHASES_MAX - 1).cloned().collect();
        let mut secret = Secret([0; 32]);
        random.fill(&mut secret.0);
        Ok(Self {
            name: name.to_owned(),
            id: before.map_or_else(|| random_id(random), |before| before.id.clone()),
            secret: before.map_or(secret, |before| before.secret.clone()),
            sequence: before.map_or(1, |before| before.sequence.saturating_add(1)).max(now.millis()),
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
            status: definition.status,
            sticky: definition.sticky,
            overrides: definition.overrides,
            phase,
            history,
        })
    }

    /// Whether both say the same, whenever they were written.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let dated = Self { sequence: other.sequence, updated_at: other.updated_at, ..self.clone() };
        dated == *other
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What clients may see: everything but the secret and the history.
    pub fn view(&self) -> View<'_> {
        View {
            name: &self.name,
            variants: self.phase.allocation.variants(),
            status: self.status,
            salt: self.phase.allocation.salt(),
            sticky: self.sticky,
            overrides: &self.overrides,
            layer: self.slots().map(|slots| LayerView { name: slots.layer(), start: slots.start(), end: slots.end() }),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    /// Where `user` stands. A token that is not one of this user and experiment counts as none.
    pub fn place(&self, user: &str, token: Option<&str>) -> Placement<'_> {
        let control = self.phase.allocation.variants().first().map_or("", |variant| variant.name.as_str());
        if self.status != Status::Running {
            return Placement { variant: control, reason: Reason::NotRunning, phase: None };
        }
        if let Some(variant) = self.overrides.get(user) {
            return Placement { variant, reason: Reason::Assigned, phase: None };
        }
        if self.slots().is_some_and(|slots| !slots.hold(user)) {
            return Placement { variant: control, reason: Reason::NotInLayer, phase: None };
        }
        let kept = token.filter(|_| self.sticky).and_then(|token| self.kept(user, token));
        let (phase, reason) = kept.map_or((&self.phase, Reason::Assigned), |phase| (phase, Reason::Sticky));
        Placement { variant: phase.allocation.assign(user), reason, phase: Some(phase.number) }
    }

    /// The phase that `token` keeps `user` in, if its variant is still offered.
    fn kept(&self, user: &str, token: &str) -> Option<&Phase> {
        let number: u64 = self.seal().open(&self.scope(user), token)?.parse().ok()?;
        let phase = std::iter::once(&self.phase).chain(&self.history).find(|phase| phase.number == number)?;
        let variant = phase.allocation.assign(user);
        self.phase.allocation.variants().iter().any(|offered| offered.name == variant).then_some(phase)
    }

    /// The token that keeps `user` where `placement` says; nothing where there is nothing to keep.
    pub fn sticky_token(&self, user: &str, placement: &Placement<'_>) -> Option<String> {
        let phase = placement.phase.filter(|_| self.sticky)?;
        Some(self.seal().seal(&self.scope(user), &phase.to_string()))
    }

    fn seal(&self) -> CursorSeal {
        CursorSeal::new(self.secret.0)
    }

    /// Ids are random and neither they nor users hold control characters, so two scopes never meet.
    fn scope(&self, user: &str) -> String {
        format!("{}\0{user}", self.id)
    }

    /// A pseudonym of `user` that nobody can compute without the stored secret, in hex: its order is random.
    pub(super) fn pseudonym(&self, user: &str) -> String {
        let digest = Sha256::new().chain_update(self.secret.0).chain_update("user\0").chain_update(user).finalize();
        base16ct::lower::encode_string(digest.get(..USER_HASH_BYTES).unwrap_or_default())
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// The slots it is confined to now.
    pub(super) fn slots(&self) -> Option<&Slots> {
        self.phase.slots.as_ref()
    }

    /// The variants as they are now; the first is the control.
    pub(super) fn variants(&self) -> &[Variant] {
        self.phase.allocation.variants()
    }

    /// The phase users were last placed by; nothing before the first start.
    pub(super) fn last_served(&self) -> Option<&Phase> {
        std::iter::once(&self.phase).chain(&self.history).find(|phase| phase.served)
    }
}

fn check_allocation(salt: &str, variants: Vec<Variant>) -> Result<Allocation, Refused> {
    if let Some(index) = variants.iter().position(|variant| variant.name.len() > VARIANT_BYTES_MAX) {
        let why = format!("must have at most {VARIANT_BYTES_MAX} bytes");
        return Err(Refused::invalid(format!("variants[{index}].name"), why));
    }
    // With the variants of a checked salt, so that what is left is the salt's fault.
    Allocation::new("-", variants).map_err(|error| Refused::invalid("variants", error)).and_then(|checked| {
        Allocation::new(salt, checked.variants().to_vec()).map_err(|error: AssignError| Refused::invalid("salt", error))
    })
}

fn check_overrides(overrides: &BTreeMap<String, String>, allocation: &Allocation) -> Result<(), Refused> {
    if overrides.len() > OVERRIDES_MAX {
        return Err(Refused::invalid("overrides", format!("at most {OVERRIDES_MAX} users may have one")));
    }
    for (user, variant) in overrides {
        if user.is_empty() || user.len() > USER_BYTES_MAX || user.chars().any(char::is_control) {
            return Err(Refused::invalid("overrides", "a user id has 1 to 256 bytes and no control character"));
        }
        if !allocation.variants().iter().any(|known| known.name == *variant) {
            return Err(Refused::invalid(format!("overrides.{user}"), "there is no such variant"));
        }
    }
    Ok(())
}

fn random_id(random: &impl Random) -> String {
    let mut bytes = [0; ID_BYTES];
    random.fill(&mut bytes);
    Base64UrlUnpadded::encode_string(&bytes)
}
