//! What identifies a stored response: method class, scheme, host, path and query, each prefixed by its length, nothing decoded.
//!
//! RFC 9111 §2: the primary key is method and target URI. `GET` and `HEAD` share a class, since one answers the other; nothing a client
//! sends in header fields enters the key except through `Vary`. The material is to be hashed by the caller, who adds tenant and origin.

use super::policy::OriginPolicy;
use super::target::Target;

/// The bytes to hash. Different URIs never give the same bytes, unless `policy` says that parameters do not matter.
pub fn material(scope: &[&str], target: &Target, policy: &OriginPolicy) -> Vec<u8> {
    let query = query(target, policy);
    let mut parts: Vec<&str> = scope.to_vec();
    // An empty query is another URI than none, so its presence is a part of its own.
    let presence = if query.is_some() { "?" } else { "" };
    parts.extend([
        "GET",
        target.scheme(),
        target.authority(),
        target.path(),
        presence,
        query.as_deref().unwrap_or_default(),
    ]);
    let mut material = Vec::new();
    for part in parts {
        material.extend_from_slice(&(part.len() as u64).to_be_bytes());
        material.extend_from_slice(part.as_bytes());
    }
    material
}

/// Only `&` separates: a `;` is a part of its parameter, so none can be smuggled past the list of ignored names.
fn query(target: &Target, policy: &OriginPolicy) -> Option<String> {
    let query = target.query()?;
    if !policy.sort_query && policy.ignored_query_parameters.is_empty() {
        return Some(query.to_owned());
    }
    let ignored = |parameter: &&str| {
        let name = parameter.split_once('=').map_or(*parameter, |(name, _)| name);
        // An origin may see two where a `;` is.
        !parameter.contains(';') && policy.ignored_query_parameters.iter().any(|held| held == name)
    };
    let mut parameters: Vec<&str> = query.split('&').filter(|parameter| !ignored(parameter)).collect();
    if policy.sort_query {
        // By name alone and stable: the order of values of one name carries meaning.
        parameters.sort_by_key(|parameter| parameter.split('=').next());
    }
    let everything_ignored = parameters.is_empty();
    (!everything_ignored).then(|| parameters.join("&"))
}
