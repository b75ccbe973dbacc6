//! Settings: an isolate that has read or written a setting never answers with less than that while KV fails.
//!
//! The naive code is the usual boundary: catch everything, give the fallback.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use kv_patterns::kv::{KeySpace, Read, Store, Tenant, Write};
use kv_patterns::patterns::setting::{Failure, Settings, Source};
use kv_patterns::recent::Recent;
use kv_patterns::sim::{Fault, Isolate, SimStore};
use serde_json::{Value, json};

use super::Code;
use super::register::{Register, Wrapped, wrapped};

pub(crate) struct Setting {
    program: Program,
    /// What this isolate knows a value of.
    known: RefCell<BTreeSet<usize>>,
    slips: Rc<Cell<u64>>,
}

enum Program {
    Ours(Settings<Wrapped, Wrapped>),
    Naive { store: SimStore, keys: KeySpace },
}

impl Register for Setting {
    const NAME: &'static str = "setting";
    const TITLE: &'static str = "Settings: how long a read gives an older value";
    /// A write of the same setting that KV gave up and performs later all the same covers the newer one.
    const NOT_PROMISED: &'static [Fault] = &[Fault::LateWrite];

    fn new(code: Code, isolate: &Isolate, tenant: &Tenant, slips: Rc<Cell<u64>>) -> Self {
        let program = match code {
            Code::Ours => {
                let (store, shadows) = (wrapped(isolate, "CONFIG"), wrapped(isolate, "CACHE"));
                Program::Ours(Settings::new(store, shadows, tenant.clone(), Recent::new(8)))
            }
            Code::Naive => Program::Naive { store: isolate.store("CONFIG"), keys: tenant.space("setting") },
        };
        Self { program, known: RefCell::default(), slips }
    }

    async fn write(&self, subject: usize, version: u64) -> Option<()> {
        let name = subject.to_string();
        match &self.program {
            Program::Ours(settings) => settings.write(&name, json!(version), false).await.ok(),
            Program::Naive { store, keys } => {
                store.put(&keys.key(&[&name]), version.to_string().as_bytes(), Write::default()).await.ok()
            }
        }
    }

    async fn delete(&self, subject: usize) -> Option<()> {
        let name = subject.to_string();
        self.known.borrow_mut().remove(&subject);
        match &self.program {
            Program::Ours(settings) => settings.delete(&name).await.ok(),
            Program::Naive { store, keys } => store.delete(&keys.key(&[&name])).await.ok(),
        }
    }

    async fn read(&self, subject: usize) -> Option<Option<u64>> {
        let was_known = self.known.borrow().contains(&subject);
        let (value, is_stored, is_missing) = match &self.program {
            Program::Ours(settings) => match settings.read(&subject.to_string(), None).await {
                Ok(answer) => (answer.value.as_u64(), answer.source == Source::Stored, false),
                Err(failure) => (None, false, failure == Failure::Missing),
            },
            Program::Naive { store, keys } => {
                match store.get(&keys.key(&[&subject.to_string()]), Read::default()).await {
                    Ok(Some(bytes)) => {
                        (serde_json::from_slice::<Value>(&bytes).ok().and_then(|value| value.as_u64()), true, false)
                    }
                    Ok(None) => (None, false, true),
                    Err(_) => (None, false, false),
                }
            }
        };
        if is_stored {
            self.known.borrow_mut().insert(subject);
        } else if is_missing {
            self.known.borrow_mut().remove(&subject);
        }
        // Known when the read began and still: a delete meanwhile makes it unknown.
        let slipped = value.is_none() && !is_missing && was_known && self.known.borrow().contains(&subject);
        self.slips.set(self.slips.get() + u64::from(slipped));
        // Only what KV said is an observation of KV.
        if is_stored || is_missing { Some(value) } else { None }
    }
}
