//! Goal: the checker of linearizability finds what it is there for, and accuses nobody else. Method: histories by hand,
//! and every short history of a register compared with all orders tried one by one.

use kv_patterns::clock::Timestamp;
use kv_patterns::sim::linear::{Operation, is_linearizable};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum What {
    Write(u8),
    Read(u8),
}

fn operation(began: u64, ended: u64, what: What) -> Operation<What> {
    let (began, ended) = (Timestamp::from_millis(began), Timestamp::from_millis(ended));
    Operation { began, ended, is_certain: true, what }
}

fn unsure(began: u64, ended: u64, what: What) -> Operation<What> {
    Operation { is_certain: false, ..operation(began, ended, what) }
}

fn step(value: u8, operation: &Operation<What>) -> Option<u8> {
    match operation.what {
        What::Write(new) => Some(new),
        What::Read(seen) => (seen == value).then_some(value),
    }
}

fn allows(operations: &[Operation<What>]) -> bool {
    is_linearizable(operations, 0, |value, operation| step(*value, operation))
}

#[test]
fn answers_must_follow_real_time() {
    use What::{Read, Write};
    assert!(allows(&[]));
    assert!(allows(&[operation(0, 1, Write(1)), operation(2, 3, Read(1))]));
    assert!(!allows(&[operation(0, 1, Write(1)), operation(2, 3, Read(0))]), "a write was lost");
    assert!(allows(&[operation(0, 5, Write(1)), operation(1, 2, Read(0)), operation(3, 4, Read(1))]));
    assert!(!allows(&[operation(0, 5, Write(1)), operation(1, 2, Read(1)), operation(3, 4, Read(0))]), "went back");
    assert!(!allows(&[operation(0, 1, Read(7))]), "nobody wrote that");
}

#[test]
fn what_failed_happened_in_its_time_or_never() {
    use What::{Read, Write};
    let lost = unsure(2, 3, Write(9));
    assert!(allows(&[lost.clone(), operation(4, 5, Read(9))]));
    assert!(allows(&[lost.clone(), operation(4, 5, Read(0))]));
    assert!(!allows(&[lost.clone(), operation(4, 5, Read(0)), operation(6, 7, Read(9))]), "not later");
    assert!(!allows(&[operation(0, 1, Read(9)), lost]), "not before");
}

/// Every order of the certain operations and any part of the others, tried one by one.
fn tried_out(rest: &[Operation<What>], value: u8) -> bool {
    if rest.iter().all(|operation| !operation.is_certain) {
        return true;
    }
    (0..rest.len()).any(|place| {
        let mut others = rest.to_vec();
        let chosen = others.remove(place);
        // What is left and uncertain may also never happen; what is certain must not have ended before.
        let is_first = others.iter().all(|other| !other.is_certain || other.ended >= chosen.began);
        others.retain(|other| other.is_certain || other.ended >= chosen.began);
        is_first && step(value, &chosen).is_some_and(|next| tried_out(&others, next))
    })
}

proptest! {
    #[test]
    fn it_finds_what_trying_all_orders_finds(drawn in vec((0..12_u64, 0..6_u64, 0..3_u8, any::<bool>(), 0..5_u8), 0..7)) {
        let operations: Vec<_> = drawn
            .into_iter()
            .map(|(began, takes, value, is_write, luck)| {
                let what = if is_write { What::Write(value) } else { What::Read(value) };
                if luck == 0 { unsure(began, began + takes, what) } else { operation(began, began + takes, what) }
            })
            .collect();
        prop_assert_eq!(allows(&operations), tried_out(&operations, 0));
    }
}
