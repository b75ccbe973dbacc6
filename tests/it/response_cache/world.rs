//! The gateway in front of a scripted origin, in memory and without waiting.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use kv_patterns::background::Deferred;
use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::kv::MemoryStore;
use kv_patterns::patterns::cache::{Flights, Host, SharedLauncher};
use kv_patterns::patterns::response_cache::entry::Record;
use kv_patterns::patterns::response_cache::gateway::{Gateway, Payload};
use kv_patterns::patterns::response_cache::headers::Headers;
use kv_patterns::patterns::response_cache::isolate::Isolate;
use kv_patterns::patterns::response_cache::origin::{Copied, Gathered, Origin, OriginBody, Unreached};
use kv_patterns::patterns::response_cache::policy::OriginPolicy;
use kv_patterns::patterns::response_cache::site::Site;
use kv_patterns::patterns::response_cache::status::CacheWord;
use kv_patterns::patterns::response_cache::target::Target;
use kv_patterns::patterns::response_cache::{RequestHead, ResponseHead, date};
use kv_patterns::random::Random;

use crate::support::{block_on, tenant};

pub(super) const START: Timestamp = Timestamp::from_seconds(1_763_683_200);
pub(super) const PAGE: &str = "https://shop.example/page";

/// What the origin does next.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Response {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    Unreachable,
    /// A body that breaks off.
    Cut {
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
}

/// What the client got, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    pub(super) from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Cache,
    StaleCache,
    Origin,
    Validated,
    Nowhere,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.headers.joined(name)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A gateway with everything a test wants to look at.
pub(super) struct World {
    pub(super) policy: OriginPolicy,
    pub(super) now: Timestamp,
    pub(super) unit: f64,
    pub(super) answers: VecDeque<Answer>,
    pub(super) origin_saw: Vec<RequestHead>,
    pub(super) response_delay_millis: u64,
    pub(super) isolate: Isolate,
    /// KV: values and names.
    kept: Vec<(Vec<u8>, String)>,
}

pub(super) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: method.to_owned(),
        target: Target::parse(uri).unwrap(),
        headers: Headers::from_pairs(headers.iter().copied()).unwrap(),
    }
}

pub(super) fn response(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
    ResponseHead { status, headers: Headers::from_pairs(headers.iter().copied()).unwrap() }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_policy(OriginPolicy::default())
    }

    pub(super) fn with_policy(policy: OriginPolicy) -> Self {
        Self {
            policy,
            now: START,
            unit: 0.0,
            answers: VecDeque::new(),
            origin_saw: Vec::new(),
            response_delay_millis: 0,
            isolate: Isolate::new(64 << 20),
            kept: Vec::new(),
        }
    }

    /// The date `seconds` from now as an HTTP date.
    pub(super) fn date(&self, seconds: i64) -> String {
        let moment = i64::try_from(self.now.seconds()).unwrap() + seconds;
        date::format(Timestamp::from_seconds(u64::try_from(moment).unwrap()))
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus_seconds(seconds);
    }

    pub(super) fn origin(&mut self, status: u16, headers: &[(&str, &str)], body: &str) -> &mut Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.answers.push_back(Answer::Response { status, headers, body: body.as_bytes().to_vec() });
        self
    }

    /// Down for the whole of the next request, which may ask once more.
    pub(super) fn origin_down(&mut self) -> &mut Self {
        self.answers.extend([Answer::Unreachable, Answer::Unreachable]);
        self
    }

    pub(super) fn get(&mut self, headers: &[(&str, &str)]) -> Got {
        self.send("GET", PAGE, headers)
    }

    pub(super) fn send(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Got {
        let request = request(method, uri, headers);
        let clock = ManualClock::at(self.now);
        let script = Script {
            clock: clock.clone(),
            delay_millis: self.response_delay_millis,
            answers: Rc::new(RefCell::new(std::mem::take(&mut self.answers))),
            seen: Rc::default(),
        };
        let background = Deferred::default();
        let store = self.store(&clock);
        let gateway = Gateway {
            store: store.clone(),
            origin: script.clone(),
            host: Host {
                clock: clock.clone(),
                random: Always(self.unit),
                launcher: SharedLauncher(background.clone()),
            },
            isolate: self.isolate.clone(),
            flights: Flights::default(),
            site: Rc::new(self.site()),
        };
        let answer = block_on(gateway.answer(&request, None));
        let got = Got::of(answer);
        block_on(background.run());
        self.answers = script.answers.take();
        self.answers.retain(|answer| !matches!(answer, Answer::Unreachable));
        self.origin_saw.append(&mut script.seen.take());
        self.now = clock.now();
        self.kept = store.names().into_iter().filter_map(|name| Some((store.raw(&name)?, name))).collect();
        got
    }

    fn store(&self, clock: &ManualClock) -> MemoryStore<ManualClock> {
        let store = MemoryStore::new(clock.clone());
        for (value, name) in &self.kept {
            store.plant(name, value);
        }
        store
    }

    fn site(&self) -> Site {
        Site::new(tenant("shop").space("response"), "shop", "https://shop.example", self.policy.clone()).unwrap()
    }

    /// What KV has for `target`.
    pub(super) fn record(&self, target: &Target) -> Record {
        let key = self.site().key(target);
        let found = self.kept.iter().find(|(_, name)| name == key.as_str());
        found.map(|(value, _)| Record::decode(value).unwrap()).unwrap_or_default()
    }
}

impl Got {
    fn of(answer: kv_patterns::patterns::response_cache::gateway::Answer<FakeStream>) -> Self {
        let status = answer.headers.joined("cache-status").unwrap_or_default();
        let from = match answer.word {
            _ if matches!(answer.payload, Payload::Failed(_)) => From::Nowhere,
            CacheWord::Hit if status.contains("fwd-status=304") => From::Validated,
            CacheWord::Hit => From::Cache,
            CacheWord::Stale => From::StaleCache,
            CacheWord::Miss | CacheWord::Bypass => From::Origin,
        };
        let body = match answer.payload {
            Payload::Nothing | Payload::Failed(_) => Vec::new(),
            Payload::Held(bytes, range) => bytes[range].to_vec(),
            Payload::Stream(stream) => stream.read().unwrap_or_else(|got| got),
        };
        let mut headers = answer.headers;
        headers.retain(|name| name != "cache-status" && name != "x-cache");
        Self { status: answer.status, headers, body, from }
    }
}

/// A random source that says the same for ever.
#[derive(Clone, Copy)]
pub(super) struct Always(pub(super) f64);

impl Random for Always {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }

    fn unit(&self) -> f64 {
        self.0
    }
}

/// An origin that answers what it is told, in turn.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) clock: ManualClock,
    pub(super) delay_millis: u64,
    pub(super) answers: Rc<RefCell<VecDeque<Answer>>>,
    pub(super) seen: Rc<RefCell<Vec<RequestHead>>>,
}

impl Origin for Script {
    type Upload = ();
    type Body = FakeBody;

    async fn send(&self, request: &RequestHead, _: Option<()>, _: u64) -> Result<(ResponseHead, FakeBody), Unreached> {
        self.seen.borrow_mut().push(request.clone());
        self.clock.advance_millis(self.delay_millis);
        let answer = self.answers.borrow_mut().pop_front();
        match answer.expect("the origin was asked once more than the test expects") {
            Answer::Unreachable => Err(Unreached::Failed),
            Answer::Response { status, headers, body } => {
                let body = if request.is_head() { Vec::new() } else { body };
                Ok((
                    ResponseHead { status, headers: Headers::from_pairs(headers).unwrap() },
                    FakeBody { bytes: body, cut: false },
                ))
            }
            Answer::Cut { headers, body } => Ok((
                ResponseHead { status: 200, headers: Headers::from_pairs(headers).unwrap() },
                FakeBody { bytes: body, cut: true },
            )),
        }
    }
}

/// A body that is there at once, and may end before its end.
pub(super) struct FakeBody {
    bytes: Vec<u8>,
    cut: bool,
}

impl FakeBody {
    pub(super) fn of(bytes: &[u8], cut: bool) -> Self {
        Self { bytes: bytes.to_vec(), cut }
    }
}

type Done = Box<dyn FnOnce(Copied)>;

/// What a client reads.
pub(super) struct FakeStream {
    bytes: Vec<u8>,
    cut: bool,
    done: Option<(usize, Done)>,
}

impl FakeStream {
    /// Everything, or what came before it broke.
    pub(super) fn read(self) -> Result<Vec<u8>, Vec<u8>> {
        if let Some((limit, done)) = self.done {
            done(match self.bytes.len() {
                _ if self.cut => Copied::CutOff,
                length if length > limit => Copied::TooLarge,
                _ => Copied::Whole(self.bytes.clone()),
            });
        }
        if self.cut { Err(self.bytes) } else { Ok(self.bytes) }
    }
}

impl OriginBody for FakeBody {
    type Stream = FakeStream;

    async fn gather(self, limit: usize) -> Result<Gathered<FakeStream>, Unreached> {
        match self {
            Self { cut: true, .. } => Err(Unreached::Failed),
            Self { bytes, .. } if bytes.len() > limit => {
                Ok(Gathered::TooLarge(FakeStream { bytes, cut: false, done: None }))
            }
            Self { bytes, .. } => Ok(Gathered::Whole(bytes)),
        }
    }

    fn pass(self) -> FakeStream {
        FakeStream { bytes: self.bytes, cut: self.cut, done: None }
    }

    fn copy(self, limit: usize, _: Option<u64>, done: impl FnOnce(Copied) + 'static) -> FakeStream {
        FakeStream { bytes: self.bytes, cut: self.cut, done: Some((limit, Box::new(done))) }
    }
}

/// The origin answers the first request with `headers`; the second comes three seconds later. Was it asked again?
#[track_caller]
pub(super) fn check_reuse(headers: &[(&str, &str)], reused: bool) {
    check_reuse_of(200, headers, reused);
}

#[track_caller]
pub(super) fn check_reuse_of(status: u16, headers: &[(&str, &str)], reused: bool) {
    let mut world = World::with_policy(OriginPolicy {
        set_cookie: serde_json::from_str("\"store\"").unwrap(),
        ..OriginPolicy::default()
    });
    world.origin(status, headers, "first").get(&[]);
    world.wait(3);
    world.origin(200, &[], "second");
    let got = world.get(&[]);
    let expected = if reused { (From::Cache, status) } else { (From::Origin, 200) };
    assert_eq!((got.from, got.status), expected, "{status} {headers:?}");
}
