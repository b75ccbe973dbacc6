//! Workers KV's limits, as constants with their source. A bound that a pattern or a route sets for itself stands there,
//! also where it is the same number.
//!
//! Sources: <https://developers.cloudflare.com/kv/platform/limits/> and
//! <https://developers.cloudflare.com/kv/api/write-key-value-pairs/>.

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 512;

/// Largest value, in bytes (25 MiB).
pub const VALUE_BYTES_MAX: usize = 25 * 1024 * 1024;

/// Largest metadata, in bytes of serialised JSON.
pub const METADATA_BYTES_MAX: usize = 1024;

/// Shortest time to live that KV takes, in seconds.
pub const TTL_SECONDS_MIN: u64 = 60;

/// Longest time to live handed to KV, in seconds: ten years less a margin, because the runtime holds the moment of
/// expiration in 32 bits, which end in January 2038.
pub const TTL_SECONDS_MAX: u64 = 315_360_000;

/// Shortest time a location may be told to keep what it read, in seconds (since 2026-01-30; 60 before).
/// Source: <https://developers.cloudflare.com/changelog/post/2026-01-30-kv-reduced-minimum-cachettl/>
pub const CACHE_TTL_SECONDS_MIN: u32 = 30;

/// How long a location keeps what it read when nothing else is asked, in seconds.
pub const CACHE_TTL_SECONDS_DEFAULT: u32 = 60;

/// Keys one bulk read may ask for.
pub const BULK_KEYS_MAX: usize = 100;

/// Keys one page of a list may hold.
pub const LIST_LIMIT_MAX: u32 = 1000;

/// Shortest time between two writes of one key, in milliseconds.
pub const SAME_KEY_WRITE_MILLIS: u64 = 1000;

const _: () = assert!(TTL_SECONDS_MIN < TTL_SECONDS_MAX && CACHE_TTL_SECONDS_MIN < CACHE_TTL_SECONDS_DEFAULT);
