//! An object of the object cache: bytes, their content type and their entity tag.
//!
//! Stored as two lines of text and the bytes. Content type and tag come from HTTP headers, so they hold no line break;
//! one that does is refused.

use std::rc::Rc;

use super::entry::Value;
use crate::kv::Error;

/// Bytes as a client put them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content type, as it was sent.
    pub content_type: String,
    /// The strong entity tag of the bytes.
    pub etag: String,
    /// The bytes, shared by everybody who has them.
    pub bytes: Rc<Vec<u8>>,
}

impl Value for Object {
    const KIND: &'static str = "object";
    const VERSION: u32 = 1;
    const IS_TEXT: bool = false;

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        for line in [&self.content_type, &self.etag] {
            if line.contains('\n') {
                return Err(Error::Invalid("a line break in a line".to_owned()));
            }
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&self.bytes);
        Ok(())
    }

    fn read(_: u32, bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
        let mut line = || Some(std::str::from_utf8(parts.next()?).ok()?.to_owned());
        let (content_type, etag) = (line()?, line()?);
        Some(Self { content_type, etag, bytes: Rc::new(parts.next()?.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: &str, bytes: &[u8], stored: &[u8]) {
        let bytes = Rc::new(bytes.to_vec());
        let object = Object { content_type: content_type.to_owned(), etag: "\"x\"".to_owned(), bytes };
        let mut written = Vec::new();
        object.write(&mut written).unwrap();
        assert_eq!(written, stored);
        assert_eq!(Object::read(1, &written), Some(object));
    }

    #[test]
    fn the_bytes_are_golden() {
        check("image/png", b"\x89PNG\r\n\x1a\n\0\xFF", b"image/png\n\"x\"\n\x89PNG\r\n\x1a\n\0\xFF");
        check("", b"", b"\n\"x\"\n");
        check("text/plain", b"\n\n", b"text/plain\n\"x\"\n\n\n");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bytes in [&b""[..], b"text/plain", b"text/plain\n\"x\"", b"\xFF\n\"x\"\n"] {
            assert_eq!(Object::read(1, bytes), None);
        }
        let broken = Object { content_type: "a\nb".to_owned(), etag: String::new(), bytes: Rc::default() };
        assert!(broken.write(&mut Vec::new()).is_err());
    }
}
