//! Experiments: assignment that moves only whom it must, and statistics equal to reference values.

use kv_patterns::patterns::experiment::assign::{
    Allocation, AssignError, LAYER_SLOTS, MAX_VARIANTS, MAX_WEIGHT, Slots, Variant,
};
use kv_patterns::patterns::experiment::stats::{
    Arm, Interval, probability_to_beat, sample_ratio, sequential, sequential_sample_ratio, two_proportion_z, uplift,
};
use proptest::prelude::*;

type Weights = &'static [(&'static str, u64)];

fn allocation(salt: &str, weights: &[(&str, u64)]) -> Allocation {
    let variants = weights.iter().map(|(name, weight)| Variant { name: (*name).to_owned(), weight: *weight });
    Allocation::new(salt, variants.collect()).unwrap()
}

fn users(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|user| format!("user-{user}"))
}

// Assignment.

#[test]
fn assignments_have_published_values() {
    let test = allocation("checkout", &[("control", 50), ("blue", 30), ("green", 20)]);
    let assigned: Vec<_> = users(8).map(|user| test.assign(&user).to_owned()).collect();
    assert_eq!(assigned, ["control", "control", "green", "green", "blue", "green", "blue", "green"]);
}

#[test]
fn shares_meet_the_weights() {
    let test = allocation("s", &[("a", 1), ("b", 4), ("c", 5), ("off", 0)]);
    let count = |name: &str| users(100_000).filter(|user| test.assign(user) == name).count();
    for name in ["a", "b", "c"] {
        let share = f64::from(u32::try_from(count(name)).unwrap()) / 100_000.0;
        assert!((share - test.share(name)).abs() < 0.006, "{name}: {share}");
    }
    assert_eq!(count("off"), 0);
}

#[test]
fn half_a_percent_is_half_a_percent() {
    let test = allocation("s", &[("a", 5), ("b", 995)]);
    let taken = users(200_000).filter(|user| test.assign(user) == "a").count();
    assert!((900..1100).contains(&taken), "{taken}");
}

#[test]
fn two_experiments_are_independent() {
    let (one, two) = (allocation("one", &[("a", 1), ("b", 1)]), allocation("two", &[("a", 1), ("b", 1)]));
    let both = users(40_000).filter(|user| one.assign(user) == "a" && two.assign(user) == "a").count();
    assert!((9_500..10_500).contains(&both), "{both}");
}

#[test]
fn raising_a_from_ten_to_twenty_percent_moves_ten_percent_all_of_them_into_a() {
    let before = allocation("s", &[("a", 10), ("b", 45), ("c", 45)]);
    let after = allocation("s", &[("a", 20), ("b", 40), ("c", 40)]);
    let mut moved = 0;
    for user in users(100_000) {
        if before.assign(&user) != after.assign(&user) {
            assert_eq!(after.assign(&user), "a", "{user} moved between the others");
            moved += 1;
        }
    }
    assert!((9_700..10_300).contains(&moved), "{moved}");
    assert!((before.moved_share(&after) - 0.1).abs() < 1e-12);
}

#[test]
fn the_share_that_moves_is_exact_for_any_change() {
    let cases: [(Weights, Weights); 5] = [
        (&[("a", 10), ("b", 45), ("c", 45)], &[("a", 20), ("b", 45), ("c", 35)]),
        (&[("a", 1), ("b", 1)], &[("a", 1), ("b", 1), ("c", 1)]),
        (&[("a", 1), ("b", 1), ("c", 1)], &[("a", 1), ("b", 1)]),
        (&[("a", 1), ("b", 9)], &[("a", 9), ("b", 1)]),
        (&[("a", 1), ("b", 2)], &[("c", 1), ("d", 2)]),
    ];
    for (before, after) in cases {
        let (before, after) = (allocation("s", before), allocation("s", after));
        let moved = users(100_000).filter(|user| before.assign(user) != after.assign(user)).count();
        let share = f64::from(u32::try_from(moved).unwrap()) / 100_000.0;
        assert!((share - before.moved_share(&after)).abs() < 0.006, "{before:?} {after:?}: {share}");
    }
    let (before, after) = (allocation("s", &[("a", 3), ("b", 1)]), allocation("t", &[("a", 3), ("b", 1)]));
    assert!((before.moved_share(&after) - 0.375).abs() < 1e-12, "another salt shuffles everybody");
}

#[test]
fn the_same_shares_in_other_numbers_move_nobody() {
    let before = allocation("s", &[("a", 1), ("b", 2), ("c", 0)]);
    let after = allocation("s", &[("b", 200_000_002), ("a", 100_000_001)]);
    assert!(before.moved_share(&after).to_bits() == 0);
}

#[test]
fn impossible_allocations_are_refused() {
    let refused = |salt: &str, weights: &[(&str, u64)]| {
        let variants = weights.iter().map(|(name, weight)| Variant { name: (*name).to_owned(), weight: *weight });
        Allocation::new(salt, variants.collect()).unwrap_err()
    };
    assert_eq!(refused("s", &[]), AssignError::VariantCount);
    assert_eq!(refused("s", &[("a", 1); MAX_VARIANTS + 1]), AssignError::VariantCount);
    assert_eq!(refused("s", &[("a", 1), ("a", 2)]), AssignError::DuplicateVariant("a".into()));
    assert_eq!(refused("s", &[("", 1)]), AssignError::Name);
    assert_eq!(refused("s", &[("a\u{1f}b", 1)]), AssignError::Name);
    assert_eq!(refused("", &[("a", 1)]), AssignError::Name);
    assert_eq!(refused("s", &[("a", MAX_WEIGHT + 1)]), AssignError::Weight);
    assert_eq!(refused("s", &[("a", 0), ("b", 0)]), AssignError::ZeroWeights);
}

#[test]
fn slots_of_a_layer_share_no_user_unless_they_overlap() {
    let slots = |start, end| Slots::new("layer", start, end).unwrap();
    let (a, b, rest) = (slots(0, 500_000), slots(500_000, 900_000), slots(900_000, LAYER_SLOTS));
    let count = |slots: &Slots| users(50_000).filter(|user| slots.hold(user)).count();
    assert_eq!(count(&a) + count(&b) + count(&rest), 50_000);
    assert!((24_400..25_600).contains(&count(&a)) && (19_400..20_600).contains(&count(&b)));
    assert!(!a.overlap(&b) && slots(499_999, 500_001).overlap(&a) && slots(499_999, 500_001).overlap(&b));
    let other = Slots::new("other", 0, LAYER_SLOTS).unwrap();
    assert!(!other.overlap(&a) && (other.shared_with(&a) - 0.5).abs() < 1e-12);
    assert!((slots(0, 600_000).shared_with(&b) - 0.1).abs() < 1e-12 && a.shared_with(&b).abs() < 1e-12);
    assert_eq!(Slots::new("l", 5, 5), Err(AssignError::Slots));
    assert_eq!(Slots::new("l", 0, LAYER_SLOTS + 1), Err(AssignError::Slots));
    assert_eq!(Slots::new("", 0, 1), Err(AssignError::Name));
}

#[test]
fn being_in_a_layer_says_nothing_about_the_variant() {
    // Also when layer and salt have the same name.
    let slots = Slots::new("x", 0, 500_000).unwrap();
    let test = allocation("x", &[("a", 1), ("b", 1)]);
    let inside: Vec<_> = users(40_000).filter(|user| slots.hold(user)).collect();
    let a = inside.iter().filter(|user| test.assign(user) == "a").count();
    assert!(a.abs_diff(inside.len() / 2) < 400, "{a} of {}", inside.len());
}

proptest! {
    #[test]
    fn raising_one_weight_moves_nobody_between_the_others(
        weights in prop::collection::vec(0_u64..1000, 2..6), raised in 0_usize..6, by in 1_u64..1000, user in ".{1,16}",
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let raised = raised % weights.len();
        let mut pairs: Vec<_> = names.into_iter().zip(weights).collect();
        prop_assume!(pairs.iter().any(|(_, weight)| *weight > 0));
        let before = allocation("s", &pairs);
        pairs[raised].1 += by;
        let after = allocation("s", &pairs);
        let (from, to) = (before.assign(&user), after.assign(&user));
        prop_assert!(from == to || to == pairs[raised].0);
        // The least that must move is what the raised variant gains.
        let gained = after.share(pairs[raised].0) - before.share(pairs[raised].0);
        prop_assert!((before.moved_share(&after) - gained).abs() < 1e-12);
        // Back again: nobody moves between the others either.
        prop_assert!((after.moved_share(&before) - gained).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_variants_does_not_matter(user in ".{1,16}", a in 1_u64..100, b in 1_u64..100, c in 1_u64..100) {
        let one = allocation("s", &[("a", a), ("b", b), ("c", c)]);
        let two = allocation("s", &[("c", c), ("a", a), ("b", b)]);
        prop_assert_eq!(one.assign(&user), two.assign(&user));
    }

    #[test]
    fn a_share_that_moves_is_a_share(a in prop::collection::vec(0_u64..=MAX_WEIGHT, 3), b in prop::collection::vec(0_u64..=MAX_WEIGHT, 3)) {
        prop_assume!(a.iter().sum::<u64>() > 0 && b.iter().sum::<u64>() > 0);
        let of = |weights: &[u64]| allocation("s", &[("a", weights[0]), ("b", weights[1]), ("c", weights[2])]);
        let moved = of(&a).moved_share(&of(&b));
        let least: f64 = ["a", "b", "c"].iter().map(|name| (of(&a).share(name) - of(&b).share(name)).max(0.0)).sum();
        prop_assert!(moved <= 1.0 && moved >= least - 1e-12, "{} {}", moved, least);
    }
}

// Statistics. Reference values: gbstats 0.8.0 and scipy where their digits are given in full, otherwise the formulas
// in 30 digits with mpmath 1.4.

const CONTROL: Arm = Arm { exposures: 10_000, conversions: 1_000 };
const TREATMENT: Arm = Arm { exposures: 10_000, conversions: 1_100 };

#[track_caller]
fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
}

#[track_caller]
fn close_interval(interval: Interval, low: f64, high: f64) {
    close(interval.low, low);
    close(interval.high, high);
}

fn arm(conversions: u64, exposures: u64) -> Arm {
    Arm { exposures, conversions }
}

#[test]
fn wilson_intervals() {
    close_interval(CONTROL.wilson_interval(), 0.094_272_830_170_630_46, 0.106_034_368_525_910_8);
    close_interval(arm(0, 10).wilson_interval(), 0.0, 0.277_532_799_862_889_3);
    close_interval(arm(10, 10).wilson_interval(), 0.722_467_200_137_110_7, 1.0);
    close_interval(arm(1, 3).wilson_interval(), 0.061_491_944_720_396_23, 0.792_340_399_197_952_3);
    close_interval(arm(0, 0).wilson_interval(), 0.0, 1.0);
}

#[test]
fn the_uplift_and_its_interval() {
    let uplift = uplift(CONTROL, TREATMENT).unwrap();
    close(uplift.value, 0.1);
    close_interval(uplift.interval.unwrap(), 0.010_870_112_525_621_1, 0.189_129_887_474_379);
}

#[test]
fn the_pooled_z_test() {
    let test = two_proportion_z(CONTROL, TREATMENT).unwrap();
    close(test.statistic, 2.306_634_773_817_01);
    close(test.p_value, 0.021_075_189_273_797_8);
}

#[test]
fn the_always_valid_test() {
    let test = sequential(CONTROL, TREATMENT).unwrap();
    close(test.p_value, 0.549_037_944_345_207);
    close_interval(test.interval, -0.042_206_353_762_085_4, 0.242_206_353_762_085);
}

#[test]
fn the_probability_to_beat_control() {
    close(probability_to_beat(CONTROL, TREATMENT), 0.989_457_354_431_714);
    close(probability_to_beat(TREATMENT, CONTROL), 1.0 - 0.989_457_354_431_714);
    close(probability_to_beat(arm(1, 9), arm(3, 9)), 0.848_297_213_622_291);
    close(probability_to_beat(arm(0, 0), arm(0, 0)), 0.5);
    close(probability_to_beat(arm(0, 10), arm(10, 10)), 0.999_998_582_428_923);
    close(probability_to_beat(CONTROL, CONTROL), 0.5);
}

#[test]
fn the_exact_and_the_normal_probability_meet() {
    let large = |conversions| probability_to_beat(arm(50_000_000, 500_000_000), arm(conversions, 499_999_999));
    let larger = |conversions| probability_to_beat(arm(50_000_000, 500_000_000), arm(conversions, 500_000_001));
    for conversions in [49_990_000, 50_000_000, 50_005_000] {
        assert!((large(conversions) - larger(conversions)).abs() < 1e-4);
    }
}

#[test]
fn the_sample_ratio_test() {
    close(sample_ratio(&[5000, 5300], &[1, 1]).unwrap().p_value, 0.003_116_693_839_866_867);
    close(sample_ratio(&[100, 120, 90, 95], &[1, 1, 1, 1]).unwrap().statistic, 5.123_456_790_123_457);
    close(sample_ratio(&[100, 120, 90, 95], &[1, 1, 1, 1]).unwrap().p_value, 0.162_977_052_113_130_96);
    close(sample_ratio(&[5000, 2600, 2400], &[2, 1, 1]).unwrap().p_value, 0.018_315_638_888_734_18);
    close(sample_ratio(&[10, 0], &[1, 1]).unwrap().p_value, 0.001_565_402_258_002_549_7);
    assert_eq!(
        sample_ratio(&[5000, 0, 5300], &[1, 0, 1]),
        sample_ratio(&[5000, 5300], &[1, 1]),
        "weight zero is no degree of freedom"
    );
    close(sample_ratio(&[5000, 1, 5000], &[1, 0, 1]).unwrap().p_value, 0.0);
    assert_eq!(sample_ratio(&[0, 0], &[1, 1]), None);
    assert_eq!(sample_ratio(&[10], &[1]), None);
}

#[test]
fn the_anytime_valid_sample_ratio_test() {
    close(sequential_sample_ratio(&[5000, 5300], &[1, 1]).unwrap(), 0.155_220_576_656_256_6);
    close(sequential_sample_ratio(&[5000, 5000], &[1, 1]).unwrap(), 1.0);
    close(sequential_sample_ratio(&[5000, 2600, 2400], &[2, 1, 1]).unwrap(), 0.270_590_484_730_582_1);
    assert!(sequential_sample_ratio(&[500_000, 510_000], &[1, 1]).unwrap() < 1e-20);
    close(sequential_sample_ratio(&[1, 1, 0], &[1, 0, 1]).unwrap(), 0.0);
}

#[test]
fn questions_without_an_answer_have_none() {
    assert_eq!(two_proportion_z(arm(0, 0), CONTROL), None);
    assert_eq!(two_proportion_z(arm(0, 10), arm(0, 10)), None);
    assert_eq!(uplift(arm(0, 10), arm(1, 10)), None);
    let none_converted = uplift(arm(3, 52), arm(0, 48)).unwrap();
    close(none_converted.value, -1.0);
    assert_eq!(none_converted.interval, None, "without a conversion nothing says how sure that is");
    assert_eq!(sequential(arm(10, 10), arm(10, 10)), None);
    assert_eq!(arm(20, 10).rate(), Some(1.0), "a lagging exposure counter");
}

/// Numbers that look random and never change (splitmix64).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap()) / f64::from(u32::MAX)
}

#[test]
fn peeking_a_hundred_times_at_equal_arms_alarms_at_most_five_percent_of_the_time() {
    let (mut naive, mut valid, mut ratio, runs) = (0, 0, 0, 400);
    let mut state = 1;
    for _ in 0..runs {
        let mut arms = [Arm::default(); 2];
        let mut alarms = (false, false, false);
        for _ in 0..100 {
            for _ in 0..200 {
                let arm = &mut arms[usize::from(uniform(&mut state) < 0.5)];
                arm.exposures += 1;
                arm.conversions += u64::from(uniform(&mut state) < 0.2);
            }
            let [a, b] = arms;
            alarms.0 |= two_proportion_z(a, b).is_some_and(|test| test.p_value < 0.05);
            alarms.1 |= sequential(a, b).is_some_and(|test| test.p_value < 0.05);
            alarms.2 |= sequential_sample_ratio(&[a.exposures, b.exposures], &[1, 1]).unwrap() < 0.05;
        }
        naive += u32::from(alarms.0);
        valid += u32::from(alarms.1);
        ratio += u32::from(alarms.2);
    }
    assert!(naive * 100 > runs * 25, "the naive test alarms often: {naive} of {runs}");
    assert!(valid * 100 <= runs * 5, "{valid} of {runs}");
    assert!(ratio * 100 <= runs * 5, "{ratio} of {runs}");
}

proptest! {
    #[test]
    fn statistics_stay_in_their_ranges(n in 0_u64..2_000_000, c in 0_u64..2_000_000, m in 0_u64..2_000_000, d in 0_u64..2_000_000) {
        let (a, b) = (arm(c, n), arm(d, m));
        let probability = probability_to_beat(a, b);
        prop_assert!((0.0..=1.0).contains(&probability));
        prop_assert!((probability + probability_to_beat(b, a) - 1.0).abs() < 1e-6);
        let p_values = [two_proportion_z(a, b).map(|t| t.p_value), sequential(a, b).map(|t| t.p_value), sample_ratio(&[n, m], &[1, 1]).map(|t| t.p_value), sequential_sample_ratio(&[n, m], &[1, 1])];
        prop_assert!(p_values.iter().flatten().all(|p| (0.0..=1.0).contains(p)), "{:?}", p_values);
        let uplifts = [uplift(a, b).and_then(|uplift| uplift.interval), sequential(a, b).map(|test| test.interval)];
        prop_assert!(uplifts.iter().flatten().all(|interval| -1.0 <= interval.low && interval.low <= interval.high), "{:?}", uplifts);
        let wilson = a.wilson_interval();
        prop_assert!(0.0 <= wilson.low && wilson.low <= wilson.high && wilson.high <= 1.0);
    }
}
