//! What the cron trigger does, tenant by tenant: folds the finished hours of approximate counters, hands over replicated
//! values that a replica missed, and sweeps documents of older versions.
//!
//! One run is bounded by the operations that the platform allows an invocation. Which chore comes first changes with
//! each run, and which tenant with the hour, so that a large one keeps no other from its turn. What fails is told to
//! the operator, and the next chore is begun all the same.

use worker::Env;

use super::{AppStore, replica, store_once};
use crate::clock::{Clock, Timestamp};
use crate::kv::{Meter, Tenant};
use crate::patterns::counter::fold;
use crate::patterns::document::Collections;
use crate::patterns::replica::Replicas;
use crate::recent::Recent;
use crate::worker::clock::WorkerClock;
use crate::worker::config;

/// Operations after which nothing further is begun: one chore of one tenant takes at most some 750, and an invocation has
/// 1000. Source: <https://developers.cloudflare.com/kv/platform/limits/>
const OPERATIONS_MAX: u32 = 250;
/// Time between two runs, in seconds, as in wrangler.toml.
const TURN_SECONDS: u64 = 1200;
/// Hints looked at in one run per replica and tenant: each takes up to eight operations.
const HINTS_MAX: u32 = 25;
/// Documents and copies looked at in one run per tenant: each takes up to two operations.
const DOCUMENTS_MAX: u32 = 250;

/// One kind of upkeep.
#[derive(Clone, Copy, Debug)]
enum Chore {
    FoldCounters,
    HandOffReplicas,
    SweepDocuments,
}

/// One run of the timer.
struct Turn<'a> {
    env: &'a Env,
    meter: Meter,
    now: Timestamp,
}

/// Does what is due.
pub async fn run(env: &Env) {
    let turn = Turn { env, meter: Meter::default(), now: WorkerClock.now() };
    let config = config::current(env);
    let mut tenants: Vec<&Tenant> = config.tokens.iter().flatten().map(|token| &token.tenant).collect();
    tenants.sort_unstable_by_key(|tenant| tenant.id());
    tenants.dedup_by_key(|tenant| tenant.id());
    rotate(&mut tenants, turn.now.seconds() / 3600);
    let mut chores = [Chore::FoldCounters, Chore::HandOffReplicas, Chore::SweepDocuments];
    rotate(&mut chores, turn.now.seconds() / TURN_SECONDS);
    for chore in chores {
        for tenant in &tenants {
            if turn.is_spent() {
                return;
            }
            turn.run(chore, tenant).await;
        }
    }
}

/// Lets another one be the first each time.
fn rotate<T>(items: &mut [T], count: u64) {
    let first = usize::try_from(count).unwrap_or_default().checked_rem(items.len()).unwrap_or_default();
    items.rotate_left(first);
}

impl Turn<'_> {
    fn is_spent(&self) -> bool {
        self.meter.reads() + self.meter.writes() + self.meter.deletes() + self.meter.lists() > OPERATIONS_MAX
    }

    fn store(&self, binding: &'static str) -> Option<AppStore> {
        store_once(self.env, binding, self.meter.clone())
    }

    async fn run(&self, chore: Chore, tenant: &Tenant) {
        match chore {
            Chore::FoldCounters => self.fold(tenant).await,
            Chore::HandOffReplicas => self.hand_off(tenant).await,
            Chore::SweepDocuments => self.sweep(tenant).await,
        }
    }

    async fn fold(&self, tenant: &Tenant) {
        let Some(store) = self.store("COUNTERS") else { return };
        match fold::resume(&store, tenant, self.now).await {
            Ok(report) if report.failed > 0 => {
                worker::console_error!("{} counters of a tenant could not be folded", report.failed);
            }
            Ok(_) => {}
            Err(error) => worker::console_error!("a tenant's counters could not be folded: {error}"),
        }
    }

    async fn hand_off(&self, tenant: &Tenant) {
        let Some(members) = replica::members(|binding| self.store(binding).ok_or(())).ok() else { return };
        let (_, failures) = Replicas::new(members, WorkerClock, tenant).hand_off_all(HINTS_MAX).await;
        for failure in failures {
            worker::console_error!("the hints of a replica could not be handed over: {failure}");
        }
    }

    async fn sweep(&self, tenant: &Tenant) {
        let Some(store) = self.store("CONFIG") else { return };
        match Collections::new(store, tenant, Recent::new(1)).sweep_all(DOCUMENTS_MAX, self.now).await {
            Ok(swept) if swept.failed > 0 || swept.collections_failed > 0 => worker::console_error!(
                "{} documents and {} collections of a tenant could not be migrated",
                swept.failed,
                swept.collections_failed
            ),
            Ok(_) => {}
            Err(error) => worker::console_error!("a tenant's documents could not be swept: {error}"),
        }
    }
}
