//! Hints: values that some replicas did not take, kept under names of their own until all have them.
//!
//! A hint's name holds the value's stamp, so no write or repair ever covers it; its metadata holds the key. It lies in the replicas that took the
//! value, and is dropped only after every replica showed this value or a newer one.

use super::{Outcome, Replicas, Value, read_copy};
use crate::clock::Clock;
use crate::kv::{self, PageKey, PageRequest, Prefix, Read, Store, Write, position};

/// How long a hint is kept, in seconds (7 days).
const HINT_SECONDS: u64 = 7 * 86_400;

/// How far to go in one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandOff {
    /// Hints at most, 1 to 100.
    pub budget: u32,
    /// Where the call before ended.
    pub cursor: Option<String>,
}

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOff {
    /// Hints whose value every replica has now.
    pub done: u32,
    /// Hints that stay, because a replica still fails or its copy cannot be told yet.
    pub kept: u32,
    /// Where the next call goes on; nothing at the end.
    pub cursor: Option<String>,
}

impl<S: Store + Clone + 'static, C: Clock + Clone + 'static> Replicas<S, C> {
    /// Leaves a hint in the replicas that took `value`. Whether one of them has it.
    pub(super) async fn leave_hint(&self, key: &str, value: &Value, outcomes: &[Outcome]) -> bool {
        let Ok(bytes) = value.encode() else { return false };
        let hint = self.hints.key(&[key, &value.stamp.to_string()]);
        let write = Write::expiring_in(HINT_SECONDS).with_metadata(serde_json::Value::from(key).to_string());
        for (replica, _) in self.members.iter().zip(outcomes).filter(|(_, outcome)| outcome.failure.is_none()) {
            if replica.store.put(&hint, &bytes, write.clone()).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Carries hinted values to the replicas that miss them, as far as the budget goes: for a timer. `replica` is the
    /// index of the one whose hints are looked through. One list; per hint one read, and one read and at most one write
    /// per replica.
    ///
    /// # Errors
    ///
    /// The list failed.
    pub async fn hand_off(&self, replica: usize, order: &HandOff) -> Result<HandedOff, kv::Error> {
        let Some(holder) = self.members.get(replica) else { return Ok(HandedOff::default()) };
        let prefix = self.hints.all();
        let request = PageRequest { limit: order.budget.clamp(1, 100), cursor: order.cursor.clone() };
        let page = holder.store.list(&prefix, &request).await?;
        let mut handed = HandedOff { cursor: page.cursor, ..HandedOff::default() };
        for listed in &page.keys {
            match self.hand_off_one(&holder.store, &prefix, listed).await {
                Ok(true) => handed.done += 1,
                Ok(false) | Err(_) => handed.kept += 1,
            }
        }
        Ok(handed)
    }

    /// [`Replicas::hand_off`] of `budget` hints of each replica in turn, each from where its last turn ended: for a timer.
    /// One failure per replica whose hints could not be looked through; the others' turns are not affected.
    pub async fn hand_off_all(&self, budget: u32) -> (HandedOff, Vec<kv::Error>) {
        let (mut all, mut failures) = (HandedOff::default(), Vec::new());
        for (index, holder) in self.members.iter().enumerate() {
            let outcome = position::resume(&holder.store, &self.progress, async |cursor| {
                let mut handed = self.hand_off(index, &HandOff { budget, cursor }).await?;
                let cursor = handed.cursor.take();
                Ok((handed, cursor))
            });
            match outcome.await {
                Ok(handed) => (all.done, all.kept) = (all.done + handed.done, all.kept + handed.kept),
                Err(error) => failures.push(error),
            }
        }
        (all, failures)
    }

    /// Whether every replica showed the hinted value or a newer one, so that the hint could be dropped.
    async fn hand_off_one(&self, store: &S, prefix: &Prefix, listed: &PageKey) -> Result<bool, kv::Error> {
        let key = listed.metadata.as_deref().and_then(|text| serde_json::from_slice::<String>(text.as_bytes()).ok());
        let (Some(hint), Some(key)) = (prefix.key(&listed.name), key) else { return Ok(false) };
        let Some(value) = read_copy(store, &hint, Read::IMMUTABLE).await? else { return Ok(false) };
        let mut everywhere = true;
        for replica in &self.members {
            let shown = read_copy(&replica.store, &self.values.key(&[&key]), Read::FRESHEST).await;
            if !matches!(&shown, Ok(Some(copy)) if copy.stamp >= value.stamp) {
                everywhere = false;
                // One that fails keeps the hint alive, and must not keep the others from their value.
                let _ = self.bring_up(replica, &key, &value).await;
            }
        }
        if everywhere {
            store.delete(&hint).await?;
        }
        Ok(everywhere)
    }
}
