//! Goal: in strong mode no acknowledged change is covered by another that named the same version, whatever fails, and
//! whatever KV shows where calls are made. Method: clients everywhere read a number, add one and write it under
//! `If-Match`, while old and new copies reach KV in any order; beside it the same without strong mode.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use kv_patterns::clock::{Clock, Timestamp};
use kv_patterns::etag::Precondition;
use kv_patterns::patch::Patch;
use kv_patterns::patterns::preference::strong::{Answer, Request, State, decide};
use kv_patterns::patterns::preference::{Change, Preferences, View};
use kv_patterns::random::{Random, SeededRandom};
use kv_patterns::recent::Recent;
use kv_patterns::sim::{Isolate, Object, Objects, Profile, Setup, World};
use kv_patterns::stamp::Stamps;
use serde_json::json;

use crate::scenarios::register::{Wrapped, wrapped};
use crate::support::tenant;

const SEEDS: std::ops::Range<u64> = 0..25;
const CLIENTS: usize = 6;
const ROUNDS: usize = 20;

/// The user's object, as its class runs it.
struct Decider(Stamps);

impl Default for Decider {
    fn default() -> Self {
        Self(Stamps::new(&SeededRandom::new(7)))
    }
}

impl Object for Decider {
    type Storage = State;
    type Request = Request;
    type Reply = Answer;

    fn handle(&mut self, state: &mut State, request: Request, now: Timestamp) -> Answer {
        let (next, answer) = decide(state, &request, now, &self.0);
        *state = next;
        answer
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    done: Cell<u64>,
    /// Changes without an answer.
    open: Cell<u64>,
    /// Numbers acknowledged more than once.
    covered: Cell<u64>,
    numbers: RefCell<BTreeSet<u64>>,
}

impl Told {
    fn acknowledge(&self, number: u64) {
        self.done.set(self.done.get() + 1);
        if !self.numbers.borrow_mut().insert(number) {
            self.covered.set(self.covered.get() + 1);
        }
    }
}

struct Client {
    isolate: Isolate,
    preferences: Preferences<Wrapped>,
    stamps: Stamps,
}

fn number(view: &View) -> u64 {
    view.document["timezone"].as_str().and_then(|text| text.strip_prefix("vv-")?.parse().ok()).unwrap_or(0)
}

/// The number after the one of `view`, if `view` is still what is there.
fn next_of(view: &View) -> (Change, Precondition) {
    let patch = Patch::Merge(json!({ "timezone": format!("vv-{:05}", number(view) + 1) }));
    (Change::Patch(patch), Precondition { if_match: Some(view.etag.clone()), if_none_match: None })
}

impl Client {
    /// Nothing: no answer. Otherwise what was answered, and what KV may be given as a copy.
    async fn ask(
        &self,
        objects: &Objects<Decider>,
        change: Option<(Change, Precondition)>,
    ) -> Option<(Result<View, ()>, Answer)> {
        let found = self.preferences.find("ada").await.ok()?;
        let request = Request::new(&found, change);
        let answer = objects.call(&self.isolate, "ada", request.clone()).await.ok()?;
        let view = request.view(answer.clone(), Vec::new(), self.isolate.clock().now(), &self.stamps);
        Some((view.map_err(|_| ()), answer))
    }

    async fn strong_round(&self, objects: &Objects<Decider>, told: &Told) {
        let Some((Ok(view), _)) = self.ask(objects, None).await else { return };
        let (number, random) = (number(&view) + 1, self.isolate.random());
        match self.ask(objects, Some(next_of(&view))).await {
            None => told.open.set(told.open.get() + 1),
            Some((Err(()), _)) => {}
            Some((Ok(_), answer)) => {
                told.acknowledge(number);
                // Some copies never reach KV, and others late.
                if let (Answer::Done(overrides), true) = (answer, random.below(3) > 0) {
                    let _ = self.preferences.write("ada", &overrides).await;
                }
            }
        }
    }

    async fn plain_round(&self, told: &Told) {
        let Ok(view) = self.preferences.read("ada").await else { return };
        let (change, precondition) = next_of(&view);
        let now = self.isolate.clock().now();
        match self.preferences.change("ada", &change, &precondition, now, &self.stamps).await {
            Ok(_) => told.acknowledge(number(&view) + 1),
            Err(_) => told.open.set(told.open.get() + 1),
        }
    }
}

fn run(seed: u64, profile: Profile, is_strong: bool) -> (Rc<Told>, u64) {
    let world = World::new(Setup::swarm(seed, profile));
    let (objects, told) = (Objects::<Decider>::new(&world), Rc::new(Told::default()));
    for client in 0..CLIENTS {
        let isolate = world.isolate(client % world.setup().locations);
        let preferences = Preferences::new(wrapped(&isolate, "CONFIG"), &tenant("acme"), Recent::new(8));
        let stamps = Stamps::new(&isolate.random());
        let client = Client { isolate, preferences, stamps };
        let (objects, world_of_client, told) = (objects.clone(), world.clone(), told.clone());
        world.spawn(async move {
            for _ in 0..ROUNDS {
                world_of_client.sleep(client.isolate.random().below(3000)).await;
                if is_strong {
                    client.strong_round(&objects, &told).await;
                } else {
                    client.plain_round(&told).await;
                }
            }
        });
    }
    assert!(world.run().is_ok(), "seed {seed} got stuck");
    let last = Rc::new(Cell::new(0));
    let (isolate, found, asked) = (world.isolate(0), last.clone(), world.clone());
    let preferences = Preferences::new(wrapped(&isolate, "CONFIG"), &tenant("acme"), Recent::new(8));
    let client = Client { stamps: Stamps::new(&isolate.random()), isolate, preferences };
    world.spawn(async move {
        for _ in 0..50 {
            if let Some((Ok(view), _)) = client.ask(&objects, None).await {
                found.set(number(&view));
                return;
            }
            asked.sleep(5000).await;
        }
    });
    assert!(world.run().is_ok(), "the end of seed {seed} got stuck");
    (told, last.get())
}

#[test]
fn no_acknowledged_change_is_covered_by_another_of_the_same_version() {
    let mut done = 0;
    for profile in Profile::ALL {
        for seed in SEEDS {
            let (told, last) = run(seed, profile, true);
            assert_eq!(told.covered.get(), 0, "seed {seed} under {}", profile.name);
            let most = told.done.get() + told.open.get();
            assert!((told.done.get()..=most).contains(&last), "seed {seed} under {}: {last} of {most}", profile.name);
            done += told.done.get();
        }
    }
    assert!(done > 1000, "only {done} changes were made");
}

#[test]
fn without_strong_mode_the_same_worlds_cover_some() {
    let covered: u64 = SEEDS.map(|seed| run(seed, Profile::DOCUMENTED, false).0.covered.get()).sum();
    assert!(covered > 0);
}
