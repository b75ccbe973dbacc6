//! Pages of a list. The cursor is KV's own and belongs to the prefix it came from; clients get it only sealed.

use super::limits::LIST_LIMIT_MAX;

/// Which page of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Keys at most, 1 to 1000.
    pub limit: u32,
    /// Where the page before ended; nothing for the first page.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// The first page, of at most `limit` keys (brought into 1 to 1000).
    pub fn first(limit: u32) -> Self {
        Self { limit: limit.clamp(1, LIST_LIMIT_MAX), cursor: None }
    }

    /// The page after the one that gave `cursor`.
    #[must_use]
    pub fn after(self, cursor: String) -> Self {
        Self { cursor: Some(cursor), ..self }
    }
}

impl Default for PageRequest {
    fn default() -> Self {
        Self::first(LIST_LIMIT_MAX)
    }
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageKey {
    /// The whole key, as stored.
    pub name: String,
    /// When KV may collect it, in seconds since the Unix epoch.
    pub expiration_seconds: Option<u64>,
    /// Its metadata, serialised JSON.
    pub metadata: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys, possibly none although more follow.
    pub keys: Vec<PageKey>,
    /// Where the next page starts; nothing when this was the last.
    pub cursor: Option<String>,
}
