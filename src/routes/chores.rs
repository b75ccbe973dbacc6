//! What the cron trigger does: it folds the finished hours of approximate counters, tenant by tenant.
//!
//! One run is bounded by the operations that the platform allows an invocation; the tenant that comes first changes with
//! the hour, so that a large one keeps no other from its turn.

use worker::Env;

use super::store_once;
use crate::clock::Clock;
use crate::kv::{Meter, Tenant};
use crate::patterns::counter::fold;
use crate::worker::clock::WorkerClock;
use crate::worker::config;

/// Operations after which no further tenant is begun: one tenant takes at most some 750, and an invocation has 1000.
/// Source: <https://developers.cloudflare.com/kv/platform/limits/>
const OPERATIONS_MAX: u32 = 250;

/// Does what is due.
pub async fn run(env: &Env) {
    let (meter, now) = (Meter::default(), WorkerClock.now());
    let Some(store) = store_once(env, "COUNTERS", meter.clone()) else { return };
    let config = config::current(env);
    let mut tenants: Vec<&Tenant> = config.tokens.iter().flatten().map(|token| &token.tenant).collect();
    tenants.sort_unstable_by_key(|tenant| tenant.id());
    tenants.dedup_by_key(|tenant| tenant.id());
    let hour = usize::try_from(now.seconds() / 3600).unwrap_or_default();
    let first = hour.checked_rem(tenants.len()).unwrap_or_default();
    tenants.rotate_left(first);
    for tenant in tenants {
        match fold::resume(&store, tenant, now).await {
            Ok(report) if report.failed > 0 => {
                worker::console_error!("{} counters of a tenant could not be folded", report.failed);
            }
            Ok(_) => {}
            Err(error) => worker::console_error!("a tenant's counters could not be folded: {error}"),
        }
        if meter.reads() + meter.writes() + meter.deletes() + meter.lists() > OPERATIONS_MAX {
            return;
        }
    }
}
