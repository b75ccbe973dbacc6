//! The envelope: exact bytes, what is refused, and that nothing read from outside makes anything panic.

use std::rc::Rc;

use kv_patterns::clock::Timestamp;
use kv_patterns::patterns::response_cache::controls::ResponseControls;
use kv_patterns::patterns::response_cache::directives::RequestDirectives;
use kv_patterns::patterns::response_cache::entry::{Entry, EnvelopeError, Part, Record, Stored};
use kv_patterns::patterns::response_cache::headers::{Headers, list_members};
use kv_patterns::patterns::response_cache::structured::parse_dictionary;
use kv_patterns::patterns::response_cache::target::Target;
use kv_patterns::patterns::response_cache::vary::Selector;
use kv_patterns::patterns::response_cache::{date, guard};
use proptest::prelude::*;

fn entry(body: &[u8]) -> Rc<Entry> {
    Rc::new(Entry::new(Stored {
        status: 206,
        headers: Headers::from_pairs([("Date", "x"), ("a", "1"), ("A", "2")]).unwrap(),
        requested_at: Timestamp::from_millis(1),
        received_at: Timestamp::from_millis(300),
        cost_millis: 299,
        selector: Selector::from_fields(vec![("b".into(), None), ("c".into(), Some(String::new()))]),
        part: Some(Part { first: 5, complete_length: 10 }),
        tags: vec!["t".into()],
        body: Rc::from(body),
    }))
}

/// Worked out by hand from the fields above; only the checksum is taken from a run.
const GOLDEN: &[u8] = &[
    b'K', b'V', b'R', b'C', 1, // magic, version
    31, 35, 113, 13, 74, 203, 195, 137, // checksum
    1,   // entries
    206, 1, 1, 172, 2, 171, 2, // status, requested, received, cost: seven bits a byte
    1, 5, 10, // a part, its first byte, complete length
    1, 1, b't', // tags
    2, 1, b'b', 0, 0, 1, b'c', 1, 0, // selector: b absent, c present and empty
    3, 4, b'd', b'a', b't', b'e', 1, b'x', 1, b'a', 1, b'1', 1, b'a', 1, b'2', // headers
    2, 0, 255, // body
];

#[test]
fn the_format_is_these_bytes() {
    let record = Record::default().with(entry(&[0, 255]), usize::MAX);
    assert_eq!(record.encode(), GOLDEN);
    assert_eq!(Record::decode(GOLDEN), Ok(record));
}

#[test]
fn corrupt_cut_off_and_foreign_envelopes_are_refused() {
    let bytes = Record::default().with(entry(b"body"), usize::MAX).encode();
    for length in 0..bytes.len() {
        assert_eq!(Record::decode(&bytes[..length]), Err(EnvelopeError::Corrupt), "{length}");
    }
    for at in (0..bytes.len()).filter(|at| *at != 4) {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            assert_eq!(Record::decode(&altered), Err(EnvelopeError::Corrupt), "{at} {bit}");
        }
    }
    let mut other = bytes.clone();
    other[4] = 2;
    assert_eq!(Record::decode(&other), Err(EnvelopeError::OtherFormat(2)));
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Record::decode(&longer), Err(EnvelopeError::Corrupt));
}

#[test]
fn a_record_keeps_to_its_size() {
    let record = Record::default().with(entry(&[0; 100]), 150);
    assert_eq!(record.entries().len(), 1);
    let other = Rc::new(Entry::new(Stored { selector: Selector::default(), ..entry(&[0; 100]).stored().clone() }));
    assert_eq!(record.with(other.clone(), 150).entries().len(), 1);
    let both = record.with(other.clone(), 200);
    assert_eq!(both.entries().len(), 2);
    assert_eq!(both.without(&other).entries().len(), 1);
}

proptest! {
    #[test]
    fn every_record_survives_the_envelope(
        status in any::<u16>(),
        pairs in prop::collection::vec(("[a-z-]{1,8}", "[ -~\u{80}-\u{ff}]{0,20}"), 0..8),
        fields in prop::collection::vec(("[a-z]{1,4}", prop::option::of(".{0,9}")), 0..4),
        part in prop::option::of((any::<u64>(), any::<u64>())),
        times in any::<(u64, u64, u64)>(),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let stored = Stored {
            status,
            headers: Headers::from_pairs(pairs).unwrap(),
            requested_at: Timestamp::from_millis(times.0),
            received_at: Timestamp::from_millis(times.1),
            cost_millis: times.2,
            selector: Selector::from_fields(fields),
            part: part.map(|(first, complete_length)| Part { first, complete_length }),
            tags: Vec::new(),
            body: Rc::from(body),
        };
        let record = Record::default().with(Rc::new(Entry::new(stored)), usize::MAX);
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn nothing_from_outside_makes_anything_panic(text in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Record::decode(&bytes);
        let _ = Record::decode(&[b"KVRC\x01", bytes.as_slice()].concat());
        let _ = parse_dictionary(&text);
        let _ = list_members(&text);
        let _ = date::parse(&text, Timestamp::from_millis(u64::MAX));
        if let Some(target) = Target::parse(&format!("https://a/{text}")) {
            let _ = guard::suspicious(&target);
            let _ = target.resolve(&text);
        }
        if let Ok(headers) = Headers::from_pairs([("cache-control", &text), ("cdn-cache-control", &text), ("vary", &text)]) {
            let _ = ResponseControls::read(&headers);
            let _ = RequestDirectives::read(&headers);
            let _ = Selector::of(&headers, &headers);
        }
    }
}
