//! One configured origin: where it is, how it is cached, and the keys of its responses.

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::key;
use super::policy::OriginPolicy;
use super::target::Target;
use crate::kv::{Key, KeySpace};

/// An origin as the gateway uses it.
#[derive(Clone, Debug)]
pub struct Site {
    space: KeySpace,
    name: String,
    base: String,
    /// How its responses are cached.
    pub policy: OriginPolicy,
}

impl Site {
    /// The origin `name` at `base_url`, whose responses are stored in `space`; nothing when the URL is not absolute `http` or
    /// `https`, or has a query, a fragment or user information.
    pub fn new(space: KeySpace, name: &str, base_url: &str, policy: OriginPolicy) -> Option<Self> {
        let base = Target::parse(base_url).filter(|base| base.query().is_none() && !base_url.contains('#'))?;
        let base = base.to_string().trim_end_matches('/').to_owned();
        Some(Self { space, name: name.to_owned(), base, policy })
    }

    /// The URI at the origin for a path that begins with `/`, with its query if it has one.
    pub fn target(&self, path_and_query: &str) -> Option<Target> {
        path_and_query.starts_with('/').then(|| Target::parse(&format!("{}{path_and_query}", self.base))).flatten()
    }

    /// Where responses for `target` are stored. 256 bits of hash, so equal keys come from equal URIs.
    pub fn key(&self, target: &Target) -> Key {
        let material = key::material(&[], target, &self.policy);
        let digest = Base64UrlUnpadded::encode_string(&Sha256::digest(&material));
        self.space.key(&[&self.name, &digest])
    }

    /// The origin's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}
