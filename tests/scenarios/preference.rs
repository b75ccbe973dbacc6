//! Preferences: each record is one field of a user, two fields to a user, so that writers share users and not fields.
//!
//! The naive code keeps one JSON object per user, defaults and all: read it, change a field, write it.

use std::cell::Cell;
use std::rc::Rc;

use kv_patterns::clock::Clock;
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{KeySpace, Read, Store, Tenant, Write};
use kv_patterns::patch::Patch;
use kv_patterns::patterns::preference::{Change, Preferences};
use kv_patterns::recent::Recent;
use kv_patterns::sim::{Fault, Isolate, SimClock, SimStore};
use kv_patterns::stamp::Stamps;
use serde_json::{Value, json};

use super::Code;
use super::register::{Register, Wrapped, wrapped};

pub(crate) enum Preference {
    Ours { preferences: Preferences<Wrapped>, clock: SimClock, stamps: Stamps },
    Naive { store: SimStore, keys: KeySpace },
}

fn place(subject: usize) -> (String, &'static str) {
    (format!("user {}", subject / 2), if subject.is_multiple_of(2) { "language" } else { "timezone" })
}

/// A version as a value that both fields take.
fn value(version: u64) -> Value {
    json!(format!("vv-{version:05}"))
}

fn version(value: &Value) -> Option<u64> {
    value.as_str()?.strip_prefix("vv-")?.parse().ok()
}

impl Register for Preference {
    const NAME: &'static str = "preference";
    const TITLE: &'static str = "Preferences: how long a read gives an older value";
    /// A write of the same field that KV gave up and performs later all the same covers the newer one.
    const NOT_PROMISED: &'static [Fault] = &[Fault::LateWrite];

    fn new(code: Code, isolate: &Isolate, tenant: &Tenant, _: Rc<Cell<u64>>) -> Self {
        match code {
            Code::Ours => Self::Ours {
                preferences: Preferences::new(wrapped(isolate, "CONFIG"), tenant, Recent::new(8)),
                clock: isolate.clock(),
                stamps: Stamps::new(&isolate.random()),
            },
            Code::Naive => Self::Naive { store: isolate.store("CONFIG"), keys: tenant.space("preference") },
        }
    }

    async fn write(&self, subject: usize, version: u64) -> Option<()> {
        self.set(subject, value(version)).await
    }

    async fn delete(&self, subject: usize) -> Option<()> {
        self.set(subject, Value::Null).await
    }

    async fn read(&self, subject: usize) -> Option<Option<u64>> {
        let (user, field) = place(subject);
        match self {
            Self::Ours { preferences, .. } => {
                Some(preferences.read(&user).await.ok()?.document.get(field).and_then(version))
            }
            Self::Naive { .. } => Some(self.naive_read(&user).await?.get(field).and_then(version)),
        }
    }
}

impl Preference {
    async fn set(&self, subject: usize, value: Value) -> Option<()> {
        let (user, field) = place(subject);
        match self {
            Self::Ours { preferences, clock, stamps } => {
                let change = Change::Patch(Patch::Merge(json!({ field: value })));
                let none = Precondition::default();
                preferences.change(&user, &change, &none, clock.now(), stamps).await.ok().map(|_| ())
            }
            Self::Naive { store, keys } => {
                let mut all = self.naive_read(&user).await?;
                all[field] = value;
                store.put(&keys.key(&[&user]), all.to_string().as_bytes(), Write::default()).await.ok()
            }
        }
    }

    async fn naive_read(&self, user: &str) -> Option<Value> {
        let Self::Naive { store, keys } = self else { return None };
        let found = store.get(&keys.key(&[user]), Read::default()).await.ok()?;
        Some(found.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| json!({})))
    }
}
