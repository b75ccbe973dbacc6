//! Where a bounded walk over a list ended, kept for the next one: for timers.
//!
//! Losing a position only means starting from the beginning, so an unreadable one is no error, and a walk that failed
//! starts anew: its cursor may be too old.

use serde::{Deserialize, Serialize};

use super::codec::{self, Record};
use super::{Error, Key, Read, Store, Write};

/// The cursor; nothing when everything was looked at.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    cursor: Option<String>,
}

impl Record for Position {
    const KIND: &'static str = "position";
    const VERSION: u32 = 1;
}

/// Does `walk` from where the one before ended, and keeps under `key` where this one did; only one timer may use the key.
/// One read more, and one write when this walk or the one before did not look at everything.
///
/// # Errors
///
/// KV's own, and those of the walk.
pub async fn resume<T>(
    store: &impl Store,
    key: &Key,
    walk: impl AsyncFnOnce(Option<String>) -> Result<(T, Option<String>), Error>,
) -> Result<T, Error> {
    let found = codec::decode_found::<Position>(store.get(key, Read::FRESHEST).await?).ok().flatten();
    let from = found.and_then(|position| position.cursor);
    let was_underway = from.is_some();
    let outcome = walk(from).await;
    let cursor = outcome.as_ref().ok().and_then(|(_, cursor)| cursor.clone());
    if was_underway || cursor.is_some() {
        store.put(key, &codec::encode(&Position { cursor })?, Write::default()).await?;
    }
    outcome.map(|(done, _)| done)
}
