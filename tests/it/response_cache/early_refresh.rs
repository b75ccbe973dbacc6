//! XFetch: how likely a fresh response is refreshed early, and how many requests do it at once.

use kv_patterns::patterns::response_cache::freshness::{Freshness, refreshes_early, smoothed_cost};
use kv_patterns::random::{Random, SeededRandom};

use super::world::{From, World};

fn life(lifetime_millis: u64, remaining_millis: u64) -> Freshness {
    Freshness {
        lifetime_millis,
        age_millis: lifetime_millis - remaining_millis,
        stale_while_revalidate_millis: 0,
        stale_if_error_millis: 0,
        stale_if_unreachable_millis: 0,
        forbids_stale: false,
    }
}

/// The share of 200,000 requests that refresh.
fn share(life: &Freshness, cost_millis: u64, beta: f64) -> f64 {
    let random = SeededRandom::new(7);
    let early = (0..200_000).filter(|_| refreshes_early(life, cost_millis, beta, random.unit())).count();
    f64::from(u32::try_from(early).unwrap()) / 200_000.0
}

#[test]
fn the_probability_is_exponential_in_what_is_left() {
    for (remaining, cost, beta) in
        [(1000, 1000, 1.0), (3000, 1000, 1.0), (500, 1000, 2.0), (1000, 500, 1.0), (100, 0, 1.0)]
    {
        let delta = f64::from(u32::try_from(cost.max(100)).unwrap());
        let expected = (-f64::from(u32::try_from(remaining).unwrap()) / (beta * delta)).exp();
        let found = share(&life(300_000, remaining), cost, beta);
        assert!((found - expected).abs() < 0.01, "{remaining} {cost} {beta}: {found} instead of {expected}");
    }
}

#[test]
fn the_head_start_is_at_most_a_quarter_of_the_lifetime() {
    assert!(share(&life(10_000, 2_501), 60_000, 100.0) < f64::EPSILON);
    assert!(share(&life(10_000, 2_500), 60_000, 100.0) > 0.9);
    assert!(share(&life(300_000, 1), 1000, 0.0) < f64::EPSILON, "beta 0 switches it off");
    assert!(!refreshes_early(&life(300_000, 300_000), 1000, 1.0, 0.0), "a draw of 0 is no infinity");
}

#[test]
fn whatever_the_traffic_about_e_requests_refresh_at_beta_1() {
    for per_second in [10_u64, 100, 1000] {
        let random = SeededRandom::new(per_second);
        let rounds = 300;
        let mut refreshes = 0_u32;
        for _ in 0..rounds {
            // One expiry: requests arrive evenly; the first refresh takes a second, and until then others start more.
            let mut first: Option<u64> = None;
            for request in 0..60 * per_second {
                let now = 240_000 + request * 1000 / per_second;
                if first.is_some_and(|first| now >= first + 1000) {
                    break;
                }
                if refreshes_early(&life(300_000, 300_000 - now), 1000, 1.0, random.unit()) {
                    first = first.or(Some(now));
                    refreshes += 1;
                }
            }
        }
        let mean = f64::from(refreshes) / f64::from(rounds);
        assert!((2.3..3.1).contains(&mean), "{per_second}/s: {mean}");
    }
}

#[test]
fn an_early_refresh_answers_from_the_cache_and_asks_the_origin_besides() {
    let mut world = World::new();
    world.response_delay_millis = 1000;
    world.origin(200, &[("Cache-Control", "max-age=100")], "old").get(&[]);
    world.wait(97);
    world.unit = 0.5;
    assert_eq!(world.get(&[]).from, From::Cache);
    assert_eq!(world.origin_saw.len(), 1, "0.5 is not early with two seconds left");
    world.unit = 0.99;
    assert_eq!(world.origin(200, &[("Cache-Control", "max-age=100")], "new").get(&[]).text(), "old");
    assert_eq!(world.origin_saw.len(), 2);
    world.unit = 0.0;
    assert_eq!(world.get(&[]).text(), "new");
}

#[test]
fn the_cost_is_smoothed() {
    assert_eq!(smoothed_cost(1000, 2000), 1250);
}
