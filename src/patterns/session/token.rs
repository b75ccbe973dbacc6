//! The token: `kvs_`, then 51 bytes in base64url: 32 random, 16 of the user's tag, 3 of checksum.
//!
//! The fixed beginning and the checksum let secret scanners recognise a leaked token, and let a malformed one be
//! refused without a read. The checksum is part of the hash of what precedes it, so it tells a holder nothing new.
//! The tag is a one-way hash of tenant and user. Idea of prefix and checksum:
//! <https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/>

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::kv::Tenant;
use crate::random::Random;

const PREFIX: &str = "kvs_";
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const BODY_BYTES: usize = SECRET_BYTES + TAG_BYTES;
const CHECK_BYTES: usize = 3;
const ID_BYTES: usize = 16;
/// Characters of a tag or an id: 16 bytes in base64url.
const SHORT_CHARS: usize = 22;

/// A user's place in the key space: a hash of tenant and user id, in base64url.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag(String);

impl Tag {
    pub(super) fn of(tenant: &Tenant, user: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"kv-patterns user\0");
        hasher.update(tenant.id().as_bytes());
        // A tenant id holds no control character, so the zero byte ends it unmistakably.
        hasher.update(b"\0");
        hasher.update(user.as_bytes());
        Self(short(&hasher.finalize()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A bearer token. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    digest: [u8; 32],
    tag: Tag,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(secret)")
    }
}

impl Token {
    /// The token that `text` is; nothing when the form or the checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        if encoded.len() != (BODY_BYTES + CHECK_BYTES) / 3 * 4 {
            return None;
        }
        let bytes = Base64UrlUnpadded::decode_vec(encoded).ok()?;
        let (body, check) = bytes.split_at_checked(BODY_BYTES)?;
        let digest: [u8; 32] = Sha256::digest(body).into();
        let tag = body.get(SECRET_BYTES..)?;
        if digest.last_chunk::<CHECK_BYTES>()?.as_slice() != check {
            return None;
        }
        Some(Self { text: text.to_owned(), digest, tag: Tag(Base64UrlUnpadded::encode_string(tag)) })
    }

    pub(super) fn generate(tag: &Tag, random: &impl Random) -> Self {
        let mut bytes = vec![0; SECRET_BYTES];
        random.fill(&mut bytes);
        bytes.extend(Base64UrlUnpadded::decode_vec(&tag.0).unwrap_or_default());
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend(digest.iter().skip(digest.len() - CHECK_BYTES));
        Self { text: format!("{PREFIX}{}", Base64UrlUnpadded::encode_string(&bytes)), digest, tag: tag.clone() }
    }

    /// The secret itself. It belongs to the user, never in a log, a URL or a key.
    pub fn secret(&self) -> &str {
        &self.text
    }

    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The session's public id: a hash of the token's hash, so that it gives away neither.
    pub(super) fn id(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"kv-patterns session id\0");
        hasher.update(self.digest);
        short(&hasher.finalize())
    }

    /// What is stored of the token.
    pub(super) fn hash(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.digest)
    }

    /// Whether `hash` is this token's, in constant time.
    pub(super) fn matches(&self, hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

/// Whether `text` has the form of a session's id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == SHORT_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn short(digest: &[u8]) -> String {
    const { assert!(ID_BYTES == TAG_BYTES) };
    Base64UrlUnpadded::encode_string(digest.get(..ID_BYTES).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    fn token() -> Token {
        let tenant = Tenant::new("t").unwrap();
        Token::generate(&Tag::of(&tenant, "alice"), &SeededRandom::new(1))
    }

    #[test]
    fn a_token_is_read_back() {
        let token = token();
        assert_eq!(Token::parse(token.secret()), Some(token.clone()));
        assert_eq!(token.secret().len(), 72);
        assert!(is_id(&token.id()));
    }

    #[test]
    fn one_changed_character_is_noticed_without_a_read() {
        let text = token().secret().to_owned();
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(Token::parse(std::str::from_utf8(&bytes).unwrap()), None, "at {index}");
        }
    }

    #[test]
    fn nothing_shown_holds_the_secret() {
        let token = token();
        assert_eq!(format!("{token:?}"), "Token(secret)");
        assert!(!token.secret().contains(&token.id()) && !token.hash().contains(&token.id()));
    }

    #[test]
    fn users_and_tenants_have_tags_of_their_own() {
        let tag = |tenant: &str, user: &str| Tag::of(&Tenant::new(tenant).unwrap(), user).0;
        assert_ne!(tag("a", "bc"), tag("ab", "c"));
        assert_ne!(tag("a", "x"), tag("b", "x"));
    }
}
