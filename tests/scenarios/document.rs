//! Documents while a schema is rolled out: odd versions are written by new code, even ones by old code, everybody reads
//! with the new one, and timers sweep.
//!
//! The naive code migrates what it read and puts it back over the record.

use std::cell::Cell;
use std::rc::Rc;

use kv_patterns::clock::Clock;
use kv_patterns::etag::Precondition;
use kv_patterns::kv::{KeySpace, Read, Store, Tenant, Write};
use kv_patterns::patterns::document::{Collection, Documents, Sweep};
use kv_patterns::recent::Recent;
use kv_patterns::sim::{Fault, Isolate, SimBackground, SimClock, SimStore};
use kv_patterns::stamp::Stamps;
use serde_json::{Value, json};

use super::Code;
use super::register::{Register, Wrapped, wrapped};

pub(crate) enum Document {
    Ours { documents: Documents<Wrapped>, clock: SimClock, stamps: Stamps, background: SimBackground },
    Naive { store: SimStore, keys: KeySpace },
}

fn schema(version: u32) -> Collection {
    let migrations = match version {
        1 => json!([]),
        _ => json!([{"from":1,"to":2,"steps":[{"rename":{"from":"n","to":"count"}}]}]),
    };
    Collection::new(version, migrations).expect("a valid schema")
}

impl Register for Document {
    const NAME: &'static str = "document";
    const TITLE: &'static str = "Documents: how long a read gives an older one";
    /// A write of the same document that KV gave up and performs later all the same covers the newer one.
    const NOT_PROMISED: &'static [Fault] = &[Fault::LateWrite];

    fn new(code: Code, isolate: &Isolate, tenant: &Tenant, _: Rc<Cell<u64>>) -> Self {
        match code {
            Code::Ours => Self::Ours {
                documents: Documents::new(wrapped(isolate, "CONFIG"), tenant, "things", Recent::new(8)),
                clock: isolate.clock(),
                stamps: Stamps::new(&isolate.random()),
                background: isolate.background(),
            },
            Code::Naive => Self::Naive { store: isolate.store("CONFIG"), keys: tenant.space("document") },
        }
    }

    async fn write(&self, subject: usize, version: u64) -> Option<()> {
        let (id, is_new) = (subject.to_string(), version % 2 == 1);
        let data = if is_new { json!({"count": version}) } else { json!({"n": version}) };
        match self {
            Self::Ours { documents, clock, stamps, .. } => {
                let (schema, none) = (schema(if is_new { 2 } else { 1 }), Precondition::default());
                documents.put(&schema, &id, data, None, &none, clock.now(), stamps).await.ok().map(|_| ())
            }
            Self::Naive { .. } => self.naive_put(&id, if is_new { 2 } else { 1 }, &data).await,
        }
    }

    async fn delete(&self, subject: usize) -> Option<()> {
        let id = subject.to_string();
        match self {
            Self::Ours { documents, clock, .. } => {
                documents.delete(&schema(2), &id, &Precondition::default(), clock.now()).await.ok()
            }
            Self::Naive { store, keys } => store.delete(&keys.key(&[&id])).await.ok(),
        }
    }

    async fn read(&self, subject: usize) -> Option<Option<u64>> {
        let id = subject.to_string();
        match self {
            Self::Ours { documents, clock, background, .. } => {
                let served = documents.read(&schema(2), &id, clock.now(), background).await.ok()?;
                Some(served.and_then(|served| served.data["count"].as_u64()))
            }
            Self::Naive { store, keys } => {
                let Some(bytes) = store.get(&keys.key(&[&id]), Read::default()).await.ok()? else { return Some(None) };
                let record: Value = serde_json::from_slice(&bytes).ok()?;
                let count = record["data"]["count"].as_u64().or(record["data"]["n"].as_u64());
                if record["version"] == 1 {
                    // A failed write-back fails no read here, which is kinder than usual.
                    let _ = self.naive_put(&id, 2, &json!({"count": count})).await;
                }
                Some(count)
            }
        }
    }

    async fn tend(&self) {
        if let Self::Ours { documents, clock, .. } = self {
            let _ = documents.sweep(&schema(2), &Sweep { dry_run: false, budget: 10, cursor: None }, clock.now()).await;
        }
    }
}

impl Document {
    async fn naive_put(&self, id: &str, version: u32, data: &Value) -> Option<()> {
        let Self::Naive { store, keys } = self else { return None };
        let record = json!({"version": version, "data": data}).to_string();
        store.put(&keys.key(&[id]), record.as_bytes(), Write::default()).await.ok()
    }
}
