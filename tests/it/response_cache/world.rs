//! One cache in front of a scripted origin: does with the decisions what a gateway does, in memory and without waiting.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use kv_patterns::clock::Timestamp;
use kv_patterns::patterns::response_cache::decision::{
    Decision, OnError, OriginFailure, decide_request, on_origin_error,
};
use kv_patterns::patterns::response_cache::entry::{Entry, Record};
use kv_patterns::patterns::response_cache::forward::{self, Conditions};
use kv_patterns::patterns::response_cache::freshness::Freshness;
use kv_patterns::patterns::response_cache::headers::Headers;
use kv_patterns::patterns::response_cache::policy::OriginPolicy;
use kv_patterns::patterns::response_cache::store_rule::{Refusal, decide_store};
use kv_patterns::patterns::response_cache::target::Target;
use kv_patterns::patterns::response_cache::validation::{Freshened, HeadUpdate, freshen, update_from_head};
use kv_patterns::patterns::response_cache::{Exchange, RequestHead, ResponseHead, date, invalidation, key, reply};

pub(super) const START: Timestamp = Timestamp::from_seconds(1_763_683_200);
pub(super) const PAGE: &str = "https://shop.example/page";

/// What the origin does next.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Response { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    Unreachable,
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

/// A fake gateway with everything a test wants to look at.
pub(super) struct World {
    pub(super) policy: OriginPolicy,
    pub(super) now: Timestamp,
    pub(super) unit: f64,
    pub(super) answers: VecDeque<Answer>,
    pub(super) origin_saw: Vec<RequestHead>,
    pub(super) refused: Option<Refusal>,
    pub(super) response_delay_millis: u64,
    records: HashMap<Vec<u8>, Record>,
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
            refused: None,
            response_delay_millis: 0,
            records: HashMap::new(),
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

    pub(super) fn origin_down(&mut self) -> &mut Self {
        self.answers.push_back(Answer::Unreachable);
        self
    }

    pub(super) fn get(&mut self, headers: &[(&str, &str)]) -> Got {
        self.send("GET", PAGE, headers)
    }

    pub(super) fn send(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Got {
        let request = request(method, uri, headers);
        let record = self.record(&request.target);
        match decide_request(&request, &record, &self.policy, self.now, self.unit) {
            Decision::Serve(entry, life) => self.serve(&entry, &request, if life.is_fresh() { From::Cache } else { From::StaleCache }),
            Decision::ServeAndRefresh(entry, life) => {
                let got = self.serve(&entry, &request, if life.is_fresh() { From::Cache } else { From::StaleCache });
                self.refresh(&entry, &request);
                got
            }
            Decision::Revalidate(entry, ..) => self.revalidate(&entry, &request),
            Decision::Fetch(fallback, _) => self.fetch(fallback.as_ref().map(|(entry, _)| entry), &request, true),
            Decision::Forward { .. } => self.fetch(None, &request, true),
            Decision::Bypass(_) => self.fetch(None, &request, false),
            Decision::GatewayTimeout => nowhere(504),
        }
    }

    pub(super) fn record(&self, target: &Target) -> Record {
        self.records.get(&key::material(&[], target, &self.policy)).cloned().unwrap_or_default()
    }

    fn keep(&mut self, target: &Target, record: &Record) {
        // Through the envelope, as a store would.
        let record = Record::decode(&record.encode()).unwrap();
        self.records.insert(key::material(&[], target, &self.policy), record);
    }

    fn serve(&self, entry: &Entry, request: &RequestHead, from: From) -> Got {
        let reply = reply::from_entry(entry, request, &Freshness::of(entry, &self.policy, self.now));
        Got { status: reply.status, body: reply.content.as_bytes().to_vec(), headers: reply.headers, from }
    }

    fn ask(&mut self, request: &RequestHead, conditions: Conditions<'_>) -> (RequestHead, Answer, Timestamp) {
        let forwarded = forward::to_origin(request, conditions);
        self.origin_saw.push(forwarded.clone());
        let requested_at = self.now;
        self.now = self.now.plus_millis(self.response_delay_millis);
        let answer = self.answers.pop_front().expect("the origin was asked once more than the test expects");
        (forwarded, answer, requested_at)
    }

    fn refresh(&mut self, entry: &Rc<Entry>, request: &RequestHead) {
        let plain = forward::refresh_of(request);
        if entry.has_validator() {
            self.revalidate(entry, &plain);
        } else {
            self.fetch(Some(entry), &plain, true);
        }
    }

    fn revalidate(&mut self, entry: &Rc<Entry>, request: &RequestHead) -> Got {
        let (forwarded, answer, requested_at) = self.ask(request, Conditions::Validate(entry));
        let Answer::Response { status: 304, headers, .. } = &answer else {
            let got = self.take(&forwarded, request, answer, requested_at, Some(entry), true);
            return self.with_clients_conditions(request, got);
        };
        let head = ResponseHead { status: 304, headers: Headers::from_pairs(headers.iter().map(|(n, v)| (n, v))).unwrap() };
        let exchange = Exchange { request: &forwarded, response: &head, requested_at, received_at: self.now };
        let record = self.record(&request.target);
        match freshen(entry, exchange, &self.policy) {
            Freshened::Stored(fresh) => {
                self.keep(&request.target, &record.with(fresh.clone(), usize::MAX));
                self.serve(&fresh, request, From::Validated)
            }
            Freshened::ThisRequestOnly(fresh) => self.serve(&fresh, request, From::Validated),
            Freshened::Withdrawn(fresh) => {
                self.keep(&request.target, &record.without(entry));
                self.serve(&fresh, request, From::Validated)
            }
            Freshened::Mismatch => {
                let (forwarded, answer, requested_at) = self.ask(request, Conditions::None);
                let got = self.take(&forwarded, request, answer, requested_at, Some(entry), true);
                self.with_clients_conditions(request, got)
            }
        }
    }

    /// The origin never saw the client's conditions and range, so they are answered from what it made us store.
    fn with_clients_conditions(&self, request: &RequestHead, got: Got) -> Got {
        let record = self.record(&request.target);
        match record.entries().first().filter(|_| got.from == From::Origin && self.refused.is_none()) {
            Some(entry) => self.serve(entry, request, From::Origin),
            None => got,
        }
    }

    fn fetch(&mut self, fallback: Option<&Rc<Entry>>, request: &RequestHead, store: bool) -> Got {
        let (forwarded, answer, requested_at) = self.ask(request, Conditions::Clients);
        self.take(&forwarded, request, answer, requested_at, fallback, store)
    }

    fn take(
        &mut self,
        forwarded: &RequestHead,
        request: &RequestHead,
        answer: Answer,
        requested_at: Timestamp,
        fallback: Option<&Rc<Entry>>,
        store: bool,
    ) -> Got {
        let failure = match &answer {
            Answer::Unreachable => OriginFailure::Unreachable,
            Answer::Response { status, .. } => OriginFailure::Status(*status),
        };
        if let Some(entry) = fallback
            && on_origin_error(request, entry, failure, &self.policy, self.now) == OnError::ServeStored
        {
            return self.serve(entry, request, From::StaleCache);
        }
        let Answer::Response { status, headers, body } = answer else { return nowhere(502) };
        let head = ResponseHead { status, headers: Headers::from_pairs(headers).unwrap() };
        let exchange = Exchange { request: forwarded, response: &head, requested_at, received_at: self.now };
        for target in invalidation::targets(forwarded, &head) {
            self.records.remove(&key::material(&[], &target, &self.policy));
        }
        if request.is_head() {
            self.update_from_head(fallback, exchange);
        } else if store {
            self.store(exchange, &body);
        }
        let mut headers = head.headers.clone();
        forward::strip_response(&mut headers);
        let body = if request.is_head() { Vec::new() } else { body };
        Got { status, headers, body, from: From::Origin }
    }

    fn update_from_head(&mut self, entry: Option<&Rc<Entry>>, exchange: Exchange<'_>) {
        let Some(entry) = entry else { return };
        let target = &exchange.request.target;
        match update_from_head(entry, exchange, &self.policy) {
            HeadUpdate::Freshened(fresh) => self.keep(target, &self.record(target).with(fresh, usize::MAX)),
            HeadUpdate::Outdated => self.keep(target, &self.record(target).without(entry)),
            HeadUpdate::Unrelated => {}
        }
    }

    fn store(&mut self, exchange: Exchange<'_>, body: &[u8]) {
        let target = &exchange.request.target;
        let entry = decide_store(exchange, &self.policy).and_then(|draft| draft.finish(Rc::from(body)));
        match entry {
            Ok(entry) => {
                self.refused = None;
                self.keep(target, &self.record(target).with(Rc::new(entry), usize::MAX));
            }
            Err(refusal) => self.refused = Some(refusal),
        }
    }
}

fn nowhere(status: u16) -> Got {
    Got { status, headers: Headers::new(), body: Vec::new(), from: From::Nowhere }
}

/// The origin answers the first request with `headers`; the second comes three seconds later. Was it asked again?
#[track_caller]
pub(super) fn check_reuse(headers: &[(&str, &str)], reused: bool) {
    check_reuse_of(200, headers, reused);
}

#[track_caller]
pub(super) fn check_reuse_of(status: u16, headers: &[(&str, &str)], reused: bool) {
    let mut world = World::with_policy(OriginPolicy { set_cookie: serde_json::from_str("\"store\"").unwrap(), ..OriginPolicy::default() });
    world.origin(status, headers, "first").get(&[]);
    world.wait(3);
    world.origin(200, &[], "second");
    let got = world.get(&[]);
    let expected = if reused { (From::Cache, status) } else { (From::Origin, 200) };
    assert_eq!((got.from, got.status), expected, "{status} {headers:?}");
}
