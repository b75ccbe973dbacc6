//! Invalidation without enumeration: a mark is the moment up to which everything below a tag, a prefix or a bucket is
//! invalid, and it is one write.
//!
//! - A value is covered when it was asked for **at or before** the mark, so a tie is decided against the value.
//! - The writer does not read the old mark. Within an isolate every mark and every value has a later moment than those
//!   before, even within one millisecond, so what is put after a purge is valid. Between locations this relies on their
//!   clocks: a purge by one that is behind by `s` misses what the others put in the last `s`.
//! - A mark has many writers, the last wins: a write that KV gave up and that lands late over a newer mark takes that one
//!   back. Within the isolate that wrote the newer one it holds.
//! - A prefix is whole path segments: `a/b` covers `a/b/c` and not `a/bc`. So a key has few prefixes, and all its marks
//!   are read by one bulk read. No key looks for a mark of its own name: purging `a/b` deletes the key `a/b`, `a/b/` leaves it.
//! - **Hard** marks forbid a value, **soft** ones make it stale. They have keys of their own, so that no soft mark written
//!   in another location can undo a hard one; a cache that does not ask for soft marks pays nothing for them.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::kv::codec::Record;
use crate::kv::{Key, KeySpace, Tenant};

/// Tags an entry may have.
pub const TAGS_MAX: usize = 16;
/// Prefixes of a key that can be invalidated: those of its first segments.
pub const PREFIXES_MAX: usize = 16;

/// What is invalidated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every entry of the bucket with this tag.
    Tag(&'a str),
    /// Every entry of the bucket whose key begins with these whole segments, separated by `/`; with a `/` at the end without
    /// the entry whose key is these segments alone. At most [`PREFIXES_MAX`] segments: no entry looks for a longer one.
    Prefix(&'a str),
    /// Every entry of the bucket.
    All,
}

/// How invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It must not be used again.
    Hard,
    /// It is stale: usable while it is refreshed, within its windows. Hard in a cache that ignores soft marks.
    Soft,
}

/// The moments up to which a value is invalid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// What was asked for up to here must not be used.
    pub gone: Option<Timestamp>,
    /// What was asked for up to here is stale.
    pub stale: Option<Timestamp>,
}

impl Marked {
    /// These and another mark of `severity`.
    pub(super) fn and(self, severity: Severity, at: Option<Timestamp>) -> Self {
        match severity {
            Severity::Hard => Self { gone: self.gone.max(at), ..self },
            Severity::Soft => Self { stale: self.stale.max(at), ..self },
        }
    }
}

/// A mark as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) at: Timestamp,
}

impl Record for Mark {
    const KIND: &'static str = "cache-mark";
    const VERSION: u32 = 1;
}

/// A tenant's entries under one name, and their marks.
///
/// A bucket with a `version` other than 0 shares nothing with the bucket of another version: raising it in the code
/// leaves everything cached before behind, without a write.
#[derive(Clone, Debug)]
pub struct Bucket {
    entries: KeySpace,
    marks: KeySpace,
    name: String,
    version: Option<String>,
    soft_marks: bool,
}

/// The resources in which entries and marks of a bucket are kept; one pair per kind of cache.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Entries of version 0.
    pub entries: &'static str,
    /// Entries of other versions: a resource of its own, so that no key of one is ever a key of the other.
    pub versioned: &'static str,
    /// Marks.
    pub marks: &'static str,
}

impl Resources {
    /// Those of the object cache.
    pub const CACHE: Self = Self { entries: "cache", versioned: "cache-version", marks: "cache-mark" };
}

impl Bucket {
    /// The bucket `name` of `tenant`, version 0, without soft marks.
    pub fn new(tenant: &Tenant, resources: Resources, name: &str) -> Self {
        Self {
            entries: tenant.space(resources.entries),
            marks: tenant.space(resources.marks),
            name: name.to_owned(),
            version: None,
            soft_marks: false,
        }
    }

    /// The bucket of the same name in another version.
    #[must_use]
    pub fn version(self, tenant: &Tenant, resources: Resources, version: u32) -> Self {
        if version == 0 {
            return Self { entries: tenant.space(resources.entries), version: None, ..self };
        }
        Self { entries: tenant.space(resources.versioned), version: Some(version.to_string()), ..self }
    }

    /// The same, looking for soft marks too: twice as many marks to read.
    #[must_use]
    pub fn with_soft_marks(self) -> Self {
        Self { soft_marks: true, ..self }
    }

    /// Where the entry `key` is kept. Its segments, separated by `/`, are those of the key in KV.
    pub fn place(&self, key: &str) -> Place {
        let mut segments = vec![self.name.as_str()];
        segments.extend(self.version.as_deref());
        segments.extend(key.split('/'));
        Place { key: self.entries.key(&segments), bucket: self.clone(), path: key.to_owned() }
    }

    /// Hard where nobody looks for soft marks.
    pub(super) const fn severity(&self, wanted: Severity) -> Severity {
        if self.soft_marks { wanted } else { Severity::Hard }
    }

    /// The key of a mark.
    pub(super) fn mark_key(&self, scope: Scope<'_>, severity: Severity) -> Key {
        let severity = match self.severity(severity) {
            Severity::Soft => "soft",
            Severity::Hard => "hard",
        };
        let mut segments = vec![self.name.as_str(), severity];
        match scope {
            Scope::Tag(tag) => segments.extend(["tag", tag]),
            Scope::Prefix(prefix) => {
                segments.push("prefix");
                segments.extend(prefix.strip_suffix('/').unwrap_or(prefix).split('/'));
            }
            Scope::All => segments.push("all"),
        }
        self.marks.key(&segments)
    }

    /// The key of the lease under which one location refreshes `place`.
    pub(super) fn lease_key(&self, place: &Place) -> Key {
        self.marks.key(&[&self.name, "lease", place.key.as_str()])
    }
}

/// Where an entry is kept, and what can invalidate it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The entry's key in KV.
    pub key: Key,
    bucket: Bucket,
    path: String,
}

impl Place {
    /// The keys of every mark that can cover an entry here with these tags: hard and soft apart.
    pub(super) fn mark_keys(&self, tags: &[String]) -> Vec<(Severity, Key)> {
        let severities: &[Severity] =
            if self.bucket.soft_marks { &[Severity::Hard, Severity::Soft] } else { &[Severity::Hard] };
        let slashes = self.path.match_indices('/').take(PREFIXES_MAX);
        let prefixes = slashes.filter_map(|(at, _)| self.path.get(..at)).map(Scope::Prefix);
        let tags = tags.iter().take(TAGS_MAX).map(|tag| Scope::Tag(tag));
        let scopes: Vec<Scope<'_>> = std::iter::once(Scope::All).chain(prefixes).chain(tags).collect();
        let keys = severities
            .iter()
            .flat_map(|severity| scopes.iter().map(move |scope| (*severity, self.bucket.mark_key(*scope, *severity))));
        keys.collect()
    }

    /// The key of the lease under which one location refreshes this entry.
    pub(super) fn lease_key(&self) -> Key {
        self.bucket.lease_key(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::limits::BULK_KEYS_MAX;
    use proptest::prelude::*;

    fn bucket() -> Bucket {
        Bucket::new(&Tenant::new("acme").unwrap(), Resources::CACHE, "shop")
    }

    #[track_caller]
    fn covers(prefix: &str, key: &str, expected: bool) {
        let mark = bucket().mark_key(Scope::Prefix(prefix), Severity::Hard);
        let covered = bucket().place(key).mark_keys(&[]).iter().any(|(_, key)| *key == mark);
        assert_eq!(covered, expected, "{prefix} and {key}");
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        covers("a", "a/b", true);
        covers("a/", "a/b/c", true);
        covers("a/b", "a/b/c", true);
        covers("a", "ab/c", false);
        covers("a", "a", false);
        covers("a/b", "a/bc", false);
        covers("a%2Fb", "a/b/c", false);
        covers("", "/a", true);
        covers("", "a/b", false);
    }

    #[test]
    fn versions_and_names_share_no_key() {
        let tenant = Tenant::new("acme").unwrap();
        let of = |bucket: Bucket, key: &str| bucket.place(key).key;
        let second = bucket().version(&tenant, Resources::CACHE, 2);
        assert_ne!(of(bucket(), "2/a"), of(second.clone(), "a"));
        assert_eq!(of(second.version(&tenant, Resources::CACHE, 0), "a"), of(bucket(), "a"));
    }

    #[test]
    fn a_soft_mark_is_hard_where_nobody_looks_for_soft_ones() {
        let hard = bucket().mark_key(Scope::All, Severity::Hard);
        assert_eq!(bucket().mark_key(Scope::All, Severity::Soft), hard);
        assert_ne!(bucket().with_soft_marks().mark_key(Scope::All, Severity::Soft), hard);
    }

    proptest! {
        #[test]
        fn all_marks_of_an_entry_fit_one_bulk_read(
            key in "[a-c/]{0,256}", tags in proptest::collection::vec("[a-z]{1,5}", 0..40),
        ) {
            let keys = bucket().with_soft_marks().place(&key).mark_keys(&tags);
            prop_assert!(keys.len() <= BULK_KEYS_MAX);
        }

        #[test]
        fn a_tag_is_never_a_prefix_or_a_bucket(tag in ".{0,20}", prefix in ".{0,20}") {
            let key = |scope| bucket().mark_key(scope, Severity::Hard);
            prop_assert_ne!(key(Scope::Tag(&tag)), key(Scope::Prefix(&prefix)));
            prop_assert_ne!(key(Scope::Tag(&tag)), key(Scope::All));
        }
    }
}
