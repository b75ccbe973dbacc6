//! Keys that cannot be forged from ids: a [`Key`] is made of a tenant's [`KeySpace`] and escaped segments, nothing else.
//!
//! - **Injective**: two different lists of segments never give the same key.
//! - **Prefix-true**: a [`Prefix`] matches exactly the keys below it, never a sibling that starts alike.
//! - **A capability**: who holds tenant A's key space cannot form a key of tenant B.
//! - **At most 512 bytes**: a segment too long, or a whole too long, ends in a hash (SHA-256, so still injective in
//!   practice). Such a part cannot be read back from the key.
//! - **Never an integer**: every key holds a `/`, so the runtime's bulk read cannot drop it (it drops keys such as
//!   `123`), and it can never be empty, `.` or `..`.
//!
//! A key reads `<tenant>/<resource>/<segment>/...`. In a segment `%`, `/` and control characters are written `%XX`,
//! an empty segment is `%-`, a hashed segment `%~<hash>`, a hashed tail `%=<hash>`.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::limits::KEY_BYTES_MAX;

/// Longest segment written out, in bytes after escaping; a longer one is hashed.
const SEGMENT_BYTES_MAX: usize = 128;

/// Bytes of a hashed part: a two-byte mark and 43 characters of base64url.
const HASHED_BYTES: usize = 2 + 43;

/// Longest prefix, in bytes. A key is never folded before this point (the last boundary that leaves room for a hash
/// lies at most one segment earlier), so every key below a prefix starts with it.
const PREFIX_BYTES_MAX: usize = KEY_BYTES_MAX - HASHED_BYTES - (SEGMENT_BYTES_MAX + 1);

/// Longest tenant id, in bytes.
const TENANT_BYTES_MAX: usize = 64;

/// The authority over one tenant's data. Only authentication should make one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant {
    id: String,
    segment: String,
}

/// A tenant's id is empty, longer than 64 bytes, or holds a control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a tenant id has 1 to 64 bytes and no control character")]
pub struct TenantInvalid;

impl Tenant {
    /// The tenant with this id.
    ///
    /// # Errors
    ///
    /// The id is empty, longer than 64 bytes, or holds a control character.
    pub fn new(id: &str) -> Result<Self, TenantInvalid> {
        if id.is_empty() || id.len() > TENANT_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(TenantInvalid);
        }
        Ok(Self { id: id.to_owned(), segment: encode(id) })
    }

    /// The id as it was given.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tenant's keys of one resource, such as `session`.
    pub fn space(&self, resource: &'static str) -> KeySpace {
        KeySpace { base: format!("{}/{resource}/", self.segment) }
    }

    /// Everything the tenant has, in whatever resource.
    pub fn everything(&self) -> Prefix {
        Prefix { text: format!("{}/", self.segment) }
    }

    /// Everything below these raw, unescaped segments, the first of which names a resource.
    ///
    /// # Errors
    ///
    /// The prefix is too long to be matched by every key below it.
    pub fn below(&self, segments: &[&str]) -> Result<Prefix, KeyTooLong> {
        prefix(format!("{}/", self.segment), segments)
    }
}

/// The keys of one resource of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    base: String,
}

impl KeySpace {
    /// The key of these segments, in this order.
    pub fn key(&self, segments: &[&str]) -> Key {
        let mut text = String::with_capacity(self.base.len() + 64);
        text.push_str(&self.base);
        append(&mut text, segments);
        if text.len() > KEY_BYTES_MAX {
            fold(&mut text);
        }
        Key { text }
    }

    /// Every key whose first segments are these; every key of the space when there are none.
    ///
    /// # Errors
    ///
    /// The prefix is too long to be matched by every key below it.
    pub fn below(&self, segments: &[&str]) -> Result<Prefix, KeyTooLong> {
        prefix(self.base.clone(), segments)
    }

    /// Every key of the space.
    pub fn all(&self) -> Prefix {
        Prefix { text: self.base.clone() }
    }
}

/// A name in KV. It can only come from a [`KeySpace`], or from a list below a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    text: String,
}

impl Key {
    /// The key as stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// All keys below a point of the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    text: String,
}

/// A prefix is longer than any key can be followed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the prefix is too long")]
pub struct KeyTooLong;

impl Prefix {
    /// The prefix as KV takes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key that a list below this prefix named; nothing when the name is not below it.
    pub fn key(&self, name: &str) -> Option<Key> {
        self.rest(name).map(|_| Key { text: name.to_owned() })
    }

    /// What follows the prefix in `name`, still escaped; nothing when the name is not below it.
    pub fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.text.as_str())
    }
}

fn prefix(mut text: String, segments: &[&str]) -> Result<Prefix, KeyTooLong> {
    append(&mut text, segments);
    if !segments.is_empty() {
        text.push('/');
    }
    if text.len() > PREFIX_BYTES_MAX { Err(KeyTooLong) } else { Ok(Prefix { text }) }
}

fn append(text: &mut String, segments: &[&str]) {
    for (index, segment) in segments.iter().enumerate() {
        if index > 0 {
            text.push('/');
        }
        let start = text.len();
        escape_into(text, segment);
        if text.len() - start > SEGMENT_BYTES_MAX {
            text.truncate(start);
            text.push_str("%~");
            text.push_str(&hash(segment.as_bytes()));
        }
    }
}

/// Replaces the tail of a key that is too long by its hash, at the last boundary that leaves room for one.
fn fold(text: &mut String) {
    let room = KEY_BYTES_MAX - HASHED_BYTES;
    let head = text.as_bytes().get(..room).unwrap_or_default();
    let cut = head.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let tail = text.split_off(cut);
    text.push_str("%=");
    text.push_str(&hash(tail.as_bytes()));
}

fn hash(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(bytes))
}

fn encode(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    append(&mut text, &[segment]);
    text
}

/// The segment as it stands in a key, however long.
pub fn escape(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    escape_into(&mut text, segment);
    text
}

fn escape_into(text: &mut String, segment: &str) {
    if segment.is_empty() {
        text.push_str("%-");
    }
    for character in segment.chars() {
        if matches!(character, '%' | '/') || character.is_ascii_control() {
            let byte = u32::from(character);
            text.push('%');
            for nibble in [byte >> 4, byte & 0xF] {
                text.push(char::from_digit(nibble, 16).unwrap_or('0').to_ascii_uppercase());
            }
        } else {
            text.push(character);
        }
    }
}

/// The segment that [`escape`] was given; nothing for a hashed one and for text no key holds.
pub fn unescape(escaped: &str) -> Option<String> {
    if escaped == "%-" {
        return Some(String::new());
    }
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let digits = after.get(..2)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?;
        text.push(char::from(byte));
        rest = after.get(2..)?;
    }
    text.push_str(rest);
    Some(text)
}
