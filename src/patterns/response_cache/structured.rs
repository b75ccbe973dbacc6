//! Dictionaries of RFC 9651 (structured fields): a strict parser, one error and the whole field is void.
//!
//! Parameters are checked and dropped, because no cache directive has any. Limits: what [`super::headers`] lets through.

/// A member's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// At most 15 digits.
    Integer(i64),
    /// Up to 12 digits, a point, 1 to 3 digits; the value itself is never needed.
    Decimal,
    /// Printable ASCII.
    String(String),
    /// A token.
    Token(String),
    /// A byte sequence; the bytes themselves are never needed.
    Bytes,
    /// `?0` or `?1`, or a key alone.
    Boolean(bool),
    /// Seconds since the Unix epoch.
    Date(i64),
    /// A display string; the text itself is never needed.
    DisplayString,
    /// An inner list.
    List(Vec<Value>),
}

/// The members of a dictionary in the order of their first appearance, later values winning (RFC 9651 §4.2.2);
/// `None` if any part of `text` is malformed.
pub fn parse_dictionary(text: &str) -> Option<Vec<(String, Value)>> {
    if !text.is_ascii() {
        return None;
    }
    let mut input = Input(text.trim_matches(' ').as_bytes());
    let mut members: Vec<(String, Value)> = Vec::new();
    while !input.0.is_empty() {
        let key = input.key()?;
        let value = if input.take(b'=') { input.item_or_list()? } else { Value::Boolean(true) };
        input.parameters()?;
        match members.iter_mut().find(|(held, _)| *held == key) {
            Some((_, held)) => *held = value,
            None => members.push((key, value)),
        }
        input.skip_white_space();
        if input.0.is_empty() {
            return Some(members);
        }
        input.take(b',').then_some(())?;
        input.skip_white_space();
        // A comma must be followed by a member.
        input.peek()?;
    }
    Some(members)
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.next();
        }
        found
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> String {
        let mut text = String::new();
        while let Some(byte) = self.peek().filter(|byte| accept(*byte)) {
            text.push(char::from(byte));
            self.next();
        }
        text
    }

    fn skip_white_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// §4.2.3.3
    fn key(&mut self) -> Option<String> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        Some(self.take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)))
    }

    /// §4.2.1.1
    fn item_or_list(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.bare_item();
        }
        let mut items = Vec::new();
        loop {
            self.take_while(|byte| byte == b' ');
            if self.take(b')') {
                return Some(Value::List(items));
            }
            items.push(self.bare_item()?);
            self.parameters()?;
            self.peek().filter(|byte| matches!(byte, b' ' | b')'))?;
        }
    }

    /// §4.2.3.2
    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.take_while(|byte| byte == b' ');
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// §4.2.3.1
    fn bare_item(&mut self) -> Option<Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Value::String),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => Some(Value::Token(
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)),
            )),
            b':' => self.bytes(),
            b'?' => self.boolean(),
            b'@' => {
                self.next();
                match self.number()? {
                    Value::Integer(seconds) => Some(Value::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display_string(),
            _ => None,
        }
    }

    /// §4.2.4
    fn number(&mut self) -> Option<Value> {
        let negative = self.take(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            let well_formed = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return well_formed.then_some(Value::Decimal);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let value: i64 = whole.parse().ok()?;
        Some(Value::Integer(if negative { value.saturating_neg() } else { value }))
    }

    /// §4.2.5
    fn string(&mut self) -> Option<String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next()? {
                b'\\' => text.push(char::from(self.next().filter(|byte| matches!(byte, b'"' | b'\\'))?)),
                b'"' => return Some(text),
                byte @ 0x20..=0x7e => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    /// §4.2.7
    fn bytes(&mut self) -> Option<Value> {
        self.next();
        self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.take(b':').then_some(Value::Bytes)
    }

    /// §4.2.8
    fn boolean(&mut self) -> Option<Value> {
        self.next();
        match self.next()? {
            b'0' => Some(Value::Boolean(false)),
            b'1' => Some(Value::Boolean(true)),
            _ => None,
        }
    }

    /// §4.2.10
    fn display_string(&mut self) -> Option<Value> {
        self.next();
        self.take(b'"').then_some(())?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'%' => {
                    let high = hex_digit(self.next()?)?;
                    bytes.push(high.checked_mul(16)?.checked_add(hex_digit(self.next()?)?)?);
                }
                b'"' => return String::from_utf8(bytes).is_ok().then_some(Value::DisplayString),
                byte @ 0x20..=0x7e => bytes.push(byte),
                _ => return None,
            }
        }
    }
}

/// Lower case only, as §4.2.10 demands.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'a'..=b'f' => byte.checked_sub(b'a' - 10),
        _ => None,
    }
}

/// `text` as a structured string, or `None` if it holds what such a string cannot (RFC 9651 §4.1.6).
pub fn string(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return None;
    }
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[(&str, Value)]>) {
        let expected = expected
            .map(|members| members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<Vec<_>>());
        assert_eq!(parse_dictionary(text), expected, "{text}");
    }

    #[test]
    fn rfc_9651_4_2_2_dictionaries() {
        use Value::{Boolean, Integer, List, String, Token};
        check("", Some(&[]));
        check("max-age=5", Some(&[("max-age", Integer(5))]));
        check("a, b=?0 ,\tc=?1", Some(&[("a", Boolean(true)), ("b", Boolean(false)), ("c", Boolean(true))]));
        check("a=1, b, a=-2", Some(&[("a", Integer(-2)), ("b", Boolean(true))]));
        check(r#"a="x, \"y\"";p=1;q, b=tok"#, Some(&[("a", String("x, \"y\"".into())), ("b", Token("tok".into()))]));
        check(r#"a=("x" y;z=1)"#, Some(&[("a", List(vec![String("x".into()), Token("y".into())]))]));
        check("a=1.5, b=:aGk=:, c=@12", Some(&[("a", Value::Decimal), ("b", Value::Bytes), ("c", Value::Date(12))]));
        check(r#"a=%"f%c3%bc""#, Some(&[("a", Value::DisplayString)]));
    }

    #[test]
    fn rfc_9651_one_error_voids_the_field() {
        for text in [
            "max-age=10000, &&&&&",
            "MaX-aGe=3600",
            "max-age =100",
            "max-age= 100",
            "a,",
            "a,,b",
            ",a",
            "a b",
            "a=",
            "a=\"x",
            "a=(1",
            "a=?2",
            "a=1.",
            "a=1234567890123456",
            "a=1.2345",
            "a;B",
            "a=%\"%C3\"",
            "a=@1.5",
            "a=\u{e9}",
            "a=--1",
        ] {
            check(text, None);
        }
    }
}
