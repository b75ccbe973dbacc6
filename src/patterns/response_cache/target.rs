//! The URI a request is for, as a cache compares it: nothing is decoded, the fragment is gone (RFC 9111 §4, RFC 3986).
//!
//! Scheme and host are lower case and a default port is dropped (RFC 9110 §4.2.3); path and query stay byte for byte, because
//! servers differ in what they decode and a cache that guesses mixes up two resources.

/// An absolute `http` or `https` URI without its fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Target {
    /// Reads an absolute URI; `None` for other schemes, a missing host, user information, or white space and controls.
    pub fn parse(uri: &str) -> Option<Self> {
        if uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        let (uri, _) = uri.split_once('#').unwrap_or((uri, ""));
        let (scheme, rest) = uri.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end)?;
        let authority = authority.to_ascii_lowercase();
        let authority =
            authority.strip_suffix(default_port).or_else(|| authority.strip_suffix(':')).unwrap_or(&authority);
        if authority.is_empty() || authority.contains(['@', '\\']) {
            return None;
        }
        let (path, query) = split_query(rest);
        let path = if path.is_empty() { "/" } else { path };
        Some(Self { scheme, authority: authority.to_owned(), path: path.to_owned(), query: query.map(str::to_owned) })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Host and, unless it is the default, port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows `?`; an empty query is not a missing one.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The same resource with another query.
    #[must_use]
    pub fn with_query(&self, query: Option<String>) -> Self {
        Self { query, ..self.clone() }
    }

    /// Whether both have the same scheme, host and port (RFC 6454 §5).
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }

    /// A reference such as a `Location`, resolved against this URI (RFC 3986 §5.2.2).
    pub fn resolve(&self, reference: &str) -> Option<Self> {
        let (reference, _) = reference.split_once('#').unwrap_or((reference, ""));
        if reference.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return None;
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme)).map(Self::without_dots);
        }
        if has_scheme(reference) {
            return Self::parse(reference).map(Self::without_dots);
        }
        let (path, query) = split_query(reference);
        let mut resolved = self.with_query(query.map(str::to_owned));
        if path.is_empty() {
            if query.is_none() {
                resolved.query.clone_from(&self.query);
            }
            return Some(resolved);
        }
        resolved.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let (directory, _) = self.path.rsplit_once('/').unwrap_or_default();
            format!("{directory}/{path}")
        };
        Some(resolved.without_dots())
    }

    /// RFC 3986 §5.2.4
    fn without_dots(mut self) -> Self {
        let mut kept: Vec<&str> = Vec::new();
        let segments: Vec<&str> = self.path.split('/').skip(1).collect();
        let count = segments.len();
        for (at, segment) in segments.into_iter().enumerate() {
            let last = at.saturating_add(1) == count;
            match segment {
                "." | ".." => {
                    if segment == ".." {
                        kept.pop();
                    }
                    if last {
                        kept.push("");
                    }
                }
                segment => kept.push(segment),
            }
        }
        self.path = format!("/{}", kept.join("/"));
        self
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}://{}{}", self.scheme, self.authority, self.path)?;
        match &self.query {
            Some(query) => write!(formatter, "?{query}"),
            None => Ok(()),
        }
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Whether a reference begins with `scheme:` (RFC 3986 §3.1).
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, expected: Option<&str>) {
        assert_eq!(Target::parse(uri).map(|target| target.to_string()).as_deref(), expected, "{uri}");
    }

    #[test]
    fn rfc_9110_4_2_3_scheme_host_and_default_port_are_normalised_and_nothing_else() {
        check("HTTPS://Example.COM:443/A/%2f?B=c#frag", Some("https://example.com/A/%2f?B=c"));
        check("http://a:8080", Some("http://a:8080/"));
        check("http://a:80?q", Some("http://a/?q"));
        check("http://a/?", Some("http://a/?"));
        for bad in ["ftp://a/", "/a", "http:///a", "http://u@a/", "http://a/ b", "http://a/\n", "http://"] {
            check(bad, None);
        }
    }

    #[test]
    fn rfc_3986_5_4_references() {
        let base = Target::parse("http://a/b/c/d?q").unwrap();
        for (reference, expected) in [
            ("g", Some("http://a/b/c/g")),
            ("./g", Some("http://a/b/c/g")),
            ("/g", Some("http://a/g")),
            ("//g", Some("http://g/")),
            ("?y", Some("http://a/b/c/d?y")),
            ("g?y", Some("http://a/b/c/g?y")),
            ("", Some("http://a/b/c/d?q")),
            ("#s", Some("http://a/b/c/d?q")),
            ("..", Some("http://a/b/")),
            ("../g", Some("http://a/b/g")),
            ("../../../g", Some("http://a/g")),
            ("g/.", Some("http://a/b/c/g/")),
            ("http://x/../y", Some("http://x/y")),
            ("mailto:x", None),
            ("a b", None),
        ] {
            assert_eq!(base.resolve(reference).map(|target| target.to_string()).as_deref(), expected, "{reference}");
        }
    }
}
