//! A store that can be switched off, or made to hang, from outside.

use std::cell::Cell;
use std::rc::Rc;

use kv_patterns::clock::{Clock, ManualClock};
use kv_patterns::kv::{Error, Key, MemoryStore, Page, PageRequest, Prefix, Read, Store, Write};

use crate::support::START;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    Down,
    /// Reads come back, writes do not.
    ReadOnly,
    /// Reads come back, writes are too many for their key.
    Throttled,
    /// Answers only after so many milliseconds.
    Slow(u64),
}

/// Clones share the switch and the data.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    pub(crate) memory: MemoryStore<ManualClock>,
    pub(crate) mode: Rc<Cell<Mode>>,
    clock: ManualClock,
}

impl Faulty {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        Self { memory: MemoryStore::new(clock.clone()), mode: Rc::new(Cell::new(Mode::Up)), clock: clock.clone() }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.set(mode);
    }

    async fn pass(&self, writes: bool) -> Result<(), Error> {
        match self.mode.get() {
            Mode::Down => Err(Error::Unavailable("down".to_owned())),
            Mode::ReadOnly if writes => Err(Error::Unavailable("down".to_owned())),
            Mode::Throttled if writes => Err(Error::Throttled),
            Mode::Slow(millis) => {
                // Waits by looking at the clock, so that somebody else's wait can end first.
                let until = self.clock.now().plus_millis(millis);
                let mut polls = 0;
                std::future::poll_fn(|context| {
                    polls += 1;
                    context.waker().wake_by_ref();
                    if self.clock.now() >= until || polls > 1000 {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })
                .await;
                Ok(())
            }
            Mode::Up | Mode::ReadOnly | Mode::Throttled => Ok(()),
        }
    }
}

impl Store for Faulty {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        self.pass(false).await?;
        self.memory.get(key, read).await
    }
    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.pass(false).await?;
        self.memory.get_many(keys, read).await
    }
    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        self.pass(true).await?;
        self.memory.put(key, value, write).await
    }
    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.pass(true).await?;
        self.memory.delete(key).await
    }
    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        self.pass(false).await?;
        self.memory.list(prefix, request).await
    }
}

/// A clock at the start of every test.
pub(crate) fn clock() -> ManualClock {
    ManualClock::at(START)
}
