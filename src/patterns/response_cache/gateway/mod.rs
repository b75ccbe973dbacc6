//! The read-through cache: one request through isolate memory, then KV, then the origin, by the rules of this module.
//!
//! - **Reads before it creates**, which the store's contract warns of: a location that has just missed in KV may keep missing for
//!   half a minute, in isolates other than the one that filled the entry. That costs requests to the origin, never a wrong answer.
//! - **A KV failure is a miss**, and a write that fails is forgotten, as long as the origin or memory can answer.
//! - **An invalidation** is seen by this isolate at once, by other isolates and locations when their memory (`memorySeconds`) and their
//!   copy from KV (30 seconds or more) have run out.
//! - **Single flight** in an isolate: of many `GET`s of one URI one asks the origin, the others wait for it, each on its own timer, and find
//!   the answer in memory. What fails is tried once more, by whoever gets there first, before anybody is told; who is slow is replaced
//!   after half of the origin's time, and who waited for all of it is told so, unless the answer is on its way; what cannot be shared is not
//!   waited for. No other isolate knows of it.
//! - Cost: a hit from memory reads nothing, one from KV reads one key and, in one bulk read, the marks of purges; a miss and a refresh write one, an unsafe request deletes one per URI.
//!
//! Limits: 8 MiB per body and per URI in KV; larger ones stream through. Rules are in the modules beside this one: what is known
//! (`lookup`), the way to the origin (`upstream`), what is remembered (`keep`), the answer (`render`).

mod keep;
mod lookup;
mod render;
mod upstream;

use std::ops::Range;
use std::rc::Rc;

use self::render::{failed, final_recipient, not_cached, serve};
use self::upstream::Visit;
use super::RequestHead;
use super::decision::Decision;
use super::entry::Entry;
use super::forward::{self, Conditions};
use super::headers::Headers;
use super::isolate::Isolate;
use super::origin::{Origin, OriginBody, Unreached};
use super::site::Site;
use super::status::{CacheWord, Forwarded};

use crate::clock::Clock;
use crate::kv::{Key, Store};
use crate::patterns::cache::{Flights, Host, Launcher, Seat};
use crate::random::Random;

/// The largest body that is stored, and all bodies of one URI together, in bytes.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest a stored response stays in KV, in seconds (a year); purge marks last longer.
pub const RECORD_SECONDS_MAX: u64 = 31_536_000;
/// After so many failures of those that asked everybody who waited is told, or after errors asks alone.
const FAILURES_MAX: u32 = 2;

/// The body of an answer.
#[derive(Debug)]
pub enum Payload<T> {
    /// None.
    Nothing,
    /// These bytes of a stored body.
    Held(Rc<[u8]>, Range<usize>),
    /// Bytes that arrive while they are sent.
    Stream(T),
    /// None, because nobody can answer.
    Failed(Failure),
}

/// Why nobody can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The origin did not, and nothing stored may replace its answer.
    Unreached(Unreached),
    /// The origin did not, and what is stored must be validated before it is used (RFC 9111 §5.2.2.2).
    CannotValidate,
    /// The client wants what is stored, and nothing is (RFC 9111 §5.2.1.7).
    OnlyIfCached,
}

/// The answer to a client.
#[derive(Debug)]
pub struct Answer<T> {
    /// The status code.
    pub status: u16,
    /// Its fields, `Cache-Status` and `X-Cache` among them.
    pub headers: Headers,
    /// Its content.
    pub payload: Payload<T>,
    /// What the cache did.
    pub word: CacheWord,
}

/// How a request that others waited for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// With an answer: what can be shared is in memory.
    Answered,
    /// Without one.
    Failed(Unreached),
    /// With an error of the origin that is for this request alone; the next one may have more luck.
    Erred,
}

/// The cache in front of one origin.
#[derive(Clone, Debug)]
pub struct Gateway<S, O, C, R, L: Launcher> {
    /// Where responses are stored.
    pub store: S,
    /// Who is asked.
    pub origin: O,
    /// Time, randomness for early refresh, and where stores and refreshes go on after the answer.
    pub host: Host<C, R, L>,
    /// What this isolate remembers.
    pub isolate: Isolate,
    /// Which requests of this isolate ask an origin right now.
    pub flights: Flights<Landed, L>,
    /// The origin's settings and keys.
    pub site: Rc<Site>,
}

type StreamOf<O> = <<O as Origin>::Body as OriginBody>::Stream;
type Reply<O> = Answer<StreamOf<O>>;
/// An answer, or why there is none.
type Outcome<O> = Result<Reply<O>, Unanswered>;

/// What is to be said when nobody answers.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    unreached: Unreached,
    failure: Failure,
    why: Forwarded,
    detail: Option<&'static str>,
}

impl<S, O, C, R, L> Gateway<S, O, C, R, L>
where
    S: Store + Clone + 'static,
    O: Origin + Clone + 'static,
    C: Clock + Clone + 'static,
    R: Random + Clone + 'static,
    L: Launcher,
{
    /// Answers a request for the origin. `upload` is its body; that of a `GET` or `HEAD` is dropped (RFC 9110 §9.3.1).
    pub async fn answer(&self, request: &RequestHead, upload: Option<O::Upload>) -> Reply<O> {
        let mut reply = self.outcome(request, upload).await.unwrap_or_else(|unanswered| failed(&unanswered));
        // That of a cache nearer to the origin is in its `Cache-Status`, if it has one.
        reply.headers.set("x-cache", reply.word.as_str());
        reply
    }

    async fn outcome(&self, request: &RequestHead, upload: Option<O::Upload>) -> Outcome<O> {
        if forward::hops_left(request) == Some(0) {
            return Ok(final_recipient(request));
        }
        let key = self.site.key(&request.target);
        let decision = self.decide(request, &key).await;
        if request.is_get() && asks_origin(&decision) {
            return self.share(request, &key, decision).await;
        }
        self.act(Visit::new(request, &key), decision, upload).await
    }

    /// One flight for all that want the same from the origin at once.
    async fn share(&self, request: &RequestHead, key: &Key, mut decision: Decision) -> Outcome<O> {
        let give_up_at = self.host.clock.now().plus_seconds(self.site.policy.timeout_seconds);
        let (mut failures, mut collapsed, mut arriving) = (0, false, false);
        loop {
            let mut visit = Visit { collapsed, ..Visit::new(request, key) };
            let late = self.host.clock.now() >= give_up_at;
            if !asks_origin(&decision) || self.is_unstorable(key) || (late && arriving) {
                return self.act(visit, decision, None).await;
            }
            if late {
                visit.is_for(decision);
                return self.unreached(&mut visit, Unreached::TimedOut);
            }
            let landed = match self.board(key) {
                Seat::Lead(lead) => {
                    visit.lead = Some(lead);
                    match self.act(visit, decision, None).await {
                        // RFC 9110 §9.2.2: what is safe may be repeated when the connection failed.
                        Err(Unanswered { unreached: Unreached::Failed, .. }) => Some(Landed::Failed(Unreached::Failed)),
                        outcome => return outcome,
                    }
                }
                Seat::Follow(ticket) => {
                    collapsed = true;
                    let left = give_up_at.millis_since(self.host.clock.now());
                    let landed = ticket.wait(&self.host.clock, self.patience_millis().min(left)).await;
                    arriving = ticket.saw_progress();
                    landed
                }
            };
            decision = self.decide(request, key).await;
            let mut visit = Visit { collapsed, ..Visit::new(request, key) };
            match landed {
                // It is not for everybody, or this one would be served from memory now.
                Some(Landed::Answered) => return self.act(visit, decision, None).await,
                Some(Landed::Failed(_) | Landed::Erred) if !asks_origin(&decision) => {}
                Some(Landed::Erred) => {
                    failures += 1;
                    if failures == FAILURES_MAX {
                        return self.act(visit, decision, None).await;
                    }
                }
                Some(Landed::Failed(unreached)) => {
                    failures += 1;
                    if failures == FAILURES_MAX {
                        visit.is_for(decision);
                        return self.unreached(&mut visit, unreached);
                    }
                }
                None => {}
            }
        }
    }

    /// Does what was decided.
    async fn act(&self, mut visit: Visit<'_>, decision: Decision, upload: Option<O::Upload>) -> Outcome<O> {
        match decision {
            Decision::Serve(entry, life) => Ok(serve(&visit, &entry, &life)),
            Decision::ServeAndRefresh(entry, life) => {
                let reply = serve(&visit, &entry, &life);
                self.refresh(&entry, visit.request, visit.key);
                Ok(reply)
            }
            Decision::Revalidate(entry, _, why) => {
                visit.why = why;
                self.revalidate(visit, entry).await
            }
            Decision::Fetch(..) => {
                visit.is_for(decision);
                self.fetch(visit, Conditions::Clients, None).await
            }
            Decision::Forward { invalidates } => {
                visit.why = Forwarded::Method;
                visit.invalidates = invalidates;
                self.fetch(visit, Conditions::Clients, upload).await
            }
            Decision::Bypass(bypass) => {
                visit.why = Forwarded::Bypass;
                visit.may_store = false;
                visit.detail = Some(bypass.token());
                self.fetch(visit, Conditions::Clients, None).await
            }
            Decision::GatewayTimeout => Ok(not_cached()),
        }
    }

    fn board(&self, key: &Key) -> Seat<Landed, L> {
        let now = self.host.clock.now();
        self.flights.board(key.as_str(), now, self.patience_millis(), &self.host.launcher, Landed::Answered)
    }

    /// How long a request that asks the origin is waited for; after that the next one asks too.
    fn patience_millis(&self) -> u64 {
        self.site.policy.timeout_seconds.saturating_mul(1000) / 2
    }

    /// Asks the origin in the background, unless somebody is doing so already.
    fn refresh(&self, entry: &Rc<Entry>, request: &RequestHead, key: &Key) {
        let Seat::Lead(lead) = self.board(key) else { return };
        let (gateway, entry, key, request) =
            (self.clone(), Rc::clone(entry), key.clone(), forward::refresh_of(request));
        self.host.launcher.launch(async move {
            let visit = Visit {
                fallback: Some(Rc::clone(&entry)),
                why: Forwarded::Stale,
                lead: Some(lead),
                ..Visit::new(&request, &key)
            };
            let outcome = if entry.has_validator() {
                gateway.revalidate(visit, entry).await
            } else {
                // Without the client's conditions the body is gathered: nobody reads a stream here.
                gateway.fetch(visit, Conditions::None, None).await
            };
            drop(outcome);
        });
    }
}

const fn asks_origin(decision: &Decision) -> bool {
    matches!(decision, Decision::Revalidate(..) | Decision::Fetch(..))
}
