//! The store's contract as cases, shared by everything that can be a store: `tests/it` runs them over the memory store
//! and the simulator, `tests/worker/contract` over real KV inside workerd.
//!
//! `pass` moves the store's clock by so many seconds, where it can be moved: stores that keep KV's rule of one write a
//! second to a key need it between two writes.

use std::collections::BTreeMap;

use kv_patterns::kv::codec::{self, Record};
use kv_patterns::kv::{Error, PageRequest, Read, Store, Tenant, Write, limits};
use serde::{Deserialize, Serialize};

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        /// The names of the cases.
        pub(crate) const CASES: &[&str] = &[$(stringify!($case)),*];

        /// Runs one case over an empty `store`; panics where it breaks the contract.
        pub(crate) async fn run(case: &str, store: &impl Store, pass: &impl Fn(u64)) {
            match case {
                $(stringify!($case) => $case(store, pass).await,)*
                _ => panic!("there is no case {case}"),
            }
        }
    };
}

cases! {
    absent_keys_are_nothing,
    values_come_back_byte_for_byte,
    records_with_maps_keep_them,
    the_last_write_wins,
    deletes_are_idempotent,
    bulk_reads_keep_order_and_duplicates,
    keys_that_end_in_a_number_are_not_lost,
    bulk_reads_damage_what_is_not_text,
    lists_are_ordered_and_paged,
    lists_see_their_own_prefix_only,
    limits_are_enforced,
    any_lifetime_can_be_asked_for,
}

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).unwrap()
}

async fn absent_keys_are_nothing(store: &impl Store, _: &impl Fn(u64)) {
    let space = tenant("contract").space("absent");
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(None));
    assert_eq!(store.get_many(&[space.key(&["x"])], Read::FRESHEST).await, Ok(vec![None]));
}

async fn values_come_back_byte_for_byte(store: &impl Store, _: &impl Fn(u64)) {
    let space = tenant("contract").space("bytes");
    for (name, value) in [("empty", vec![]), ("text", "é\0\n".into()), ("binary", (0..=255).collect::<Vec<u8>>())] {
        store.put(&space.key(&[name]), &value, Write::default()).await.unwrap();
        assert_eq!(store.get(&space.key(&[name]), Read::default()).await, Ok(Some(value)), "{name}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Mapped {
    map: BTreeMap<String, u64>,
}

impl Record for Mapped {
    const KIND: &'static str = "mapped";
    const VERSION: u32 = 1;
}

/// The runtime's bindings for Rust store a map as `{}`.
async fn records_with_maps_keep_them(store: &impl Store, _: &impl Fn(u64)) {
    let key = tenant("contract").space("maps").key(&["x"]);
    let record = Mapped { map: BTreeMap::from([("a".to_owned(), 1), ("big".to_owned(), u64::MAX)]) };
    store.put(&key, &codec::encode(&record).unwrap(), Write::default()).await.unwrap();
    let found = store.get(&key, Read::default()).await.unwrap();
    assert_eq!(codec::decode_found(found), Ok(Some(record)));
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

async fn bulk_reads_keep_order_and_duplicates(store: &impl Store, _: &impl Fn(u64)) {
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

/// The runtime drops keys such as `123` from the answer of a bulk read.
async fn keys_that_end_in_a_number_are_not_lost(store: &impl Store, _: &impl Fn(u64)) {
    let space = tenant("0").space("numbers");
    let keys = ["0", "123", "007", ""].map(|name| space.key(&[name]));
    for key in &keys {
        store.put(key, b"here", Write::default()).await.unwrap();
    }
    let found = store.get_many(&keys, Read::default()).await.unwrap();
    assert_eq!(found, vec![Some(b"here".to_vec()); 4]);
}

/// The runtime decodes the values of a bulk read as text.
async fn bulk_reads_damage_what_is_not_text(store: &impl Store, _: &impl Fn(u64)) {
    let key = tenant("contract").space("damage").key(&["binary"]);
    store.put(&key, &[0xFF], Write::default()).await.unwrap();
    assert_eq!(store.get_many(&[key], Read::default()).await, Ok(vec![Some("\u{FFFD}".into())]));
}

async fn lists_are_ordered_and_paged(store: &impl Store, _: &impl Fn(u64)) {
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

async fn lists_see_their_own_prefix_only(store: &impl Store, _: &impl Fn(u64)) {
    let (own, other) = (tenant("contract").space("own"), tenant("contract2").space("own"));
    for key in [own.key(&["a", "b"]), own.key(&["a/b"]), own.key(&["ab"]), other.key(&["a", "b"])] {
        store.put(&key, b"", Write::default()).await.unwrap();
    }
    let page = store.list(&own.below(&["a"]).unwrap(), &PageRequest::default()).await.unwrap();
    let names: Vec<_> = page.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!((names, page.cursor), (vec!["contract/own/a/b"], None));
}

async fn limits_are_enforced(store: &impl Store, _: &impl Fn(u64)) {
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

/// The runtime holds the moment of expiration in 32 bits, and takes no lifetime below 60 seconds.
async fn any_lifetime_can_be_asked_for(store: &impl Store, _: &impl Fn(u64)) {
    let space = tenant("contract").space("lifetime");
    for seconds in [0, 59, 60, u64::MAX] {
        let key = space.key(&[&seconds.to_string()]);
        assert_eq!(store.put(&key, b"1", Write::expiring_in(seconds)).await, Ok(()), "{seconds}");
    }
}

/// Apart from the others because it needs a clock that can be moved, which local KV has not.
#[allow(dead_code, reason = "not called where the clock cannot be moved")]
pub(crate) async fn expiry_takes_values_away(store: &impl Store, pass: &impl Fn(u64)) {
    let space = tenant("contract").space("expiry");
    store.put(&space.key(&["x"]), b"1", Write::expiring_in(1)).await.unwrap();
    pass(50);
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(Some(b"1".to_vec())));
    pass(100);
    assert_eq!(store.get(&space.key(&["x"]), Read::default()).await, Ok(None));
    assert!(store.list(&space.all(), &PageRequest::default()).await.unwrap().keys.is_empty());
}
