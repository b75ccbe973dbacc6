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
    marks: Option<KeySpace>,
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
        Some(Self { space, marks: None, name: name.to_owned(), base, policy })
    }

    /// The same, with purge marks in `marks`.
    #[must_use]
    pub fn purgeable(self, marks: KeySpace) -> Self {
        Self { marks: Some(marks), ..self }
    }

    /// Whether responses can be purged, so that marks must be looked for.
    pub const fn is_purgeable(&self) -> bool {
        self.marks.is_some()
    }

    /// The key of a purge mark.
    pub(super) fn mark_key(&self, scope: &[&str]) -> Key {
        let mut segments = vec![self.name.as_str()];
        segments.extend(scope);
        self.marks.as_ref().unwrap_or(&self.space).key(&segments)
    }

    /// The path of `target` below the base URL.
    pub(super) fn relative_path(&self, target: &Target) -> String {
        let whole = target.with_query(None).to_string();
        whole.strip_prefix(&self.base).unwrap_or(&whole).to_owned()
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
