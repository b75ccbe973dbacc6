//! Adding shards up: one counter's value, and a page of all counters, from what lists give.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::gather::Own;
use super::{FOLD, Fold, RESET, Reset, SHARDS, Shard, VALUE_MAX, bucket_of};
use crate::clock::Timestamp;
use crate::kv::{Corrupt, Error, PageRequest, Prefix, Store, unescape};

/// Lists one page of counters may take.
const LISTS_MAX: usize = 10;

/// One counter in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its value, kept within ±[`VALUE_MAX`].
    pub value: i64,
}

/// A page of counters, possibly empty although more follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPage {
    /// The counters.
    pub items: Vec<Listed>,
    /// Where the next page starts; nothing when this was the last.
    pub cursor: Option<String>,
}

/// A counter being added up: its keys come in order, fold record and reset first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tally {
    /// The name as it stands in keys.
    segment: String,
    /// The name, once known: at once when the segment shows it, else from the first record.
    name: Option<String>,
    through: Option<u64>,
    reset: Timestamp,
    #[serde(with = "super::decimal")]
    sum: i128,
    /// Whether anything that counts was seen.
    is_alive: bool,
    #[serde(skip)]
    own: Own,
}

/// What one key of a counter says.
pub(super) enum Part {
    Fold(Fold),
    /// When the counter was reset, and its name if the key hides it.
    Reset(Timestamp, Option<String>),
    Shard {
        bucket: u64,
        shard: String,
        record: Result<Shard, Error>,
    },
}

impl Part {
    /// The part that the key `rest` (what follows the counter's name) stands for; nothing for foreign keys.
    pub(super) fn parse(rest: &str, metadata: Option<&str>) -> Result<Option<Self>, Error> {
        let mut segments = rest.split('/');
        let part = match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some(FOLD), None, ..) => Self::Fold(record(metadata)?),
            (Some(RESET), Some(at), None, _) => {
                let Ok(at) = at.parse() else { return Ok(None) };
                Self::Reset(Timestamp::from_millis(at), record::<Reset>(metadata)?.name)
            }
            (Some(SHARDS), Some(bucket), Some(shard), None) => {
                let Ok(bucket) = bucket.parse() else { return Ok(None) };
                Self::Shard { bucket, shard: shard.to_owned(), record: record(metadata) }
            }
            _ => return Ok(None),
        };
        Ok(Some(part))
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Fold(fold) => fold.name.as_deref(),
            Self::Reset(_, name) => name.as_deref(),
            Self::Shard { record, .. } => record.as_ref().ok().and_then(|shard| shard.name.as_deref()),
        }
    }
}

fn record<T: DeserializeOwned>(metadata: Option<&str>) -> Result<T, Error> {
    let parsed = metadata.and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
    parsed.ok_or(Error::Corrupt(Corrupt::Damaged))
}

impl Tally {
    pub(super) fn new(name: &str, own: Own) -> Self {
        Self { name: Some(name.to_owned()), reset: own.reset, own, ..Self::of(String::new()) }
    }

    /// An empty tally of the counter whose name stands in keys as `segment`.
    fn of(segment: String) -> Self {
        let name = unescape(&segment);
        let (through, reset, own) = (None, Timestamp::default(), Own::default());
        Self { segment, name, through, reset, sum: 0, is_alive: false, own }
    }

    /// Takes one key of the counter: `rest` is what follows the counter's name.
    pub(super) fn take(&mut self, rest: &str, metadata: Option<&str>) -> Result<(), Error> {
        let Some(part) = Part::parse(rest, metadata)? else { return Ok(()) };
        if self.name.is_none() {
            self.name = part.name().map(str::to_owned);
        }
        match part {
            Part::Fold(fold) => {
                self.through = Some(fold.through);
                if fold.reset >= self.reset {
                    self.reset = fold.reset;
                    self.add(fold.value);
                }
            }
            Part::Reset(at, _) if at > self.reset => {
                // The fold record, if any, was of before.
                self.reset = at;
                self.sum = 0;
                self.is_alive = false;
            }
            Part::Reset(..) => {}
            Part::Shard { bucket, shard, record } => {
                let is_own = self.own.shards.iter().any(|own| own.shard == shard);
                // What cannot count need not be readable, so a reset heals a counter with a damaged shard.
                if !is_own && counts_hour(bucket, self.through, self.reset) {
                    let record = record?;
                    if record.since >= self.reset {
                        self.add(i128::from(record.value));
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, value: i128) {
        self.sum = self.sum.saturating_add(value);
        self.is_alive = true;
    }

    /// The value, this isolate's own counts included.
    pub(super) fn value(&self) -> i64 {
        let counting = self
            .own
            .shards
            .iter()
            .filter(|own| counts_hour(own.bucket, self.through, self.reset) && own.since >= self.reset);
        let own = counting.map(|own| i128::from(own.value)).sum::<i128>() + i128::from(self.own.pending);
        clamp(self.sum.saturating_add(own))
    }

    fn is_listed_below(&self, start: &str) -> bool {
        self.is_alive && self.name.as_ref().is_some_and(|name| name.starts_with(start))
    }

    fn listed(self) -> Option<Listed> {
        let value = self.value();
        self.name.filter(|_| self.is_alive).map(|name| Listed { name, value })
    }
}

/// Whether shards of this hour can count at all: not when folded, and not when the hour ended before the reset.
pub(super) fn counts_hour(bucket: u64, through: Option<u64>, reset: Timestamp) -> bool {
    through.is_none_or(|through| bucket > through) && bucket >= bucket_of(reset)
}

/// `value`, brought into the range of a counter.
pub(super) fn clamp(value: i128) -> i64 {
    let limit = i128::from(VALUE_MAX);
    i64::try_from(value.clamp(-limit, limit)).unwrap_or_default()
}

/// Where a list of counters goes on: KV's cursor, and the counter that the page's end cut in two.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Position {
    kv: Option<String>,
    tally: Option<Tally>,
    /// KV has no more; only the tally did not fit on the page.
    #[serde(default)]
    is_last: bool,
}

/// A page of the counters in `space` whose names start with `start`.
pub(super) async fn list(
    store: &impl Store,
    space: &Prefix,
    start: &str,
    limit: u32,
    cursor: Option<&str>,
) -> Result<ListedPage, Error> {
    let position = cursor.map(|text| serde_json::from_slice::<Position>(text.as_bytes())).transpose();
    let position = position.map_err(|_| Error::Invalid("a foreign cursor".to_owned()))?.unwrap_or_default();
    let Position { kv: mut at, mut tally, mut is_last } = position;
    if is_last {
        return Ok(ListedPage { items: tally.and_then(Tally::listed).into_iter().collect(), cursor: None });
    }
    let mut items = Vec::new();
    for _ in 0..LISTS_MAX {
        // Never more keys than counters wanted, so that a page of KV never holds more counters than fit.
        let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(items.len());
        let request = PageRequest { cursor: at.take(), ..PageRequest::first(u32::try_from(room).unwrap_or(limit)) };
        let page = store.list(space, &request).await?;
        for key in &page.keys {
            let Some((segment, rest)) = space.rest(&key.name).and_then(|rest| rest.split_once('/')) else { continue };
            if tally.as_ref().is_none_or(|tally| tally.segment != segment) {
                items.extend(tally.replace(Tally::of(segment.to_owned())).and_then(Tally::listed));
            }
            if let Some(tally) = &mut tally {
                tally.take(rest, key.metadata.as_deref())?;
            }
        }
        items.retain(|item| item.name.starts_with(start));
        at = page.cursor;
        let is_full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        is_last = at.is_none();
        if is_last {
            tally = tally.filter(|tally| tally.is_listed_below(start));
            if !is_full || tally.is_none() {
                items.extend(tally.and_then(Tally::listed));
                return Ok(ListedPage { items, cursor: None });
            }
        }
        if is_full {
            break;
        }
    }
    let cursor = serde_json::to_string(&Position { kv: at, tally, is_last })
        .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(ListedPage { items, cursor: Some(cursor) })
}
