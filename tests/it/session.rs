//! Goal: sessions keep the promises of their module head. Method: the pattern on the memory store with a clock moved
//! by hand and a meter on every operation. What other locations see is tested in the simulator.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};

use kv_patterns::clock::{Clock, ManualClock, Timestamp};
use kv_patterns::kv::{Corrupt, MemoryStore, Meter, Metered, PageRequest};
use kv_patterns::patterns::session::{
    IDLE_SECONDS_DEFAULT, Issued, NewSession, Refusal, Rotation, Session, Sessions, Verdict,
};
use kv_patterns::random::SeededRandom;
use kv_patterns::recent::Recent;
use kv_patterns::sim;
use proptest::prelude::*;
use serde_json::json;

use crate::faulty::{self, Faulty, Mode};
use crate::support::{START, block_on, store, tenant};

struct World {
    clock: ManualClock,
    memory: MemoryStore<ManualClock>,
    meter: Meter,
    random: SeededRandom,
    sessions: Sessions<Metered<MemoryStore<ManualClock>>>,
}

fn world_with_cap(per_user_max: u32) -> World {
    let (clock, memory) = store();
    let meter = Meter::default();
    let metered = Metered::new(memory.clone(), meter.clone());
    let sessions = Sessions::new(metered, &tenant("acme"), per_user_max, Recent::new(8));
    World { clock, memory, meter, random: SeededRandom::new(7), sessions }
}

fn world() -> World {
    world_with_cap(0)
}

fn of(user: &str) -> NewSession {
    NewSession {
        user_id: user.to_owned(),
        email: None,
        roles: vec!["reader".to_owned()],
        data: json!({"plan": "free"}),
        idle_seconds: 600,
        absolute_seconds: 3600,
    }
}

impl World {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn create(&self, new: NewSession) -> Issued {
        block_on(self.sessions.create(new, self.now(), &self.random)).unwrap()
    }

    fn verify(&self, issued: &Issued) -> Verdict {
        block_on(self.sessions.verify(issued.token.secret(), self.now())).unwrap()
    }

    fn refresh(&self, issued: &Issued) -> Verdict {
        block_on(self.sessions.refresh(issued.token.secret(), self.now())).unwrap()
    }

    fn rotate(&self, issued: &Issued) -> Rotation {
        block_on(self.sessions.rotate(issued.token.secret(), self.now(), &self.random)).unwrap()
    }

    fn list(&self, user: &str) -> Vec<Session> {
        block_on(self.sessions.list(user, &PageRequest::default(), self.now())).unwrap().sessions
    }

    /// The cost of `call` as the reply prints it.
    fn cost(&self, call: impl FnOnce()) -> String {
        let before = [self.meter.reads(), self.meter.writes(), self.meter.deletes(), self.meter.lists()];
        call();
        let after = [self.meter.reads(), self.meter.writes(), self.meter.deletes(), self.meter.lists()];
        let [r, w, d, l] = [0, 1, 2, 3].map(|i| after[i] - before[i]);
        format!("r={r} w={w} d={d} l={l}")
    }
}

fn refused(why: Refusal) -> Verdict {
    Verdict::Refused(why)
}

#[track_caller]
fn rotated(rotation: Rotation) -> Issued {
    match rotation {
        Rotation::Rotated(issued) => issued,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_session_is_what_was_asked_for() {
    let world = world();
    let issued = world.create(of("alice"));
    let session = &issued.session;
    assert_eq!((session.user_id.as_str(), session.roles.as_slice()), ("alice", ["reader".to_owned()].as_slice()));
    assert_eq!(session.expires_at, START.plus_seconds(600));
    assert_eq!(world.verify(&issued), Verdict::Valid(session.clone()));
}

#[test]
fn every_call_costs_what_its_head_says() {
    let world = world();
    let issued = world.create(of("alice"));
    assert_eq!(world.cost(|| drop(world.create(of("alice")))), "r=0 w=1 d=0 l=0");
    assert_eq!(world.cost(|| drop(world.verify(&issued))), "r=2 w=0 d=0 l=0");
    assert_eq!(world.cost(|| drop(world.refresh(&issued))), "r=2 w=0 d=0 l=0");
    world.clock.advance_seconds(61);
    assert_eq!(world.cost(|| drop(world.refresh(&issued))), "r=3 w=1 d=0 l=0");
    assert_eq!(world.cost(|| drop(world.list("alice"))), "r=3 w=0 d=0 l=1");
    assert_eq!(world.cost(|| drop(world.rotate(&issued))), "r=3 w=2 d=1 l=0");
    assert_eq!(world.cost(|| block_on(world.sessions.revoke(issued.token.secret())).unwrap()), "r=0 w=1 d=1 l=0");
    let id = issued.session.id;
    assert_eq!(world.cost(|| block_on(world.sessions.revoke_of_user("alice", &id)).unwrap()), "r=0 w=1 d=1 l=0");
    assert_eq!(world.cost(|| block_on(world.sessions.revoke_all("alice", world.now())).unwrap()), "r=0 w=1 d=0 l=0");
    let malformed = || drop(block_on(world.sessions.verify("kvs_nonsense", world.now())));
    assert_eq!(world.cost(malformed), "r=0 w=0 d=0 l=0", "a malformed token costs nothing");
    let capped = world_with_cap(5);
    assert_eq!(capped.cost(|| drop(capped.create(of("alice")))), "r=0 w=1 d=0 l=1");
}

#[test]
fn nothing_stored_leads_back_to_a_token() {
    let world = world();
    let issued = world.create(of("alice"));
    let secret = issued.token.secret().trim_start_matches("kvs_");
    for name in world.memory.names() {
        let value = String::from_utf8(world.memory.raw(&name).unwrap()).unwrap();
        assert!(!name.contains(secret) && !value.contains(secret));
        assert!(!name.contains("alice"), "user ids are not in key names");
    }
}

#[test]
fn a_session_idles_out_unless_it_is_refreshed() {
    let world = world();
    let (kept, left) = (world.create(of("alice")), world.create(of("alice")));
    world.clock.advance_seconds(599);
    assert!(matches!(world.refresh(&kept), Verdict::Valid(_)));
    world.clock.advance_seconds(1);
    assert_eq!(world.verify(&left), refused(Refusal::Expired));
    assert!(matches!(world.verify(&kept), Verdict::Valid(_)));
}

#[test]
fn a_refresh_that_kv_hides_from_its_own_isolate_is_not_made_again_within_the_minute() {
    let world = world();
    let issued = world.create(of("alice"));
    let key = world.memory.names().pop().unwrap();
    let old_copy = world.memory.raw(&key).unwrap();
    world.clock.advance_seconds(100);
    let Verdict::Valid(first) = world.refresh(&issued) else { panic!("a live session") };
    world.memory.plant(&key, &old_copy);
    world.clock.advance_seconds(59);
    let mut again = None;
    assert_eq!(world.cost(|| again = Some(world.refresh(&issued))), "r=2 w=0 d=0 l=0");
    assert_eq!(again, Some(Verdict::Valid(first)), "nor does the client see its session step back");
    world.clock.advance_seconds(1);
    assert_eq!(world.cost(|| drop(world.refresh(&issued))), "r=3 w=1 d=0 l=0");
}

#[test]
fn the_absolute_limit_holds_whatever_is_refreshed_or_rotated() {
    let world = world();
    let mut issued = world.create(of("alice"));
    for round in 0..7 {
        world.clock.advance_seconds(500);
        let Verdict::Valid(session) = world.refresh(&issued) else { panic!("round {round}") };
        assert!(session.expires_at <= START.plus_seconds(3600));
        issued = rotated(world.rotate(&issued));
        assert_eq!(issued.session.created_at, START);
    }
    world.clock.advance_seconds(100);
    assert_eq!(world.refresh(&issued), refused(Refusal::Expired));
    assert_eq!(world.rotate(&issued), Rotation::Refused(Refusal::Expired));
}

#[test]
fn a_record_is_never_written_twice_within_a_minute() {
    let world = world();
    let issued = world.create(of("alice"));
    let mut writes = 0;
    for _ in 0..550 {
        world.clock.advance_seconds(1);
        let before = world.meter.writes();
        assert!(matches!(world.refresh(&issued), Verdict::Valid(_)));
        writes += world.meter.writes() - before;
    }
    assert_eq!(writes, 9);
}

#[test]
fn a_revoked_session_is_dead_and_revoking_again_is_fine() {
    let world = world();
    let issued = world.create(of("alice"));
    for _ in 0..2 {
        block_on(world.sessions.revoke(issued.token.secret())).unwrap();
        assert_eq!(world.verify(&issued), refused(Refusal::Unknown));
    }
    block_on(world.sessions.revoke("not a token")).unwrap();
}

#[test]
fn of_rotations_of_one_token_that_cross_in_an_isolate_one_gets_a_session() {
    let world = sim::World::new(sim::Setup { profile: sim::Profile::OPTIMISTIC, ..sim::Setup::ideal(1) });
    let isolate = world.isolate(0);
    let sessions = Sessions::new(isolate.store("SESSIONS"), &tenant("acme"), 0, Recent::new(8));
    let (random, won) = (Rc::new(isolate.random()), Rc::new(Cell::new(0)));
    let sessions = Rc::new(sessions);
    isolate.spawn({
        let (world, isolate, won) = (world.clone(), isolate.clone(), Rc::clone(&won));
        async move {
            let old = sessions.create(of("alice"), world.now(), &*random).await.unwrap();
            for _ in 0..12 {
                let (sessions, random, won) = (Rc::clone(&sessions), Rc::clone(&random), Rc::clone(&won));
                let (token, now) = (old.token.secret().to_owned(), world.now());
                isolate.spawn(async move {
                    let rotation = sessions.rotate(&token, now, &*random).await.unwrap();
                    won.set(won.get() + u32::from(matches!(rotation, Rotation::Rotated(_))));
                });
            }
        }
    });
    world.run().unwrap();
    assert_eq!(won.get(), 1);
}

#[test]
fn a_rotation_that_the_platform_ended_in_the_middle_holds_its_token_for_a_minute_and_no_longer() {
    let clock = faulty::clock();
    let store = Faulty::new(&clock);
    let sessions = Sessions::new(store.clone(), &tenant("acme"), 0, Recent::new(8));
    let (random, now) = (SeededRandom::new(7), || Clock::now(&clock));
    let old = block_on(sessions.create(of("alice"), now(), &random)).unwrap();
    let started_at = now();
    store.set(Mode::Slow(1000));
    let mut ended = Box::pin(sessions.rotate(old.token.secret(), started_at, &random));
    let mut is_pending = || ended.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(is_pending(), "it reads");
    clock.advance_seconds(1);
    assert!(is_pending(), "it writes");
    drop(ended);
    store.set(Mode::Up);
    let rotate = || block_on(sessions.rotate(old.token.secret(), now(), &random)).unwrap();
    clock.advance_millis(58_999);
    assert_eq!(rotate(), Rotation::Refused(Refusal::Revoked));
    clock.advance_millis(1);
    assert_eq!(now(), started_at.plus_seconds(60));
    let new = rotated(rotate());
    assert_eq!(block_on(sessions.verify(new.token.secret(), now())).unwrap(), Verdict::Valid(new.session));
}

#[test]
fn rotation_gives_a_new_token_and_ends_the_old_one() {
    let world = world();
    let old = world.create(of("alice"));
    let new = rotated(world.rotate(&old));
    assert_ne!(new.session.id, old.session.id);
    assert_eq!(new.session.data, old.session.data);
    assert_eq!(world.verify(&old), refused(Refusal::Unknown));
    assert!(matches!(world.verify(&new), Verdict::Valid(_)));
    assert_eq!(world.list("alice"), [new.session]);
}

#[test]
fn revoke_all_ends_what_came_before_and_nothing_after() {
    let world = world();
    let (alice, bob) = (world.create(of("alice")), world.create(of("bob")));
    world.clock.advance_millis(5);
    block_on(world.sessions.revoke_all("alice", world.now())).unwrap();
    assert_eq!(world.verify(&alice), refused(Refusal::Revoked));
    assert!(matches!(world.verify(&bob), Verdict::Valid(_)));
    assert!(world.list("alice").is_empty());
    let tie = world.create(of("alice"));
    assert_eq!(world.verify(&tie), refused(Refusal::Revoked), "of the same millisecond: careful");
    world.clock.advance_millis(1);
    let later = world.create(of("alice"));
    assert!(matches!(world.verify(&later), Verdict::Valid(_)));
}

#[test]
fn a_rotated_session_does_not_escape_a_revoke_all_it_was_older_than() {
    let world = world();
    let old = world.create(of("alice"));
    world.clock.advance_seconds(10);
    let revoked_to = world.now();
    world.clock.advance_seconds(10);
    let new = rotated(world.rotate(&old));
    block_on(world.sessions.revoke_all("alice", revoked_to)).unwrap();
    assert_eq!(world.verify(&new), refused(Refusal::Revoked));
}

#[test]
fn a_session_is_ended_only_in_its_own_users_name() {
    let world = world();
    let issued = world.create(of("alice"));
    for (user, id) in [("bob", issued.session.id.as_str()), ("alice", "../epoch"), ("alice", "")] {
        block_on(world.sessions.revoke_of_user(user, id)).unwrap();
        assert!(matches!(world.verify(&issued), Verdict::Valid(_)), "{user} {id}");
    }
    block_on(world.sessions.revoke_of_user("alice", &issued.session.id)).unwrap();
    assert_eq!(world.verify(&issued), refused(Refusal::Unknown));
}

#[test]
fn another_tenant_knows_nothing_of_a_token() {
    let world = world();
    let issued = world.create(of("alice"));
    let foreign = Sessions::new(world.memory.clone(), &tenant("other"), 0, Recent::new(8));
    let verdict = block_on(foreign.verify(issued.token.secret(), START)).unwrap();
    assert_eq!(verdict, refused(Refusal::Unknown));
    block_on(foreign.revoke(issued.token.secret())).unwrap();
    block_on(foreign.revoke_all("alice", START.plus_seconds(9))).unwrap();
    assert!(matches!(world.verify(&issued), Verdict::Valid(_)));
}

#[test]
fn unreadable_records_are_refused_and_kept() {
    let world = world();
    let issued = world.create(of("alice"));
    let key = world.memory.names().pop().unwrap();
    let good = String::from_utf8(world.memory.raw(&key).unwrap()).unwrap();
    let cases = [
        ("session.2\n{}".to_owned(), Corrupt::Newer),
        ("{\"userId\":\"alice\",\"expiresAt\":null}".to_owned(), Corrupt::Foreign),
        (good.replace("\"seen\":", "\"seen\":\"x\",\"s\":"), Corrupt::Damaged),
        (good.replace("\"idle_seconds\":600", "\"idle_seconds\":-1"), Corrupt::Damaged),
    ];
    for (bytes, why) in cases {
        world.memory.plant(&key, bytes.as_bytes());
        assert_eq!(world.verify(&issued), refused(Refusal::Unreadable(why)));
        assert_eq!(world.refresh(&issued), refused(Refusal::Unreadable(why)));
        assert_eq!(world.rotate(&issued), Rotation::Refused(Refusal::Unreadable(why)));
        let page = block_on(world.sessions.list("alice", &PageRequest::default(), START)).unwrap();
        assert_eq!((page.sessions.len(), page.unreadable), (0, 1));
        assert_eq!(world.memory.raw(&key), Some(bytes.into_bytes()), "kept as it was");
    }
}

#[test]
fn an_unreadable_epoch_proves_nothing() {
    let world = world();
    let issued = world.create(of("alice"));
    block_on(world.sessions.revoke_all("alice", START.plus_seconds(1))).unwrap();
    let key = world.memory.names().into_iter().find(|name| name.contains("/epoch/")).unwrap();
    world.memory.plant(&key, b"session-epoch.1\n{\"revoked_to\":null}");
    assert_eq!(world.verify(&issued), refused(Refusal::Unreadable(Corrupt::Damaged)));
    let page = block_on(world.sessions.list("alice", &PageRequest::default(), START)).unwrap();
    assert_eq!((page.sessions.len(), page.unreadable), (0, 1));
}

#[test]
fn a_record_under_the_key_of_another_token_is_refused() {
    let world = world();
    let (alice, eve) = (world.create(of("alice")), world.create(of("alice")));
    let key = |issued: &Issued| world.memory.names().into_iter().find(|n| n.ends_with(&issued.session.id)).unwrap();
    world.memory.plant(&key(&eve), &world.memory.raw(&key(&alice)).unwrap());
    assert_eq!(world.verify(&eve), refused(Refusal::Unknown));
}

#[test]
fn a_cap_ends_the_oldest_sessions() {
    let world = world_with_cap(2);
    let issued: Vec<Issued> = (0..4)
        .map(|_| {
            world.clock.advance_seconds(2);
            world.create(of("alice"))
        })
        .collect();
    let alive: Vec<bool> = issued.iter().map(|one| matches!(world.verify(one), Verdict::Valid(_))).collect();
    assert_eq!(alive, [false, false, true, true]);
}

#[test]
fn a_list_shows_only_the_users_live_sessions_in_pages() {
    let world = world();
    let mut ids: Vec<String> = (0..5).map(|_| world.create(of("alice")).session.id).collect();
    world.create(of("bob"));
    let ended = world.create(NewSession { idle_seconds: 60, ..of("alice") });
    world.clock.advance_seconds(60);
    let mut listed = Vec::new();
    let mut request = PageRequest::first(2);
    loop {
        let page = block_on(world.sessions.list("alice", &request, world.now())).unwrap();
        listed.extend(page.sessions.into_iter().map(|session| session.id));
        let Some(cursor) = page.cursor else { break };
        request = PageRequest::first(2).after(cursor);
    }
    ids.sort();
    assert_eq!(listed, ids);
    assert!(!listed.contains(&ended.session.id));
}

proptest! {
    #[test]
    fn no_token_outlives_its_limits(
        idle in 0_u64..5000, absolute in 0_u64..5000, steps in proptest::collection::vec((0_u64..700, any::<bool>()), 1..30),
    ) {
        let world = world();
        let issued = world.create(NewSession { idle_seconds: idle, absolute_seconds: absolute, ..of("alice") });
        let (idle, absolute) = (idle.max(60), absolute.max(60));
        let mut used = START;
        for (seconds, refresh) in steps {
            world.clock.advance_seconds(seconds);
            let now = world.now();
            let over = now >= START.plus_seconds(absolute) || now >= used.plus_seconds(idle);
            let verdict = if refresh { world.refresh(&issued) } else { world.verify(&issued) };
            if over {
                prop_assert!(matches!(verdict, Verdict::Refused(_)), "{now:?} accepted");
            }
            if let Verdict::Valid(session) = verdict {
                prop_assert!(session.expires_at > now);
                if refresh { used = now; }
            }
        }
    }

    #[test]
    fn no_text_panics_or_verifies(text in ".{0,100}") {
        let verdict = block_on(world().sessions.verify(&text, START)).unwrap();
        prop_assert_eq!(verdict, refused(Refusal::Malformed));
    }
}

#[test]
fn the_defaults_are_a_day_and_a_week() {
    assert_eq!((IDLE_SECONDS_DEFAULT, kv_patterns::patterns::session::ABSOLUTE_SECONDS_DEFAULT), (86_400, 604_800));
}
