//! Cursors as clients see them: opaque, and void with another tenant, namespace, prefix or filter than they came from.
//!
//! A sealed cursor is 16 bytes of a keyed hash over its scope and KV's cursor, then that cursor, in base64url. It is
//! not secret, it is only not forgeable. The key is hashed in front with fixed length and the output is cut to half, so
//! SHA-256's length extension gives nothing.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const MARK_BYTES: usize = 16;
/// Longest sealed cursor that is looked at, in bytes.
const SEALED_BYTES_MAX: usize = 4096;

/// Seals and opens cursors with one secret.
#[derive(Clone, Debug)]
pub struct CursorSeal {
    secret: [u8; 32],
}

impl CursorSeal {
    /// Whoever has the same secret can open what this seals.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// `cursor` for a client that may go on with it in `scope` only.
    pub fn seal(&self, scope: &str, cursor: &str) -> String {
        let mut bytes = self.mark(scope, cursor).to_vec();
        bytes.extend_from_slice(cursor.as_bytes());
        Base64UrlUnpadded::encode_string(&bytes)
    }

    /// The cursor in `sealed`; nothing when it was not sealed here for this `scope`.
    pub fn open(&self, scope: &str, sealed: &str) -> Option<String> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let bytes = Base64UrlUnpadded::decode_vec(sealed).ok()?;
        let (mark, cursor) = bytes.split_at_checked(MARK_BYTES)?;
        let cursor = std::str::from_utf8(cursor).ok()?;
        let genuine: bool = self.mark(scope, cursor).as_slice().ct_eq(mark).into();
        genuine.then(|| cursor.to_owned())
    }

    fn mark(&self, scope: &str, cursor: &str) -> [u8; MARK_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.secret);
        hasher.update((scope.len() as u64).to_le_bytes());
        hasher.update(scope.as_bytes());
        hasher.update(cursor.as_bytes());
        let mut mark = [0; MARK_BYTES];
        for (byte, hashed) in mark.iter_mut().zip(hasher.finalize()) {
            *byte = hashed;
        }
        mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_where_it_was_sealed() {
        let seal = CursorSeal::new([1; 32]);
        let sealed = seal.seal("acme/session/x/", "page two");
        assert_eq!(seal.open("acme/session/x/", &sealed).as_deref(), Some("page two"));
        assert_eq!(seal.open("acme/session/y/", &sealed), None);
        assert_eq!(CursorSeal::new([2; 32]).open("acme/session/x/", &sealed), None);
    }

    #[test]
    fn what_was_tampered_with_does_not_open() {
        let seal = CursorSeal::new([1; 32]);
        let sealed = seal.seal("s", "c");
        for index in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open("s", std::str::from_utf8(&bytes).unwrap()), None);
        }
        for junk in ["", "!", "AAAA", &"A".repeat(5000)] {
            assert_eq!(seal.open("s", junk), None);
        }
    }
}
