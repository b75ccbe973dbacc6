//! How large a JSON value may be: bytes, nodes and depth, measured without recursion, so that measuring cannot overflow.
//!
//! The limits are ours. They keep a document well inside a KV value (25 MiB) and an isolate's memory (128 MB), and an
//! evaluation within milliseconds.
//! Source of the platform's limits: <https://developers.cloudflare.com/workers/platform/limits/>.

use serde_json::Value;

/// The most one JSON value may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Text in strings and member names, plus eight bytes for each node.
    pub bytes: usize,
    /// Values of every kind, nested ones included.
    pub nodes: usize,
    /// Levels of arrays and objects.
    pub depth: usize,
    /// One string or member name.
    pub string_bytes: usize,
}

/// A flag document.
pub const DOCUMENT: Bounds = Bounds { bytes: 4 << 20, nodes: 200_000, depth: 110, string_bytes: 64 << 10 };

/// The metadata of a set or of one flag; small, because every flag's answer carries the set's as well.
pub const METADATA: Bounds = Bounds { bytes: 4 << 10, nodes: 65, depth: 2, string_bytes: 4 << 10 };

/// The context of one evaluation.
pub const CONTEXT: Bounds = Bounds { bytes: 256 << 10, nodes: 10_000, depth: 32, string_bytes: 64 << 10 };

/// Which bound a value breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More text and nodes than allowed.
    #[error("is larger than {0} bytes")]
    Bytes(usize),
    /// More values than allowed.
    #[error("has more than {0} values")]
    Nodes(usize),
    /// Nested deeper than allowed.
    #[error("is nested deeper than {0} levels")]
    Depth(usize),
    /// One string longer than allowed.
    #[error("has a string longer than {0} bytes")]
    StringBytes(usize),
}

impl Bounds {
    /// Whether `value` keeps within these bounds. Stops at the first bound broken, so the cost is bounded too.
    ///
    /// # Errors
    /// The bound that is broken.
    pub fn check(&self, value: &Value) -> Result<(), TooLarge> {
        let mut nodes = 0_usize;
        let mut bytes = 0_usize;
        let mut pending = vec![(value, 0_usize)];
        while let Some((value, depth)) = pending.pop() {
            nodes += 1;
            bytes += 8 + self.own_text(value)?;
            if nodes + pending.len() > self.nodes {
                return Err(TooLarge::Nodes(self.nodes));
            }
            if bytes > self.bytes {
                return Err(TooLarge::Bytes(self.bytes));
            }
            let children = children(value);
            if children.size_hint().0 == 0 {
                continue;
            }
            if depth == self.depth {
                return Err(TooLarge::Depth(self.depth));
            }
            pending.extend(children.take(self.nodes + 1).map(|child| (child, depth + 1)));
        }
        Ok(())
    }

    /// Bytes of text that `value` itself holds: a string, or the names of an object's members.
    fn own_text(&self, value: &Value) -> Result<usize, TooLarge> {
        let sized = |text: &str| {
            if text.len() > self.string_bytes { Err(TooLarge::StringBytes(self.string_bytes)) } else { Ok(text.len()) }
        };
        match value {
            Value::String(text) => sized(text),
            Value::Object(members) => members.keys().map(|name| sized(name)).sum(),
            _ => Ok(0),
        }
    }
}

/// The values directly inside `value`; its size hint is exact.
pub(super) fn children(value: &Value) -> Box<dyn ExactSizeIterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => Box::new(std::iter::empty()),
    }
}
