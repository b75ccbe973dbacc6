//! What a handler answers with, before it becomes the platform's response in one crossing.

use serde::Serialize;

use crate::worker::http::Body;

/// How much an answer may be trusted to be the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It may be stale or approximate; the pattern's head says by how much.
    Eventual,
    /// It is the newest there is.
    Strong,
}

impl Consistency {
    /// The value of the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Strong => "strong",
        }
    }
}

/// A status, headers and a body.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub(super) status: u16,
    /// Name and value of each header, one a line.
    pub(super) fields: String,
    pub(super) body: Body,
    /// It is an origin's own answer at its own path: nothing but the cost is added, CORS is the origin's affair.
    pub(super) transparent: bool,
}

impl Reply {
    /// A reply without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A reply of bytes.
    pub fn bytes(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, body: Body::Bytes(body), ..Self::default() }.header("Content-Type", content_type)
    }

    /// A reply of JSON.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        // The types rendered here have text keys and finite numbers only, which is all that could fail.
        Self::bytes(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
    }

    /// The same, with a header. What no header may hold, control characters and non-ASCII, becomes `?`.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !self.fields.is_empty() {
            self.fields.push('\n');
        }
        self.fields.push_str(name);
        self.fields.push('\n');
        let allowed = |character: char| character == '\t' || matches!(character, ' '..='~');
        self.fields.extend(value.as_ref().chars().map(|character| if allowed(character) { character } else { '?' }));
        self
    }

    /// Whether an origin sent a header of this name (in lower case).
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.split('\n').step_by(2).any(|held| held == name)
    }

    /// The same, with a header as an origin sent it.
    #[must_use]
    pub fn raw_header(mut self, name: &str, value: &str) -> Self {
        for text in [name, value] {
            if !self.fields.is_empty() {
                self.fields.push('\n');
            }
            self.fields.push_str(text);
        }
        self
    }

    /// The same, saying how much it may be trusted.
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        self.header("Consistency", consistency.as_str())
    }
}
