//! Replicated keys in three namespaces: a majority must take a write, reads are the nearest one's, timers read the
//! newest and hand over what was missed.
//!
//! The naive code writes to all namespaces, reads the one of its region, and deletes in all.

use std::cell::Cell;
use std::rc::Rc;

use kv_patterns::kv::{KeySpace, Read, Store, Tenant, Write};
use kv_patterns::patterns::replica::{
    Content, HandOff, ReadPolicy, Replica, Replicas, SETTLE_SECONDS, Verdict, WritePolicy,
};
use kv_patterns::sim::{Fault, Isolate, SimBackground, SimClock, SimStore};
use kv_patterns::stamp::Stamps;

use super::Code;
use super::register::{Register, SUBJECTS, Wrapped, wrapped};

const NAMESPACES: [(&str, &[&str]); 3] = [("REPLICA_US", &["NA"]), ("REPLICA_EU", &["EU"]), ("REPLICA_ASIA", &["AS"])];

pub(crate) enum Replicated {
    Ours { replicas: Replicas<Wrapped, SimClock>, stamps: Stamps, background: SimBackground, continent: &'static str },
    Naive { stores: Vec<SimStore>, near: usize, keys: KeySpace },
}

fn version(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Register for Replicated {
    const NAME: &'static str = "replica";
    const TITLE: &'static str = "Replicas: how long the nearest one gives an older value";
    const NOT_PROMISED: &'static [Fault] = &[];
    const SETTLE_MILLIS: u64 = SETTLE_SECONDS * 1000;

    fn new(code: Code, isolate: &Isolate, tenant: &Tenant, _: Rc<Cell<u64>>) -> Self {
        let near = isolate.location() % NAMESPACES.len();
        match code {
            Code::Ours => {
                let replica = |(name, continents)| Replica { name, continents, store: wrapped(isolate, name) };
                Self::Ours {
                    replicas: Replicas::new(NAMESPACES.map(replica).to_vec(), isolate.clock(), tenant),
                    stamps: Stamps::new(&isolate.random()),
                    background: isolate.background(),
                    continent: NAMESPACES[near].1[0],
                }
            }
            Code::Naive => Self::Naive {
                stores: NAMESPACES.iter().map(|(name, _)| isolate.store(name)).collect(),
                near,
                keys: tenant.space("replicated"),
            },
        }
    }

    async fn write(&self, subject: usize, version: u64) -> Option<()> {
        let (key, bytes) = (subject.to_string(), version.to_string().into_bytes());
        match self {
            Self::Ours { replicas, stamps, .. } => {
                let content = Content { bytes, content_type: None };
                let written = replicas.put(&key, content, None, WritePolicy::Quorum, stamps).await;
                (written.verdict != Verdict::TooFew).then_some(())
            }
            Self::Naive { stores, keys, .. } => {
                for store in stores {
                    store.put(&keys.key(&[&key]), &bytes, Write::default()).await.ok()?;
                }
                Some(())
            }
        }
    }

    async fn delete(&self, subject: usize) -> Option<()> {
        let key = subject.to_string();
        match self {
            Self::Ours { replicas, stamps, .. } => {
                let written = replicas.delete(&key, WritePolicy::Quorum, stamps).await;
                (written.verdict != Verdict::TooFew).then_some(())
            }
            Self::Naive { stores, keys, .. } => {
                for store in stores {
                    store.delete(&keys.key(&[&key])).await.ok()?;
                }
                Some(())
            }
        }
    }

    async fn read(&self, subject: usize) -> Option<Option<u64>> {
        let key = subject.to_string();
        match self {
            Self::Ours { replicas, background, continent, .. } => {
                let found = replicas.get(&key, ReadPolicy::Nearest, Some(continent), background).await.ok()?;
                Some(found.and_then(|found| version(&found.value.content?.bytes)))
            }
            Self::Naive { stores, near, keys } => {
                let found = stores[*near].get(&keys.key(&[&key]), Read::default()).await.ok()?;
                Some(found.and_then(|bytes| version(&bytes)))
            }
        }
    }

    async fn tend(&self) {
        let Self::Ours { replicas, background, continent, .. } = self else { return };
        for replica in 0..NAMESPACES.len() {
            let mut order = HandOff { budget: 20, cursor: None };
            // A few pages: what is left is for the next time.
            for _ in 0..5 {
                let Ok(handed) = replicas.hand_off(replica, &order).await else { break };
                let Some(cursor) = handed.cursor else { break };
                order.cursor = Some(cursor);
            }
        }
        for subject in 0..SUBJECTS {
            let _ = replicas.get(&subject.to_string(), ReadPolicy::Newest, Some(continent), background).await;
        }
    }
}
