//! Goal: every store behaves as the contract says. Method: one suite, run over the memory store here, over the
//! simulator without faults in `sim`, and by the same cases over real KV in `tests/worker/kv_contract.test.ts`.

use kv_patterns::clock::ManualClock;
use kv_patterns::kv::{Error, PageRequest, Read, Store, Write, limits};

use crate::support::{block_on, store, tenant};

/// The contract; `pass` moves the store's clock by so many seconds.
pub(crate) async fn contract(store: &impl Store, pass: impl Fn(u64)) {
    absent_keys_are_nothing(store).await;
    values_come_back_byte_for_byte(store).await;
    the_last_write_wins(store, &pass).await;
    deletes_are_idempotent(store, &pass).await;
    bulk_reads_keep_order_and_duplicates(store).await;
    expiry_takes_values_away(store, &pass).await;
    lists_are_ordered_and_paged(store).await;
    limits_are_enforced(store).await;
}

async fn absent_keys_are_nothing(store: &impl Store) {
    let space = tenant("contract").space("absent");
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(None));
    assert_eq!(store.get_many(&[space.key(&["x"])], Read::FRESHEST).await, Ok(vec![None]));
}

async fn values_come_back_byte_for_byte(store: &impl Store) {
    let space = tenant("contract").space("bytes");
    for (name, value) in [("empty", vec![]), ("text", "é\0\n".into()), ("binary", (0..=255).collect::<Vec<u8>>())] {
        store.put(&space.key(&[name]), &value, Write::default()).await.unwrap();
        assert_eq!(store.get(&space.key(&[name]), Read::default()).await, Ok(Some(value)), "{name}");
    }
}

async fn the_last_write_wins(store: &impl Store, pass: &impl Fn(u64)) {
    let key = tenant("contract").space("last").key(&["x"]);
    store.put(&key, b"1", Write::default()).await.unwrap();
    pass(2);
    store.put(&key, b"2", Write::default()).await.unwrap();
    assert_eq!(store.get(&key, Read::default()).await, Ok(Some(b"2".to_vec())));
}

async fn deletes_are_idempotent(store: &impl Store, pass: &impl Fn(u64)) {
    let key = tenant("contract").space("delete").key(&["x"]);
    store.put(&key, b"1", Write::default()).await.unwrap();
    for _ in 0..2 {
        pass(2);
        store.delete(&key).await.unwrap();
        assert_eq!(store.get(&key, Read::default()).await, Ok(None));
    }
}

async fn bulk_reads_keep_order_and_duplicates(store: &impl Store) {
    let space = tenant("contract").space("bulk");
    for name in ["1", "2"] {
        store.put(&space.key(&[name]), name.as_bytes(), Write::default()).await.unwrap();
    }
    let keys = ["2", "absent", "1", "2"].map(|name| space.key(&[name]));
    let found = store.get_many(&keys, Read::default()).await.unwrap();
    assert_eq!(found, [Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec())]);
    let many: Vec<_> = (0..101).map(|i| space.key(&[&i.to_string()])).collect();
    assert!(store.get_many(&many[..100], Read::default()).await.is_ok());
    assert!(matches!(store.get_many(&many, Read::default()).await, Err(Error::Invalid(_))));
    assert!(matches!(store.get_many(&[], Read::default()).await, Err(Error::Invalid(_))));
}

async fn expiry_takes_values_away(store: &impl Store, pass: &impl Fn(u64)) {
    let space = tenant("contract").space("expiry");
    store.put(&space.key(&["x"]), b"1", Write::expiring_in(1)).await.unwrap();
    pass(50);
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(Some(b"1".to_vec())));
    pass(100);
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(None));
    assert!(store.list(&space.all(), &PageRequest::default()).await.unwrap().keys.is_empty());
}

async fn lists_are_ordered_and_paged(store: &impl Store) {
    let space = tenant("contract").space("list");
    for name in ["b", "a", "c", "é", "A"] {
        let write = Write::expiring_in(3600).with_metadata(format!("{{\"n\":\"{name}\"}}"));
        store.put(&space.key(&["in", name]), b"", write).await.unwrap();
    }
    store.put(&space.key(&["inner"]), b"", Write::default()).await.unwrap();
    let prefix = space.below(&["in"]).unwrap();
    let mut names = Vec::new();
    let mut request = PageRequest::first(2);
    for _ in 0..10 {
        let page = store.list(&prefix, &request).await.unwrap();
        assert!(page.keys.len() <= 2);
        for key in &page.keys {
            let name = prefix.rest(&key.name).unwrap();
            assert_eq!(key.metadata.as_deref(), Some(format!("{{\"n\":\"{name}\"}}").as_str()));
            assert!(key.expiration_seconds.is_some());
            names.push(name.to_owned());
        }
        let Some(cursor) = page.cursor else { break };
        request = PageRequest::first(2).after(cursor);
    }
    assert_eq!(names, ["A", "a", "b", "c", "é"]);
}

async fn limits_are_enforced(store: &impl Store) {
    let key = tenant("contract").space("limits").key(&["x"]);
    let short = Write { ttl_seconds: Some(59), metadata: None };
    assert!(matches!(store.put(&key, b"1", short).await, Err(Error::Invalid(_))));
    let fat = Write::default().with_metadata(format!("\"{}\"", "x".repeat(limits::METADATA_BYTES_MAX)));
    assert!(matches!(store.put(&key, b"1", fat).await, Err(Error::Invalid(_))));
    let hasty = Read { cache_ttl_seconds: Some(29) };
    assert!(matches!(store.get(&key, hasty).await, Err(Error::Invalid(_))));
    for limit in [0, 1001] {
        let request = PageRequest { limit, cursor: None };
        let listed = store.list(&tenant("contract").everything(), &request).await;
        assert!(matches!(listed, Err(Error::Invalid(_))), "{limit}");
    }
}

#[test]
fn the_memory_store_keeps_the_contract() {
    let (clock, store): (ManualClock, _) = store();
    block_on(contract(&store, |seconds| clock.advance_seconds(seconds)));
}

#[test]
fn bulk_reads_damage_what_is_not_text() {
    let (_, store) = store();
    let key = tenant("t").space("bulk").key(&["binary"]);
    block_on(store.put(&key, &[0xFF], Write::default())).unwrap();
    assert_eq!(block_on(store.get_many(&[key], Read::default())), Ok(vec![Some("\u{FFFD}".into())]));
}
