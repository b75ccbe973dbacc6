//! Counts the KV operations of one request, so that what a call costs is visible and testable.
//!
//! It counts attempts, because those are what is billed; a bulk read counts its keys, as the bill does.
//! Source: <https://developers.cloudflare.com/kv/platform/pricing/>

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::{Error, Key, Page, PageRequest, Prefix, Read, Store, Write};

/// How many operations were made. Clones share the counts; equality compares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter(Rc<Counts>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    reads: Cell<u32>,
    writes: Cell<u32>,
    deletes: Cell<u32>,
    lists: Cell<u32>,
}

impl Meter {
    /// Keys read.
    pub fn reads(&self) -> u32 {
        self.0.reads.get()
    }

    /// Keys written.
    pub fn writes(&self) -> u32 {
        self.0.writes.get()
    }

    /// Keys deleted.
    pub fn deletes(&self) -> u32 {
        self.0.deletes.get()
    }

    /// Lists made.
    pub fn lists(&self) -> u32 {
        self.0.lists.get()
    }
}

/// `r=1 w=0 d=0 l=0`, as the `Server-Timing` header carries it.
impl fmt::Display for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "r={} w={} d={} l={}", self.reads(), self.writes(), self.deletes(), self.lists())
    }
}

fn add(cell: &Cell<u32>, count: usize) {
    cell.set(cell.get().saturating_add(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// A store whose operations are counted.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    store: S,
    meter: Meter,
}

impl<S> Metered<S> {
    /// Counts what is done with `store` in `meter`.
    pub const fn new(store: S, meter: Meter) -> Self {
        Self { store, meter }
    }
}

impl<S: Store> Store for Metered<S> {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        add(&self.meter.0.reads, 1);
        self.store.get(key, read).await
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        add(&self.meter.0.reads, keys.len());
        self.store.get_many(keys, read).await
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        add(&self.meter.0.writes, 1);
        self.store.put(key, value, write).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        add(&self.meter.0.deletes, 1);
        self.store.delete(key).await
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        add(&self.meter.0.lists, 1);
        self.store.list(prefix, request).await
    }
}
