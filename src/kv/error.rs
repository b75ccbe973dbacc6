//! What went wrong with KV, sorted by what the caller must do about it.
//!
//! The platform gives no status, only an error's message and sometimes a `retryable` property, so [`Error::classify`]
//! reads those. Messages stay inside: they are for logs, never for clients.

use thiserror::Error as ThisError;

/// Why a KV operation failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The key was written less than a second ago: wait a second, with jitter, or drop the write.
    #[error("the key was written less than a second ago")]
    Throttled,
    /// KV did not answer, or not in time. A read may be retried; a write may have happened.
    #[error("KV is unavailable: {0}")]
    Unavailable(String),
    /// The account's daily quota is spent: nothing helps before 00:00 UTC.
    #[error("the daily quota of KV operations is spent")]
    QuotaSpent,
    /// The request broke a limit or was malformed: a retry fails the same way.
    #[error("KV refused the request: {0}")]
    Invalid(String),
    /// The stored bytes are not what this code writes: damaged, foreign, or of a newer format.
    #[error("a stored record is unreadable: {0}")]
    Corrupt(Corrupt),
}

/// Why a stored record cannot be used. It is kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Corrupt {
    /// The head names no format, or that of another kind of record.
    #[error("another kind of record")]
    Foreign,
    /// A later version of this code wrote it.
    #[error("a newer format version")]
    Newer,
    /// The head is right and the rest is not.
    #[error("a damaged body")]
    Damaged,
}

impl Error {
    /// The kind of failure that a JavaScript error's `message` and `retryable` property stand for.
    ///
    /// The texts are the runtime's: `KV PUT failed: 429 Too Many Requests`, `Network connection lost.`,
    /// `KV put() limit exceeded for the day.` and the like. Unknown texts count as unavailable, because the caller
    /// can then neither believe nor deny the operation.
    pub fn classify(message: &str, retryable: bool) -> Self {
        if message.contains("limit exceeded for the day") {
            return Self::QuotaSpent;
        }
        match status_in(message) {
            Some(429) => Self::Throttled,
            Some(400 | 413 | 414) => Self::Invalid(message.to_owned()),
            None if !retryable && is_type_error(message) => Self::Invalid(message.to_owned()),
            Some(_) | None => Self::Unavailable(message.to_owned()),
        }
    }

    /// Whether the same call may succeed a little later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable(_))
    }
}

/// The HTTP status in `KV <OPERATION> failed: <status> <text>`.
fn status_in(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once(" failed: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The texts of the `TypeError`s the runtime throws before it asks KV.
fn is_type_error(message: &str) -> bool {
    ["Key name cannot be empty", "is not allowed as a key name", "Value out of range", "TypeError"]
        .iter()
        .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, retryable: bool, expected: fn(&Error) -> bool) {
        let error = Error::classify(message, retryable);
        assert!(expected(&error), "{message:?} became {error:?}");
    }

    #[test]
    fn the_runtimes_texts_are_told_apart() {
        check("KV PUT failed: 429 Too Many Requests", false, |e| *e == Error::Throttled);
        check("KV put() limit exceeded for the day.", false, |e| *e == Error::QuotaSpent);
        check("KV list() limit exceeded for the day", false, |e| *e == Error::QuotaSpent);
        let invalid: [&str; 7] = [
            "KV PUT failed: 400 Invalid expiration_ttl of 5. Expiration TTL must be at least 60.",
            "KV GET failed: 400 Invalid cache_ttl of 29. Cache TTL must be at least 30.",
            "KV PUT failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.",
            "KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024.",
            "KV GET_BULK failed: 400 You can request a maximum of 100 keys",
            "Key name cannot be empty.",
            "Value out of range. Must be between -2147483648 and 2147483647 (inclusive).",
        ];
        for text in invalid {
            check(text, false, |e| matches!(e, Error::Invalid(_)));
        }
        for text in ["Network connection lost.", "KV GET failed: 503 Service Unavailable", "internal error"] {
            check(text, true, |e| matches!(e, Error::Unavailable(_)));
            check(text, false, |e| matches!(e, Error::Unavailable(_)));
        }
    }
}
