//! Goal: the cache keeps the promises of its module head. Method: the pattern on the memory store with a clock moved by
//! hand and a meter on every operation; callers at once, slow and dead ones in the simulator's virtual time.

mod aside;
mod flights;

mod through;

use std::cell::{Cell, RefCell};

use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::kv::codec::Record;
use kv_patterns::kv::{Error, Key, MemoryStore, Meter, Metered, Page, PageRequest, Prefix, Read, Store, Write};
use kv_patterns::patterns::cache::{Bucket, Cache, Freshness, Json, Lookup, Memory, Resources, Tiers};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

use crate::support::{block_on, store, tenant};

/// A value: a name, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Name(pub(crate) Option<String>);

impl Record for Name {
    const KIND: &'static str = "name";
    const VERSION: u32 = 1;
}

pub(crate) fn name(text: &str) -> Json<Name> {
    Json(Name(Some(text.to_owned())))
}

/// A store that fails when told to.
#[derive(Clone, Debug)]
pub(crate) struct Failing<S> {
    store: S,
    pub(crate) reads_fail: Rc<Cell<bool>>,
    pub(crate) writes_fail: Rc<Cell<bool>>,
    /// Reads answer with what was there then.
    pub(crate) frozen: Rc<RefCell<Option<Vec<u8>>>>,
}

fn failure<T>(fails: &Cell<bool>) -> Option<Result<T, Error>> {
    fails.get().then(|| Err(Error::Unavailable("down".to_owned())))
}

impl<S: Store> Store for Failing<S> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        if let Some(stale) = self.frozen.borrow().clone() {
            return Ok(Some(stale));
        }
        let read = self.store.get(key, read).await;
        failure(&self.reads_fail).unwrap_or(read)
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let read = self.store.get_many(keys, read).await;
        failure(&self.reads_fail).unwrap_or(read)
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        match failure(&self.writes_fail) {
            Some(failed) => failed,
            None => self.store.put(key, value, write).await,
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        match failure(&self.writes_fail) {
            Some(failed) => failed,
            None => self.store.delete(key).await,
        }
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        self.store.list(prefix, request).await
    }
}

pub(crate) type Under = Failing<Metered<MemoryStore<ManualClock>>>;

/// One isolate on one namespace.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) memory: MemoryStore<ManualClock>,
    pub(crate) meter: Meter,
    pub(crate) under: Under,
    pub(crate) cache: Cache<Under, Json<Name>>,
}

pub(crate) fn bucket() -> Bucket {
    Bucket::new(&tenant("acme"), Resources::CACHE, "shop")
}

pub(crate) fn world() -> World {
    world_of(bucket())
}

pub(crate) fn world_of(bucket: Bucket) -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let under = Failing {
        store: Metered::new(memory.clone(), meter.clone()),
        reads_fail: Rc::default(),
        writes_fail: Rc::default(),
        frozen: Rc::default(),
    };
    let cache = Cache::new(tiers(&under), bucket);
    World { clock, memory, meter, under, cache }
}

/// Tiers with an empty memory, as a new isolate has them.
pub(crate) fn tiers(under: &Under) -> Tiers<Under, Json<Name>> {
    Tiers::new(under.clone(), Memory::new(1 << 20), 30)
}

impl World {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same namespace seen by another isolate.
    pub(crate) fn other_isolate(&self) -> Cache<Under, Json<Name>> {
        Cache::new(tiers(&self.under), bucket())
    }

    pub(crate) fn get(&self, key: &str) -> Option<(Json<Name>, Freshness)> {
        usable(block_on(self.cache.get(key, self.now())).unwrap(), self.now())
    }

    /// The cost of `call` as the reply prints it, without lists.
    pub(crate) fn cost(&self, call: impl FnOnce()) -> String {
        let counts = || [self.meter.reads(), self.meter.writes(), self.meter.deletes()];
        let before = counts();
        call();
        let after = counts();
        let [r, w, d] = [0, 1, 2].map(|i| after[i] - before[i]);
        format!("r={r} w={w} d={d}")
    }
}

/// The value that may be served without computing, and how fresh it is.
pub(crate) fn usable(lookup: Lookup<Json<Name>>, now: Timestamp) -> Option<(Json<Name>, Freshness)> {
    let found = lookup.found()?;
    let freshness = found.freshness(now);
    let value = found.entry.value.clone()?;
    (freshness < Freshness::Over).then_some((value, freshness))
}
