//! Header fields as a list that keeps order and duplicates; names are lower case, size is bounded.
//!
//! Limits: 1024 fields, 128 KiB of names and values together, as the platform (limits of Workers, 2026-11). A value never holds a line break or a NUL, so nothing stored
//! can split a message (RFC 9110 §5.5).

/// The most fields one message may carry.
pub const MAX_FIELDS: usize = 1024;
/// The most bytes of names and values together.
pub const MAX_BYTES: usize = 128 * 1024;

/// Why a list of header fields was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// More than [`MAX_FIELDS`] fields or [`MAX_BYTES`] bytes.
    #[error("the header section is too large")]
    TooLarge,
    /// A name is not a token, or a value holds a line break or a NUL.
    #[error("a header field is malformed")]
    Malformed,
}

/// The header fields of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No fields.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes fields over, in order.
    ///
    /// # Errors
    /// [`HeadersError::TooLarge`] beyond the limits, [`HeadersError::Malformed`] for a bad name or value.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, HeadersError> {
        let mut headers = Self::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), trim(value.as_ref()));
            if !is_token(name) || value.contains(['\r', '\n', '\0']) {
                return Err(HeadersError::Malformed);
            }
            headers.0.push((name.to_ascii_lowercase(), value.to_owned()));
            if headers.0.len() > MAX_FIELDS {
                return Err(HeadersError::TooLarge);
            }
        }
        headers.check_size()?;
        Ok(headers)
    }

    /// Whether the limits hold; lists grow when a 304 is merged in.
    ///
    /// # Errors
    /// [`HeadersError::TooLarge`] beyond the limits.
    pub fn check_size(&self) -> Result<(), HeadersError> {
        let bytes: usize = self.0.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
        if self.0.len() > MAX_FIELDS || bytes > MAX_BYTES { Err(HeadersError::TooLarge) } else { Ok(()) }
    }

    /// Every value of `name` (lower case), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    /// The value of `name` if there is exactly one line of it; a field that must not repeat is invalid when it does.
    pub fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(held, _)| held == name).map(|(_, value)| value.as_str());
        let first = values.next()?;
        if values.next().is_some() { None } else { Some(first) }
    }

    /// The lines of `name` joined by a comma (RFC 9110 §5.3), or `None` without any.
    pub fn joined(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        let mut joined = values.next()?.to_owned();
        for value in values {
            joined.push_str(", ");
            joined.push_str(value);
        }
        Some(joined)
    }

    /// Whether there is any line of `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(held, _)| held == name)
    }

    /// Drops every line of `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(held, _)| held != name);
    }

    /// Keeps the lines for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// Replaces every line of `name` (lower case) by one.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Adds a line of `name` (lower case).
    pub fn append(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// All lines, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without the optional white space around a value (RFC 9110 §5.6.3: spaces and tabs only).
pub fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The members of a comma-separated list (RFC 9110 §5.6.1): commas inside quoted strings do not separate, empty members
/// are dropped. When a quoted string never ends, every comma separates, so that a directive behind it is still seen.
pub fn list_members(value: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                members.push(value.get(start..at).unwrap_or_default());
                start = at.saturating_add(1);
            }
            _ => {}
        }
    }
    members.push(value.get(start..).unwrap_or_default());
    if quoted {
        members = value.split(',').collect();
    }
    members.into_iter().map(trim).filter(|member| !member.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_order_are_kept_and_names_ignore_case() {
        let headers = Headers::from_pairs([("Set-Cookie", "a=1"), ("X", " y\t"), ("set-cookie", "b=2")]).unwrap();
        assert_eq!(headers.values("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(headers.single("set-cookie"), None);
        assert_eq!(headers.single("x"), Some("y"));
        assert_eq!(headers.joined("set-cookie").as_deref(), Some("a=1, b=2"));
    }

    #[test]
    fn too_many_too_large_and_malformed_are_refused() {
        assert_eq!(Headers::from_pairs(vec![("a", "b"); MAX_FIELDS + 1]), Err(HeadersError::TooLarge));
        assert_eq!(Headers::from_pairs([("a", "b".repeat(MAX_BYTES))]), Err(HeadersError::TooLarge));
        for (name, value) in [("a b", "c"), ("", "c"), ("a", "b\r\nc: d"), ("a", "b\0")] {
            assert_eq!(Headers::from_pairs([(name, value)]), Err(HeadersError::Malformed));
        }
    }

    #[test]
    fn lists_split_outside_quotes_only() {
        assert_eq!(list_members(r#"a="x, y", b ,, c"#), [r#"a="x, y""#, "b", "c"]);
        assert_eq!(list_members(r#"a="x\", y", b"#), [r#"a="x\", y""#, "b"]);
        assert_eq!(list_members(r#"a="x, no-store"#), [r#"a="x"#, "no-store"]);
        assert!(list_members(" , ,").is_empty());
    }
}
