//! Many clients at once in virtual time: 300 `GET`s of 20 cold URIs, whatever becomes of the request that asks the origin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::{Either, select};
use kv_patterns::clock::Clock;
use kv_patterns::patterns::cache::{Flights, Host, SharedLauncher};
use kv_patterns::patterns::response_cache::gateway::{Gateway, Payload};
use kv_patterns::patterns::response_cache::headers::Headers;
use kv_patterns::patterns::response_cache::isolate::Isolate;
use kv_patterns::patterns::response_cache::origin::{Origin, Unreached};
use kv_patterns::patterns::response_cache::policy::OriginPolicy;
use kv_patterns::patterns::response_cache::site::Site;
use kv_patterns::patterns::response_cache::{RequestHead, ResponseHead};
use kv_patterns::sim::{Setup, SimBackground, SimClock, SimRandom, SimStore, World};

use super::world::FakeBody;
use crate::support::tenant;

const URIS: usize = 20;
const CLIENTS: usize = 300;

/// What one request to the origin meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Takes(u64),
    Fails,
    NeverEnds,
    /// Nothing comes of it within the time that the origin has.
    TimesOut,
    /// Its body breaks off.
    Breaks,
    /// Its body has no known end, so it is streamed; the client takes this long to read it.
    Streams(u64),
    /// Its answer is for one alone.
    Private,
    /// It answers with an error.
    Errs,
}

#[derive(Clone)]
struct Fated {
    clock: SimClock,
    fate: Rc<dyn Fn(usize) -> Fate>,
    calls: Rc<RefCell<BTreeMap<String, usize>>>,
}

impl Origin for Fated {
    type Upload = ();
    type Body = FakeBody;

    async fn send(
        &self,
        request: &RequestHead,
        _: Option<()>,
        timeout: u64,
    ) -> Result<(ResponseHead, FakeBody), Unreached> {
        let number = {
            let mut calls = self.calls.borrow_mut();
            let count = calls.entry(request.target.to_string()).or_default();
            *count += 1;
            *count
        };
        let fate = (self.fate)(number);
        match fate {
            Fate::Takes(millis) => self.clock.sleep(millis).await,
            Fate::NeverEnds => std::future::pending().await,
            Fate::TimesOut => {
                self.clock.sleep(timeout * 1000).await;
                return Err(Unreached::TimedOut);
            }
            Fate::Fails | Fate::Breaks | Fate::Streams(_) | Fate::Private | Fate::Errs => self.clock.sleep(100).await,
        }
        if fate == Fate::Fails {
            return Err(Unreached::Failed);
        }
        if fate == Fate::Errs {
            return Ok((ResponseHead { status: 500, headers: Headers::new() }, FakeBody::of(b"sorry", false)));
        }
        let control = if fate == Fate::Private { "private" } else { "max-age=600" };
        let length = if matches!(fate, Fate::Streams(_)) { ("x-length", "unknown") } else { ("content-length", "4") };
        let headers = Headers::from_pairs([("cache-control", control), length]).unwrap();
        Ok((ResponseHead { status: 200, headers }, FakeBody::of(b"body", fate == Fate::Breaks)))
    }
}

type SimGateway = Gateway<SimStore, Fated, SimClock, SimRandom, SharedLauncher<SimBackground>>;

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    calls: usize,
    answered: usize,
    failed: usize,
    timed_out: usize,
    given_up: usize,
    slowest_millis: u64,
}

/// All clients at the same moment; `fate` of the n-th request for a URI. Clients whose request leads go away after `patience_millis`.
fn stampede(fate: impl Fn(usize) -> Fate + 'static, patience_millis: Option<u64>) -> Outcome {
    let world = World::new(Setup::ideal(1));
    let isolate = world.isolate(0);
    let origin = Fated { clock: isolate.clock(), fate: Rc::new(fate), calls: Rc::default() };
    let launcher = SharedLauncher(isolate.background());
    let site = Site::new(tenant("acme").space("response"), "shop", "https://shop.example", OriginPolicy::default());
    let gateway: SimGateway = Gateway {
        store: isolate.store("CACHE"),
        origin: origin.clone(),
        host: Host { clock: isolate.clock(), random: isolate.random(), launcher },
        isolate: Isolate::new(1 << 20),
        flights: Flights::default(),
        site: Rc::new(site.unwrap()),
    };
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    for client in 0..CLIENTS {
        let (gateway, world, outcome, origin) = (gateway.clone(), world.clone(), outcome.clone(), origin.clone());
        let began = world.now();
        isolate.spawn(async move {
            let request = super::world::request("GET", &format!("https://shop.example/{}", client % URIS), &[]);
            let asked = Box::pin(gateway.answer(&request, None));
            let patience = patience_millis.filter(|_| client < URIS).unwrap_or(u64::MAX / 2);
            let got = select(asked, world.sleep(patience)).await;
            let Either::Left((answer, _)) = got else {
                outcome.borrow_mut().given_up += 1;
                return;
            };
            let body = match answer.payload {
                Payload::Nothing | Payload::Failed(_) => Vec::new(),
                Payload::Held(bytes, range) => bytes[range].to_vec(),
                Payload::Stream(stream) => {
                    if let Fate::Streams(millis) = (origin.fate)(1) {
                        world.sleep(millis).await;
                    }
                    stream.read().unwrap()
                }
            };
            let mut outcome = outcome.borrow_mut();
            outcome.slowest_millis = outcome.slowest_millis.max(world.now().millis_since(began));
            outcome.timed_out += usize::from(answer.status == 504);
            if (answer.status, body.as_slice()) == (200, b"body") {
                outcome.answered += 1;
            } else {
                outcome.failed += 1;
            }
        });
    }
    world.run().unwrap();
    let mut outcome = outcome.take();
    outcome.calls = origin.calls.borrow().values().sum();
    outcome
}

#[track_caller]
fn check(outcome: &Outcome, calls: usize, failed: usize, millis_max: u64) {
    assert_eq!((outcome.calls, outcome.failed), (calls, failed), "{outcome:?}");
    assert_eq!(outcome.answered + outcome.failed + outcome.given_up, CLIENTS);
    assert!(outcome.slowest_millis <= millis_max, "{outcome:?}");
}

#[test]
fn three_hundred_clients_of_twenty_cold_uris_ask_twenty_times() {
    check(&stampede(|_| Fate::Takes(200), None), 20, 0, 200);
}

#[test]
fn a_slow_origin_is_asked_once_more_after_half_of_its_time_and_not_by_everybody() {
    check(&stampede(|_| Fate::Takes(14_900), None), 20, 0, 14_900);
    check(&stampede(|_| Fate::Takes(20_000), None), 40, 0, 35_000);
}

#[test]
fn whoever_waited_for_all_of_the_origins_time_does_not_ask_it_too() {
    // Two of each path ask, for 30 seconds each.
    let outcome = stampede(|_| Fate::TimesOut, None);
    check(&outcome, 40, CLIENTS, 45_000);
    assert_eq!(outcome.timed_out, CLIENTS);
}

#[test]
fn whoever_waited_for_all_of_the_origins_time_is_not_told_so_while_the_answer_arrives() {
    // After 15 seconds a second one asks, after 30 everybody who is left: each reads for 40 seconds what was there after a tenth.
    check(&stampede(|_| Fate::Streams(40_000), None), CLIENTS, 0, 70_100);
    // What arrives in time is waited for by all.
    check(&stampede(|_| Fate::Streams(14_000), None), URIS, 0, 14_100);
}

#[test]
fn a_request_that_fails_once_fails_nobody() {
    for fate in [Fate::Fails, Fate::Breaks] {
        check(&stampede(move |number| if number == 1 { fate } else { Fate::Takes(200) }, None), 40, 0, 300);
    }
}

#[test]
fn an_error_of_the_origin_is_for_who_asked_and_the_next_one_has_more_luck() {
    check(&stampede(|number| if number == 1 { Fate::Errs } else { Fate::Takes(200) }, None), 40, URIS, 300);
    // An error may not be shared, so after two of them each asks for itself.
    check(&stampede(|_| Fate::Errs, None), CLIENTS, CLIENTS, 300);
}

#[test]
fn an_origin_that_is_down_is_asked_twice_by_all_clients_together() {
    check(&stampede(|_| Fate::Fails, None), 40, CLIENTS, 200);
}

#[test]
fn a_leader_that_never_ends_delays_its_followers_and_fails_none_of_them() {
    let outcome = stampede(|number| if number == 1 { Fate::NeverEnds } else { Fate::Takes(200) }, Some(20_000));
    assert_eq!((outcome.calls, outcome.given_up, outcome.failed), (40, URIS, 0), "{outcome:?}");
    assert!(outcome.slowest_millis <= 15_200, "{outcome:?}");
}

#[test]
fn whoever_waits_for_a_stream_gets_it_when_it_is_complete() {
    check(&stampede(|_| Fate::Streams(1000), None), 20, 0, 1100);
}

#[test]
fn what_is_for_one_alone_is_waited_for_once_and_then_asked_for_by_each() {
    check(&stampede(|_| Fate::Private, None), CLIENTS, 0, 200);
}
