//! Locks with fencing tokens: real ones on one object per resource ([`exact`]), and a demonstration on KV that shows
//! why they are needed ([`kv_demo`]).
//!
//! A lock that ends by time alone excludes nobody who was paused past its end: the protected resource must refuse
//! older fencing tokens ([`fence`]).
//! Sources: Kleppmann, "How to do distributed locking" (2016); sequencers: Burrows, "The Chubby lock service for
//! loosely-coupled distributed systems" (OSDI 2006) §2.4.
//!
//! Cost: acquire, renew, release, inspect 1 object call each and no KV operation, acquire 1 more for who was served after
//! waiting; the demonstration: acquire 2 reads and 1 write, renew 1 read and 1 write, release 1 read and 1 delete, inspect 1 read.

pub mod exact;
pub mod fence;
pub mod kv_demo;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use crate::random::Random;

/// Shortest and longest time a lock may be held without renewal, in seconds.
pub const TTL_SECONDS_MIN: u64 = 1;
/// See [`TTL_SECONDS_MIN`].
pub const TTL_SECONDS_MAX: u64 = 3600;
/// Longest time to wait for a lock, in seconds; well below what proxies on the way allow a request.
pub const WAIT_SECONDS_MAX: u64 = 25;
/// Longest owner's name, in bytes.
pub const OWNER_BYTES_MAX: usize = 256;

/// A new lock id: 256 random bits. Who has it holds the lock, so it goes to the holder and nowhere else.
pub fn new_lock_id(random: &impl Random) -> String {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    Base64UrlUnpadded::encode_string(&bytes)
}

/// What is stored of a lock id, or of an idempotency key: its SHA-256, in base64url.
pub fn hash(secret: &str) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(secret.as_bytes()))
}
