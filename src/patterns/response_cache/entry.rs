//! A stored response and its binary envelope: magic, format version, checksum, then every variant of one URI.
//!
//! The body is kept as raw bytes. An envelope that is corrupt, cut off or of another format is refused with a reason, never
//! half read. Limits: 8 variants (the newest win), headers as in [`super::headers`], 256 tags.

use std::rc::Rc;

use super::controls::ResponseControls;
use super::date;
use super::directives::delta_seconds;
use super::headers::{Headers, list_members, trim};
use super::vary::Selector;
use crate::clock::Timestamp;

/// The most variants of one URI that are kept.
pub const MAX_VARIANTS: usize = 8;
/// The format this build writes, and the only one it reads: a cache refills itself, so older formats are misses.
pub const FORMAT_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"KVRC";
const MAX_STRINGS: usize = 1024;

/// The bytes of a larger representation that an entry holds (RFC 9111 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Position of the first byte held.
    pub first: u64,
    /// Length of the whole representation, in bytes.
    pub complete_length: u64,
}

/// Everything of an entry but what is worked out from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The status code; 206 if and only if `part` is there.
    pub status: u16,
    /// The fields to send again; always with a valid `Date`.
    pub headers: Headers,
    /// When the request left (`request_time`).
    pub requested_at: Timestamp,
    /// When the response arrived (`response_time`).
    pub received_at: Timestamp,
    /// How long the origin took, smoothed, in milliseconds; XFetch's delta.
    pub cost_millis: u64,
    /// The request fields that selected this response (RFC 9111 §4.1).
    pub selector: Selector,
    /// Which bytes of the representation these are; `None` for all.
    pub part: Option<Part>,
    /// For purging.
    pub tags: Vec<String>,
    /// The content.
    pub body: Rc<[u8]>,
}

/// What `Expires` says (RFC 9111 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// There is none.
    Absent,
    /// Not a date, or more than one line: a moment in the past.
    Invalid,
    /// Seconds since the Unix epoch.
    At(i64),
}

/// A stored response with its rules read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    stored: Stored,
    controls: ResponseControls,
    expires: Expires,
    date_seconds: i64,
    last_modified_seconds: Option<i64>,
    age_value_seconds: u64,
    /// A soft purge ended its freshness here; known only while the marks are, never stored.
    expired_at: Option<Timestamp>,
}

impl Entry {
    /// Reads the rules out of what is stored.
    pub fn new(stored: Stored) -> Self {
        let now = stored.received_at;
        let seconds = |name: &str| stored.headers.single(name).and_then(|text| date::parse(text, now));
        let expires = match seconds("expires") {
            Some(at) => Expires::At(at),
            None if stored.headers.contains("expires") => Expires::Invalid,
            None => Expires::Absent,
        };
        Self {
            controls: ResponseControls::read(&stored.headers),
            expires,
            date_seconds: seconds("date").unwrap_or_else(|| date::whole_seconds(now)),
            last_modified_seconds: seconds("last-modified"),
            age_value_seconds: age_value(&stored.headers),
            expired_at: None,
            stored,
        }
    }

    /// The same, no longer fresh from `at` on.
    #[must_use]
    pub fn expired(&self, at: Timestamp) -> Self {
        Self { expired_at: Some(at), ..self.clone() }
    }

    /// When a soft purge ended its freshness.
    pub const fn expired_at(&self) -> Option<Timestamp> {
        self.expired_at
    }

    /// What is stored.
    pub const fn stored(&self) -> &Stored {
        &self.stored
    }

    /// What the response says about its own caching.
    pub const fn controls(&self) -> &ResponseControls {
        &self.controls
    }

    /// What `Expires` says.
    pub const fn expires(&self) -> Expires {
        self.expires
    }

    /// `Date`, in seconds since the Unix epoch; the time of arrival if the origin sent none (RFC 9110 §6.6.1).
    pub const fn date_seconds(&self) -> i64 {
        self.date_seconds
    }

    /// `Last-Modified`, in seconds since the Unix epoch, if it is a date.
    pub const fn last_modified_seconds(&self) -> Option<i64> {
        self.last_modified_seconds
    }

    /// `Age` as received, in seconds.
    pub const fn age_value_seconds(&self) -> u64 {
        self.age_value_seconds
    }

    /// `ETag` as received.
    pub fn etag(&self) -> Option<&str> {
        self.stored.headers.single("etag")
    }

    /// Whether the origin can be asked whether this is still right (RFC 9111 §4.3.1).
    pub fn has_validator(&self) -> bool {
        self.etag().is_some() || self.last_modified_seconds.is_some()
    }

    /// Whether a lifetime comes with the response (RFC 9111 §4.2.1), be it zero.
    pub fn has_explicit_lifetime(&self) -> bool {
        self.controls.s_maxage_seconds.is_some()
            || self.controls.max_age_seconds.is_some()
            || (!self.controls.targeted && self.expires != Expires::Absent)
    }
}

/// `Age` (RFC 9111 §5.1): the first member of the first line counts; what is not a number is ignored.
fn age_value(headers: &Headers) -> u64 {
    let first = headers.values("age").next().and_then(|line| line.split(',').next()).map(trim);
    first.and_then(delta_seconds).unwrap_or(0)
}

/// All stored variants of one URI, the last stored or validated first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(Vec<Rc<Entry>>);

impl Record {
    /// The variants, newest first.
    pub fn entries(&self) -> &[Rc<Entry>] {
        &self.0
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes its bodies have.
    pub fn bytes(&self) -> usize {
        self.0.iter().fold(0, |bytes, entry| bytes.saturating_add(entry.stored.body.len()))
    }

    /// The record of the entries for which `keep` holds.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Entry) -> bool) -> Self {
        Self(self.0.iter().filter(|entry| keep(entry)).cloned().collect())
    }

    /// The record of what `revise` makes of each entry.
    #[must_use]
    pub fn revised(&self, revise: impl FnMut(&Rc<Entry>) -> Option<Rc<Entry>>) -> Self {
        Self(self.0.iter().filter_map(revise).collect())
    }

    /// The record with `entry` in place of the one it answers the same requests as; the oldest go beyond [`MAX_VARIANTS`]
    /// entries or `max_bytes` of bodies.
    #[must_use]
    pub fn with(&self, entry: Rc<Entry>, max_bytes: usize) -> Self {
        let same = |held: &Rc<Entry>| held.stored.selector == entry.stored.selector;
        let mut entries: Vec<_> = self.0.iter().filter(|held| !same(held)).cloned().collect();
        entries.insert(0, entry);
        let mut bytes = 0_usize;
        entries.truncate(MAX_VARIANTS);
        let fitting = entries.iter().enumerate().take_while(|(at, held)| {
            bytes = bytes.saturating_add(held.stored.body.len());
            *at == 0 || bytes <= max_bytes
        });
        let count = fitting.count();
        entries.truncate(count);
        Self(entries)
    }

    /// The record without `entry`.
    #[must_use]
    pub fn without(&self, entry: &Entry) -> Self {
        Self(self.0.iter().filter(|held| held.stored.selector != entry.stored.selector).cloned().collect())
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Written by another version of this software.
    #[error("the record has format {0}")]
    OtherFormat(u8),
    /// Cut off, altered, or not a record at all.
    #[error("the record is corrupt")]
    Corrupt,
}

impl Record {
    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        put_number(&mut payload, self.0.len() as u64);
        for entry in &self.0 {
            encode_entry(&mut payload, &entry.stored);
        }
        let mut bytes = Vec::with_capacity(payload.len().saturating_add(13));
        bytes.extend_from_slice(&MAGIC);
        bytes.push(FORMAT_VERSION);
        bytes.extend_from_slice(&checksum(&payload).to_le_bytes());
        bytes.append(&mut payload);
        bytes
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// [`EnvelopeError::OtherFormat`] for another format version, [`EnvelopeError::Corrupt`] for anything unreadable.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(EnvelopeError::Corrupt)?;
        let (&version, rest) = rest.split_first().ok_or(EnvelopeError::Corrupt)?;
        if version != FORMAT_VERSION {
            return Err(EnvelopeError::OtherFormat(version));
        }
        let (expected, payload) = rest.split_first_chunk::<8>().ok_or(EnvelopeError::Corrupt)?;
        if checksum(payload) != u64::from_le_bytes(*expected) {
            return Err(EnvelopeError::Corrupt);
        }
        Self::decode_payload(payload).ok_or(EnvelopeError::Corrupt)
    }

    fn decode_payload(payload: &[u8]) -> Option<Self> {
        let mut input = Reader(payload);
        let count = usize::try_from(input.number()?).ok().filter(|count| *count <= MAX_VARIANTS)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(Rc::new(Entry::new(input.entry()?)));
        }
        input.0.is_empty().then_some(Self(entries))
    }
}

fn encode_entry(out: &mut Vec<u8>, stored: &Stored) {
    put_number(out, u64::from(stored.status));
    put_number(out, stored.requested_at.millis());
    put_number(out, stored.received_at.millis());
    put_number(out, stored.cost_millis);
    match stored.part {
        None => put_number(out, 0),
        Some(part) => {
            put_number(out, 1);
            put_number(out, part.first);
            put_number(out, part.complete_length);
        }
    }
    put_number(out, stored.tags.len() as u64);
    for tag in &stored.tags {
        put_bytes(out, tag.as_bytes());
    }
    put_number(out, stored.selector.fields().len() as u64);
    for (name, value) in stored.selector.fields() {
        put_bytes(out, name.as_bytes());
        put_number(out, u64::from(value.is_some()));
        put_bytes(out, value.as_deref().unwrap_or_default().as_bytes());
    }
    put_number(out, stored.headers.len() as u64);
    for (name, value) in stored.headers.iter() {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    put_bytes(out, &stored.body);
}

/// LEB128: seven bits a byte, least significant first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f).to_le_bytes()[0];
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// FNV-1a over 64-bit little-endian words and the length: finds accidents, not attacks, and costs a nanosecond for 8 bytes.
/// Source: Fowler, Noll, Vo, draft-eastlake-fnv.
fn checksum(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
    // The product only carries upwards, so the top half is folded into the bottom one.
    let hash = mix(hash, bytes.len() as u64);
    hash ^ (hash >> 32)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&[u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= MAX_STRINGS)
    }

    fn entry(&mut self) -> Option<Stored> {
        let status = u16::try_from(self.number()?).ok()?;
        let requested_at = Timestamp::from_millis(self.number()?);
        let received_at = Timestamp::from_millis(self.number()?);
        let cost_millis = self.number()?;
        let part = match self.number()? {
            0 => None,
            1 => Some(Part { first: self.number()?, complete_length: self.number()? }),
            _ => return None,
        };
        let tags = (0..self.count()?).map(|_| self.text()).collect::<Option<_>>()?;
        let mut fields = Vec::new();
        for _ in 0..self.count()? {
            let (name, present, value) = (self.text()?, self.number()?, self.text()?);
            fields.push((name, (present == 1).then_some(value)));
        }
        let mut pairs = Vec::new();
        for _ in 0..self.count()? {
            pairs.push((self.text()?, self.text()?));
        }
        let headers = Headers::from_pairs(pairs).ok()?;
        let body = Rc::from(self.bytes()?);
        let selector = Selector::from_fields(fields);
        Some(Stored { status, headers, requested_at, received_at, cost_millis, selector, part, tags, body })
    }
}

/// The tags of a response: the operator's, and those of its `Cache-Tag` lines.
pub fn tags(policy_tags: &[String], headers: &Headers) -> Vec<String> {
    let mut tags = policy_tags.to_vec();
    for tag in headers.values("cache-tag").flat_map(list_members) {
        if tags.len() < 256 && !tags.iter().any(|held| held == tag) {
            tags.push(tag.to_owned());
        }
    }
    tags
}
