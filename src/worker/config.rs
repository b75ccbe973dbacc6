//! Variables and secrets, parsed once per isolate and again only when they change.

use std::cell::RefCell;
use std::rc::Rc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::glue;
use crate::kv::Tenant;

/// The settings of this deployment.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may call; nothing when `API_TOKENS` is missing or cannot be read.
    pub tokens: Option<Vec<ApiToken>>,
    /// Origins of browsers that may call.
    pub cors_origins: Vec<String>,
    /// Live sessions a user may have, 0 for any number; nothing when `SESSIONS_PER_USER_MAX` cannot be read.
    pub sessions_per_user_max: Option<u32>,
    /// The origin behind every path that is not the Worker's own, with the policy's JSON; see `routes::response_cache`.
    pub root_origin: Option<(String, String)>,
    /// Whether origins may be on this machine; for development.
    pub allow_loopback_origins: bool,
    /// Seals cursors. It changes with `API_TOKENS`, which makes old cursors void.
    pub cursor_secret: [u8; 32],
}

/// One line of `API_TOKENS`.
#[derive(Clone, Debug)]
pub struct ApiToken {
    hash: Vec<u8>,
    /// Whose data it opens.
    pub tenant: Tenant,
    scopes: Vec<String>,
}

/// Who a request comes from.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The authority over the caller's data.
    pub tenant: Tenant,
    scopes: Vec<String>,
}

impl Caller {
    /// Whether the caller may use `resource`, to read it or also to change it.
    pub fn may(&self, resource: &str, write: bool) -> bool {
        self.scopes.iter().any(|scope| match scope.strip_suffix(":read") {
            Some(read) => !write && (read == resource || read == "*"),
            None => scope == "*" || scope == resource,
        })
    }
}

impl Config {
    /// The caller that `token` proves. Every known token is compared, each in constant time.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let hash = Sha256::digest(token.as_bytes());
        let mut found = None;
        for known in self.tokens.iter().flatten() {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(known);
            }
        }
        found.map(|known| Caller { tenant: known.tenant.clone(), scopes: known.scopes.clone() })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct Variables {
    api_tokens: Option<String>,
    cors_origins: Option<String>,
    sessions_per_user_max: Option<String>,
    root_origin: Option<String>,
    root_origin_policy: Option<String>,
    allow_loopback_origins: Option<String>,
}

#[derive(Deserialize)]
struct TokenEntry {
    sha256: String,
    tenant: String,
    scopes: Vec<String>,
}

impl From<Variables> for Config {
    fn from(variables: Variables) -> Self {
        let tokens = variables.api_tokens.unwrap_or_default();
        let mut secret = Sha256::new();
        secret.update(b"kv-patterns cursors\0");
        secret.update(tokens.as_bytes());
        Self {
            tokens: parse_tokens(&tokens),
            cors_origins: list(&variables.cors_origins.unwrap_or_default()),
            sessions_per_user_max: match variables.sessions_per_user_max.as_deref().map_or("", str::trim) {
                "" => Some(0),
                text => text.parse().ok(),
            },
            root_origin: variables
                .root_origin
                .filter(|url| !url.trim().is_empty())
                .map(|url| (url.trim().to_owned(), variables.root_origin_policy.unwrap_or_default())),
            allow_loopback_origins: variables.allow_loopback_origins.is_some_and(|text| text.trim() == "1"),
            cursor_secret: secret.finalize().into(),
        }
    }
}

/// The tokens in `API_TOKENS`; nothing when any entry is not as documented, because half an access list is none.
fn parse_tokens(text: &str) -> Option<Vec<ApiToken>> {
    let entries: std::collections::BTreeMap<String, TokenEntry> = serde_json::from_slice(text.as_bytes()).ok()?;
    entries
        .into_values()
        .map(|entry| {
            let hash = base16ct::mixed::decode_vec(&entry.sha256).ok().filter(|hash| hash.len() == 32)?;
            Some(ApiToken { hash, tenant: Tenant::new(&entry.tenant).ok()?, scopes: entry.scopes })
        })
        .collect()
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Config>>> = const { RefCell::new(None) };
}

/// The settings in `env`.
pub fn current(env: &worker::Env) -> Rc<Config> {
    CURRENT.with_borrow_mut(|current| {
        let changed = glue::config_if_changed(env, current.is_some());
        match (changed, &current) {
            (None, Some(config)) => Rc::clone(config),
            (text, _) => {
                let variables: Option<Variables> = text.and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
                let config = Rc::new(Config::from(variables.unwrap_or_default()));
                *current = Some(Rc::clone(&config));
                config
            }
        }
    })
}
