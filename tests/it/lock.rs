//! Goal: one holder at a time, tokens that only grow, first come first served. Method: the pure decision under
//! generated histories, checked against a linear model; the demonstration and the fence on the reference store.

use std::collections::HashMap;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::kv::{Meter, Metered};
use kv_patterns::patterns::lock::exact::{
    self, Acquire, Answer, OFFER_SECONDS, Queue, Request, State, WAITER_LOST_MILLIS, WAITERS_MAX,
};
use kv_patterns::patterns::lock::fence::{Fence, Fenced, FencedError, Stale};
use kv_patterns::patterns::lock::{hash, kv_demo, new_lock_id};
use kv_patterns::random::SeededRandom;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{START, block_on, store, tenant};

/// The object as its host runs it.
#[derive(Default)]
struct Object {
    state: State,
    queue: Queue,
    /// What those who wait asked for, by their tickets.
    wanted: HashMap<u64, Acquire>,
}

impl Object {
    fn ask(&mut self, request: &Request, now: Timestamp) -> (Answer, Option<u64>) {
        let (answer, ticket) = exact::decide(&mut self.state, &mut self.queue, request, now);
        if let (Request::Acquire(acquire), Some(ticket)) = (request, ticket) {
            self.wanted.insert(ticket, acquire.clone());
        }
        (answer, ticket)
    }

    /// A waiter asks, and takes what it is offered.
    fn poll(&mut self, ticket: u64, now: Timestamp) -> Answer {
        match self.queue.poll(&mut self.state, ticket, now) {
            Answer::Offered => {
                let Acquire { id, ttl_seconds, .. } = &self.wanted[&ticket];
                let taken = renew(id, *ttl_seconds);
                self.ask(&taken, now).0
            }
            answer => answer,
        }
    }
}

fn acquire(id: &str, ttl_seconds: u64, wait_seconds: u64, key: Option<&str>) -> Request {
    let (owner, key) = (Some(format!("owner of {id}")), key.map(str::to_owned));
    Request::Acquire(Acquire { ttl_seconds, owner, id: id.to_owned(), key, wait_seconds })
}

fn renew(id: &str, ttl_seconds: u64) -> Request {
    Request::Renew { id: id.to_owned(), ttl_seconds }
}

fn release(id: &str) -> Request {
    Request::Release { id: id.to_owned() }
}

#[track_caller]
fn token(answer: &Answer) -> u64 {
    match answer {
        Answer::Granted { fencing_token, .. } => fencing_token.parse().unwrap(),
        other => panic!("not granted: {other:?}"),
    }
}

fn at(seconds: u64) -> Timestamp {
    START.plus_seconds(seconds)
}

#[test]
fn it_is_held_until_released_or_over() {
    let mut object = Object::default();
    let (first, _) = object.ask(&acquire("a", 10, 0, None), START);
    assert_eq!(first, Answer::Granted { fencing_token: token(&first).to_string(), expires_at: at(10) });
    let held = Answer::Held { owner: Some("owner of a".to_owned()), retry_after_seconds: 10 };
    assert_eq!(object.ask(&acquire("b", 10, 0, None), START).0, held);
    assert_eq!(object.ask(&release("b"), START).0, Answer::NotHeld);
    assert_eq!(object.ask(&release("a"), START).0, Answer::Released);
    let (second, _) = object.ask(&acquire("b", 10, 0, None), START);
    assert!(token(&second) > token(&first));
    let (third, _) = object.ask(&acquire("c", 10, 0, None), at(10));
    assert!(token(&third) > token(&second));
    assert_eq!(object.ask(&release("b"), at(10)).0, Answer::NotHeld, "its time is over and another holds it");
}

#[test]
fn only_the_holder_renews_and_only_in_time() {
    let mut object = Object::default();
    let (granted, _) = object.ask(&acquire("a", 10, 0, None), START);
    assert_eq!(object.ask(&renew("b", 10), START).0, Answer::NotHeld);
    let (renewed, _) = object.ask(&renew("a", 60), at(9));
    assert_eq!(renewed, Answer::Granted { fencing_token: token(&granted).to_string(), expires_at: at(69) });
    assert_eq!(object.ask(&renew("a", 60), at(69)).0, Answer::NotHeld);
    assert_eq!(object.ask(&release("a"), at(69)).0, Answer::Released, "giving back what is over does no harm");
}

#[test]
fn ttl_is_kept_within_bounds() {
    let mut object = Object::default();
    let expires = |object: &mut Object, ttl| match object.ask(&acquire("a", ttl, 0, None), START).0 {
        Answer::Granted { expires_at, .. } => expires_at,
        other => panic!("{other:?}"),
    };
    assert_eq!(expires(&mut object, 31_536_000), at(3600));
    object.ask(&release("a"), START);
    assert_eq!(expires(&mut object, 0), at(1));
}

#[test]
fn tokens_grow_across_months_of_idleness_and_clean_up() {
    let mut object = Object::default();
    let mut last = 0;
    for _ in 0..3000 {
        last = token(&object.ask(&acquire("a", 1, 0, None), START).0);
        object.ask(&release("a"), START);
    }
    let forget = object.state.forget_at(START);
    assert!(!object.state.may_forget(START) && object.state.may_forget(forget));
    // The clock may even step back by hours when the object has forgotten.
    let mut forgotten = Object::default();
    let month = 30 * 86_400;
    for moment in [forget.plus_seconds(month), forget, Timestamp::from_millis(forget.millis() - 86_000_000)] {
        assert!(token(&forgotten.ask(&acquire("a", 1, 0, None), moment).0) > last, "{moment:?}");
        forgotten = Object::default();
    }
}

#[test]
fn a_held_lock_is_not_forgotten() {
    let mut object = Object::default();
    object.ask(&acquire("a", 3600, 0, None), START);
    assert!(!object.state.may_forget(at(86_400)));
    assert!(object.state.may_forget(object.state.forget_at(START)));
}

#[test]
fn a_repeated_acquire_with_its_key_gets_the_same_grant() {
    let mut object = Object::default();
    let (first, _) = object.ask(&acquire("a", 10, 0, Some("key")), START);
    let Request::Acquire(repeated) = acquire("b", 99, 0, Some("key")) else { unreachable!() };
    let repeated = Request::Acquire(Acquire { owner: Some("owner of a".to_owned()), ..repeated });
    let (again, _) = object.ask(&repeated, at(3));
    assert_eq!(again, first, "not extended, not a new token");
    assert_eq!(object.ask(&acquire("e", 10, 0, Some("key")), at(3)).0, Answer::KeyReused, "another owner's");
    assert!(matches!(object.ask(&acquire("c", 10, 0, Some("other")), at(3)).0, Answer::Held { .. }));
    assert!(matches!(object.ask(&acquire("c", 10, 0, None), at(3)).0, Answer::Held { .. }));
    assert!(matches!(object.ask(&renew("a", 20), at(3)).0, Answer::Granted { .. }), "both ids hold it");
    assert_eq!(object.ask(&release("b"), at(4)).0, Answer::Released);
    assert_eq!(object.ask(&renew("a", 20), at(4)).0, Answer::NotHeld);
    let (later, _) = object.ask(&acquire("d", 10, 0, Some("key")), at(5));
    assert!(token(&later) > token(&first), "once released, the key means nothing");
}

#[test]
fn who_waits_is_served_in_order_and_nobody_jumps_the_queue() {
    let mut object = Object::default();
    object.ask(&acquire("a", 10, 0, None), START);
    let b = object.ask(&acquire("b", 10, 20, None), START).1.unwrap();
    let c = object.ask(&acquire("c", 10, 20, None), START).1.unwrap();
    assert_eq!((object.poll(b, at(1)), object.poll(c, at(1))), (Answer::Queued, Answer::Queued));
    object.ask(&release("a"), at(2));
    assert!(matches!(object.ask(&acquire("d", 10, 0, None), at(2)).0, Answer::Held { .. }), "d comes after b and c");
    assert_eq!(object.poll(c, at(2)), Answer::Queued);
    let first = token(&object.poll(b, at(2)));
    object.ask(&release("b"), at(3));
    assert!(token(&object.poll(c, at(3))) > first);
}

#[test]
fn a_waiter_that_left_is_passed_over() {
    let mut object = Object::default();
    object.ask(&acquire("a", 100, 0, None), START);
    object.ask(&acquire("gone", 10, 20, None), START);
    let c = object.ask(&acquire("c", 10, 20, None), START).1.unwrap();
    object.ask(&release("a"), at(1));
    assert_eq!(object.poll(c, at(1)), Answer::Queued, "it may still ask");
    let later = START.plus_millis(WAITER_LOST_MILLIS);
    assert!(matches!(object.poll(c, later), Answer::Granted { .. }));
}

#[test]
fn who_waited_and_does_not_take_the_lock_loses_it_to_the_next() {
    let mut object = Object::default();
    object.ask(&acquire("a", 100, 0, None), START);
    let b = object.ask(&acquire("b", 100, 20, Some("key")), START).1.unwrap();
    let c = object.ask(&acquire("c", 100, 20, None), START).1.unwrap();
    object.ask(&release("a"), at(1));
    assert_eq!(object.queue.poll(&mut object.state, b, at(1)), Answer::Offered);
    assert_eq!(object.poll(c, at(OFFER_SECONDS).plus_millis(999)), Answer::Queued, "it may still take it");
    let taken = object.poll(c, at(1 + OFFER_SECONDS));
    assert!(matches!(taken, Answer::Granted { expires_at, .. } if expires_at == at(101 + OFFER_SECONDS)), "{taken:?}");
    assert_eq!(object.ask(&renew("b", 100), at(4)).0, Answer::NotHeld);
}

#[test]
fn an_offer_is_taken_by_the_same_request_again_too() {
    let mut object = Object::default();
    object.ask(&acquire("a", 100, 0, None), START);
    let wanted = acquire("b", 100, 20, Some("key"));
    let b = object.ask(&wanted, START).1.unwrap();
    object.ask(&release("a"), at(1));
    assert_eq!(object.queue.poll(&mut object.state, b, at(1)), Answer::Offered);
    let (answer, _) = object.ask(&wanted, at(2));
    assert!(matches!(answer, Answer::Granted { expires_at, .. } if expires_at == at(102)), "{answer:?}");
    assert_eq!(object.ask(&wanted, at(3)).0, answer, "and not held longer by asking once more");
}

#[test]
fn waiting_ends_when_its_time_is_over_and_a_repeated_wait_keeps_its_place() {
    let mut object = Object::default();
    object.ask(&acquire("a", 100, 0, None), START);
    let b = object.ask(&acquire("b", 10, 2, None), START).1.unwrap();
    assert_eq!(object.poll(b, at(1)), Answer::Queued);
    assert_eq!(object.poll(b, at(2)), Answer::Held { owner: Some("owner of a".to_owned()), retry_after_seconds: 98 });
    let first = object.ask(&acquire("c", 10, 20, Some("key")), at(3)).1.unwrap();
    let other = object.ask(&acquire("d", 10, 20, None), at(3)).1.unwrap();
    let again = object.ask(&acquire("e", 10, 20, Some("key")), at(3)).1.unwrap();
    assert_eq!(object.queue.len(), 2);
    assert!(matches!(object.poll(first, at(3)), Answer::Held { .. }), "the repeated request has its place");
    object.ask(&release("a"), at(4));
    assert_eq!(object.poll(other, at(4)), Answer::Queued);
    assert!(matches!(object.poll(again, at(4)), Answer::Granted { .. }));
    object.queue.leave(other);
    assert!(object.queue.is_empty());
}

#[test]
fn the_queue_is_bounded() {
    let mut object = Object::default();
    object.ask(&acquire("a", 100, 0, None), START);
    for number in 0..WAITERS_MAX {
        assert!(object.ask(&acquire(&number.to_string(), 10, 20, None), START).1.is_some());
    }
    assert_eq!(
        object.ask(&acquire("b", 10, 20, None), START),
        (Answer::QueueFull { owner: Some("owner of a".to_owned()) }, None)
    );
}

#[test]
fn inspecting_shows_the_holder_and_never_a_lock_id() {
    let mut object = Object::default();
    let seen = |object: &mut Object, now| match object.ask(&Request::Inspect, now).0 {
        Answer::Inspected(inspection) => inspection,
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(&mut object, START).fencing_token, None);
    let granted = token(&object.ask(&acquire("secret-id", 10, 0, None), START).0).to_string();
    let inspection = seen(&mut object, START);
    assert_eq!((inspection.held, inspection.expires_at), (true, Some(at(10))));
    assert_eq!(inspection.fencing_token.as_deref(), Some(granted.as_str()));
    assert!(!serde_json::to_string(&inspection).unwrap().contains("\"secret-id\""));
    assert!(!seen(&mut object, at(10)).held);
}

#[test]
fn lock_ids_are_unguessable_and_stored_as_hashes() {
    let random = SeededRandom::new(1);
    let (a, b) = (new_lock_id(&random), new_lock_id(&random));
    assert_eq!((a.len(), b.len()), (43, 43));
    assert_ne!(a, b);
    assert_ne!(hash(&a), a);
    assert_eq!(hash("abc"), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
}

/// One step of a generated history: who, what, and how long after the step before.
#[derive(Clone, Debug)]
enum Step {
    Acquire { who: u8, ttl: u64, wait: u64, keyed: bool },
    Renew { who: u8, ttl: u64 },
    Release { who: u8 },
    Restart,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 1..8_u64, 0..6_u64, any::<bool>())
            .prop_map(|(who, ttl, wait, keyed)| Step::Acquire { who, ttl, wait, keyed }),
        1 => (0..6_u8, 1..8_u64).prop_map(|(who, ttl)| Step::Renew { who, ttl }),
        2 => (0..6_u8).prop_map(|who| Step::Release { who }),
        1 => Just(Step::Restart),
        4 => (0..4000_u64).prop_map(Step::Pass),
    ];
    vec(step, 1..120)
}

/// The simplest lock there could be: who holds it, until when.
#[derive(Default)]
struct Model {
    holder: Option<(u8, u64, Timestamp)>,
    last_token: u64,
}

impl Model {
    fn live(&self, now: Timestamp) -> Option<(u8, u64, Timestamp)> {
        self.holder.filter(|(_, _, until)| now < *until)
    }

    fn granted(&mut self, who: u8, answer: &Answer, now: Timestamp) -> Result<(), TestCaseError> {
        let Answer::Granted { fencing_token, expires_at } = answer else { return Ok(()) };
        let token = fencing_token.parse().unwrap();
        match self.live(now) {
            Some((holder, known, _)) => prop_assert_eq!((holder, known), (who, token), "two holders at {:?}", now),
            None => prop_assert!(token > self.last_token, "token {} after {}", token, self.last_token),
        }
        self.last_token = token;
        self.holder = Some((who, token, *expires_at));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The object decides one request at a time, so its history is linearizable if every answer is the model's. It loses
    /// its memory (the queue) at any moment and forgets its state when it may.
    #[test]
    fn histories_are_those_of_one_lock(steps in steps()) {
        let (mut object, mut model, mut now) = (Object::default(), Model::default(), START);
        let mut waiting: Vec<(u64, u8, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire { who, ttl, wait, keyed } => {
                    let key = keyed.then(|| format!("key {who}"));
                    let free = model.live(now).is_none();
                    let (answer, ticket) = object.ask(&acquire(&who.to_string(), ttl, wait, key.as_deref()), now);
                    let is_granted = matches!(answer, Answer::Granted { .. });
                    prop_assert!(is_granted || !free || !waiting.is_empty(), "free and refused");
                    model.granted(who, &answer, now)?;
                    if let Some(ticket) = ticket {
                        // A repeated request takes the place of the one before.
                        let place = waiting.iter().position(|waiter| keyed && waiter.2 && waiter.1 == who);
                        match place {
                            Some(place) => waiting[place].0 = ticket,
                            None => waiting.push((ticket, who, keyed)),
                        }
                    }
                }
                Step::Renew { who, ttl } => {
                    let holds = model.live(now).is_some_and(|(holder, ..)| holder == who);
                    let (answer, _) = object.ask(&renew(&who.to_string(), ttl), now);
                    prop_assert_eq!(matches!(answer, Answer::Granted { .. }), holds);
                    model.granted(who, &answer, now)?;
                }
                Step::Release { who } => {
                    let others = model.live(now).is_some_and(|(holder, ..)| holder != who);
                    let (answer, _) = object.ask(&release(&who.to_string()), now);
                    prop_assert_eq!(answer == Answer::NotHeld, others);
                    if !others {
                        model.holder = None;
                    }
                }
                Step::Restart => {
                    object.queue = Queue::default();
                    waiting.clear();
                    if object.state.may_forget(now) {
                        object.state = State::default();
                    }
                }
                Step::Pass(millis) => {
                    // Waiting requests ask ten times in between, in any case in their order.
                    for _ in 0..10 {
                        now = now.plus_millis(millis / 10);
                        let mut left = Vec::new();
                        for (ticket, who, keyed) in waiting.iter().copied() {
                            let answer = object.poll(ticket, now);
                            if matches!(answer, Answer::Granted { .. }) {
                                prop_assert_eq!(left.len(), 0, "not the first of those who still wait");
                            }
                            model.granted(who, &answer, now)?;
                            if answer == Answer::Queued {
                                left.push((ticket, who, keyed));
                            }
                        }
                        waiting = left;
                    }
                }
            }
            let stored: State = serde_json::from_str(&serde_json::to_string(&object.state).unwrap()).unwrap();
            prop_assert_eq!(&stored, &object.state);
        }
    }

    #[test]
    fn a_fence_lets_no_older_token_pass(tokens in vec(any::<u64>(), 1..50)) {
        let (mut fence, mut newest) = (Fence::default(), 0);
        for token in tokens {
            match fence.admit(token) {
                Ok(next) => {
                    prop_assert!(token >= newest);
                    (fence, newest) = (next, token);
                }
                Err(stale) => prop_assert_eq!((token < newest, stale), (true, Stale { token, newest })),
            }
        }
    }
}

#[test]
fn a_fenced_store_refuses_the_paused_writer() {
    let (_, store) = store();
    let meter = Meter::default();
    let fenced = Fenced::new(Metered::new(store, meter.clone()));
    let key = tenant("t").space("test").key(&["guarded"]);
    assert_eq!(block_on(fenced.put(&key, "by the first", 33)), Ok(()));
    assert_eq!(block_on(fenced.put(&key, "by the second", 34)), Ok(()));
    let stale = Err(FencedError::Stale(Stale { token: 33, newest: 34 }));
    assert_eq!(block_on(fenced.put(&key, "by the first, late", 33)), stale);
    assert_eq!(block_on(fenced.put(&key, "again", 34)), Ok(()), "the holder may write more than once");
    assert_eq!(block_on(fenced.get(&key)), Ok(Some("again".to_owned())));
    assert_eq!(meter.to_string(), "r=5 w=3 d=0 l=0");
}

#[test]
fn the_demonstration_works_where_reads_are_fresh() {
    let (clock, store) = store();
    let (meter, t) = (Meter::default(), tenant("t"));
    let store = Metered::new(store, meter.clone());
    let acquire = |id: &'static str| {
        let owner = Some(format!("owner of {id}"));
        block_on(kv_demo::acquire(&store, &clock, &t, "r", id, owner, 1)).unwrap()
    };
    let expires_at = clock.now().plus_seconds(1);
    let fencing_token = clock.now().millis() << 20;
    assert_eq!(acquire("a"), kv_demo::Outcome::Granted { fencing_token, expires_at });
    assert_eq!(meter.to_string(), "r=2 w=1 d=0 l=0");
    let held = kv_demo::Outcome::Held { owner: Some("owner of a".to_owned()), expires_at: Some(expires_at) };
    assert_eq!(acquire("b"), held);
    assert!(!block_on(kv_demo::release(&store, &clock, &t, "r", "b")).unwrap());
    clock.advance_seconds(1);
    assert!(matches!(acquire("b"), kv_demo::Outcome::Granted { .. }), "a second's grant ends after a second");
    assert!(!block_on(kv_demo::release(&store, &clock, &t, "r", "a")).unwrap(), "not somebody else's");
    assert!(block_on(kv_demo::release(&store, &clock, &t, "r", "b")).unwrap());
}

#[test]
fn the_demonstrations_warning_says_what_was_measured() {
    let measured = include_str!("../../docs/guarantees/guarantees.json");
    let table: serde_json::Value = serde_json::from_str(measured).unwrap();
    let is_it = |row: &&serde_json::Value| {
        row["pattern"] == "lock"
            && row["profile"] == "documented"
            && row["promise"].as_str().unwrap().starts_with("kv-demo")
    };
    let row = table["rows"].as_array().unwrap().iter().find(is_it).unwrap();
    assert!(kv_demo::WARNING.contains(row["measured"].as_str().unwrap()), "{row}");
}
