//! [`Store`] on the simulated namespace: limits with KV's texts, latency, faults, then the effect.

use std::fmt;

use super::faults::Fault;
use super::isolate::Isolate;
use super::namespace::{PageLimits, Stored, THROTTLED};
use super::world::World;
use crate::kv::limits::CACHE_TTL_SECONDS_DEFAULT;
use crate::kv::memory::{check_bulk, check_list, check_read, check_write};
use crate::kv::{Error, Key, Page, PageRequest, Prefix, Read, Store, Write};

/// How late a given-up write may land, in milliseconds.
const LATE_WRITE_MILLIS_MAX: u64 = 30_000;

/// How many times slower a slow operation is.
const SLOWNESS: u64 = 20;

/// One namespace as one isolate sees it. Clones are the same.
#[derive(Clone, Debug)]
pub struct SimStore {
    isolate: Isolate,
    namespace: &'static str,
}

/// What the platform calls the operation in its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Get,
    GetBulk,
    Put,
    Delete,
    List,
}

impl Operation {
    const fn changes(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }

    /// Lists say `GET` too.
    const fn name(self) -> &'static str {
        match self {
            Self::Get | Self::List => "GET",
            Self::GetBulk => "GET_BULK",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    fn failed(self, status: &str) -> Error {
        Error::classify(&format!("KV {} failed: {status}", self.name()), false)
    }
}

/// What is going to happen to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Works,
    /// Nothing happens, and the answer is an error.
    Fails,
    /// It happens, and the answer is lost on the way.
    AnswerLost,
    /// No answer; it happens or not.
    Hangs {
        happens: bool,
    },
    /// The answer is an error, and it happens some milliseconds later.
    Late(u64),
}

impl SimStore {
    pub(super) fn new(isolate: Isolate, namespace: &'static str) -> Self {
        Self { isolate, namespace }
    }

    fn world(&self) -> &World {
        self.isolate.world()
    }

    fn fate(&self, operation: Operation) -> Fate {
        let world = self.world();
        if operation.changes() {
            if world.strikes(Fault::WriteFailsBefore) {
                return Fate::Fails;
            }
            if world.strikes(Fault::WriteFailsAfter) {
                return Fate::AnswerLost;
            }
            if world.strikes(Fault::LateWrite) {
                return Fate::Late(world.chance(LATE_WRITE_MILLIS_MAX));
            }
        } else if world.strikes(Fault::ReadFails) {
            return Fate::Fails;
        }
        if world.strikes(Fault::Hangs) {
            return Fate::Hangs { happens: world.chance(2) == 0 };
        }
        Fate::Works
    }

    /// One operation from end to end: the way there, the effect, the way back. `subject` is for the record.
    async fn perform<T: 'static>(
        &self,
        operation: Operation,
        near: bool,
        subject: &str,
        effect: impl FnOnce(&Self) -> Result<T, Error> + 'static,
    ) -> Result<T, Error> {
        let world = self.world();
        let fate = self.fate(operation);
        let delay = if near { world.profile().near } else { world.profile().far };
        let slowness = if world.strikes(Fault::Slow) { SLOWNESS } else { 1 };
        world.sleep(delay.sample(&world.0.delays).saturating_mul(slowness)).await;
        let outcome = match fate {
            Fate::Works => Some(effect(self)),
            Fate::Fails => Some(Err(operation.failed("503 Service Unavailable"))),
            // A refusal is an answer; only after an effect can its answer be lost.
            Fate::AnswerLost => Some(effect(self).and(Err(Error::classify("Network connection lost.", true)))),
            Fate::Hangs { happens } => {
                if happens {
                    let _ = effect(self);
                }
                None
            }
            Fate::Late(millis) => {
                let (store, wait) = (self.clone(), world.sleep(millis));
                world.spawn(async move {
                    wait.await;
                    let outcome = effect(&store);
                    store.record(operation, "landed late", outcome.as_ref().err());
                });
                Some(Err(operation.failed("500 Internal Server Error")))
            }
        };
        self.record(
            operation,
            subject,
            outcome.as_ref().map_or(Some(&Error::Unavailable(String::new())), |o| o.as_ref().err()),
        );
        let Some(outcome) = outcome else { return std::future::pending().await };
        world.sleep(delay.sample(&world.0.delays).saturating_mul(slowness)).await;
        self.isolate.hears();
        self.isolate.may_pause().await;
        outcome
    }

    fn record(&self, operation: Operation, subject: &str, error: Option<&Error>) {
        let (location, id) = (self.isolate.location(), self.isolate.id());
        let outcome = Outcome(error);
        self.world().record(format_args!("{location}/{id} {} {operation:?} {subject}: {outcome}", self.namespace));
    }

    fn read(&self, name: &str, read: Read) -> Option<Vec<u8>> {
        let ttl = read.cache_ttl_seconds.unwrap_or(CACHE_TTL_SECONDS_DEFAULT);
        let fetch = self.world().fetch(self.isolate.location(), ttl);
        let profile = self.world().profile();
        self.world().with(self.namespace, |keys| keys.read(name, fetch, profile)).map(|stored| stored.bytes.clone())
    }

    fn is_near(&self, name: &str) -> bool {
        let now = self.world().now();
        self.world().with(self.namespace, |keys| keys.is_near(self.isolate.location(), name, now))
    }

    fn write(&self, operation: Operation, name: &str, value: Option<Stored>) -> Result<(), Error> {
        let (world, location) = (self.world(), self.isolate.location());
        let (now, is_free) = (world.now(), operation == Operation::Delete && !world.profile().deletes_are_throttled);
        world.with(self.namespace, |keys| {
            if keys.is_throttled(name, now) && !is_free {
                world.note_throttled(name);
                return Err(operation.failed(THROTTLED));
            }
            let spread = world.spread(location, keys.is_new(name, world.setup().locations));
            keys.write(location, name, value, now, spread);
            keys.forget_old_versions(name, now, world.profile());
            Ok(())
        })
    }
}

/// How an outcome stands in the record.
struct Outcome<'a>(Option<&'a Error>);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("ok"),
            Some(error) => write!(formatter, "{error}"),
        }
    }
}

impl Store for SimStore {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        check_read(read, "GET")?;
        let name = key.as_str().to_owned();
        let near = self.is_near(&name);
        self.perform(Operation::Get, near, key.as_str(), move |store| Ok(store.read(&name, read))).await
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        check_bulk(keys)?;
        check_read(read, "GET_BULK")?;
        let names: Vec<String> = keys.iter().map(|key| key.as_str().to_owned()).collect();
        let near = names.iter().all(|name| self.is_near(name));
        let subject = names.join(" ");
        let effect = move |store: &Self| {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned().into_bytes();
            Ok(names.iter().map(|name| store.read(name, read).map(text)).collect())
        };
        self.perform(Operation::GetBulk, near, &subject, effect).await
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        check_write(value, &write)?;
        let (name, bytes) = (key.as_str().to_owned(), value.to_vec());
        let effect = move |store: &Self| {
            let expires_at = write.ttl_seconds.map(|ttl| store.world().now().plus_seconds(ttl));
            store.write(Operation::Put, &name, Some(Stored { bytes, expires_at, metadata: write.metadata }))
        };
        self.perform(Operation::Put, false, key.as_str(), effect).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let name = key.as_str().to_owned();
        let effect = move |store: &Self| store.write(Operation::Delete, &name, None);
        self.perform(Operation::Delete, false, key.as_str(), effect).await
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        check_list(request)?;
        let (prefix, request) = (prefix.as_str().to_owned(), request.clone());
        let subject = prefix.clone();
        let effect = move |store: &Self| {
            let world = store.world();
            let cut = world.strikes(Fault::ShortPages);
            // Half of the short pages are empty.
            let chance = || world.chance(2) * world.chance(u64::from(request.limit));
            let keys_max = if cut { chance() } else { u64::from(request.limit) };
            let limits = PageLimits { keys_max: usize::try_from(keys_max).unwrap_or(usize::MAX) };
            let fetch = world.fetch(store.isolate.location(), CACHE_TTL_SECONDS_DEFAULT);
            Ok(world.with(store.namespace, |keys| keys.list(&prefix, request.cursor.as_deref(), limits, fetch)))
        };
        self.perform(Operation::List, false, &subject, effect).await
    }
}
