//! Goal: every store behaves as the contract says. Method: one suite, run over the memory store here, over the
//! simulator without faults in `sim`, and by the same cases over real KV in `tests/worker/kv_contract.test.ts`.

mod suite;

use kv_patterns::clock::ManualClock;
use kv_patterns::kv::Store;

use crate::support::{block_on, store};

/// The whole contract over an empty `store`; `pass` moves its clock by so many seconds.
pub(crate) async fn contract(store: &impl Store, pass: impl Fn(u64)) {
    for case in suite::CASES {
        suite::run(case, store, &pass).await;
    }
    suite::expiry_takes_values_away(store, &pass).await;
}

#[test]
fn the_memory_store_keeps_the_contract() {
    let (clock, store): (ManualClock, _) = store();
    block_on(contract(&store, |seconds| clock.advance_seconds(seconds)));
}
