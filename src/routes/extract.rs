//! Reading what clients send: path ids, queries and JSON bodies, each bounded, each error naming its field.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::{App, Context};
use crate::json;
use crate::worker::http::{self, BodyError};

/// Longest id in a path or a field, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest `Content-Type` that is kept with a body, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Largest JSON body where nothing else is said, in bytes.
pub const JSON_BYTES_MAX: usize = 64 * 1024;

/// The id in the path parameter `name`, percent-decoded once.
///
/// # Errors
///
/// 400: it is not percent-encoded UTF-8, has a control character, or is not 1 to 256 bytes long.
pub fn path_id(context: &Context, name: &str) -> Result<String, Problem> {
    decode_id(name, context.param(name).map_or("", String::as_str))
}

/// The same for a raw path segment.
///
/// # Errors
///
/// As [`path_id`].
pub fn decode_id(name: &str, raw: &str) -> Result<String, Problem> {
    let id = percent_decode(raw).ok_or_else(|| Problem::invalid(name, "Not percent-encoded UTF-8."))?;
    check_id(name, &id)?;
    Ok(id)
}

/// The same rules for an id that came another way.
///
/// # Errors
///
/// 400: it has a control character, or is not 1 to 256 bytes long.
pub fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(Problem::invalid(field, format!("Must have 1 to {ID_BYTES_MAX} bytes.")));
    }
    if id.chars().any(char::is_control) {
        return Err(Problem::invalid(field, "Must not contain control characters."));
    }
    Ok(())
}

/// Strict: every `%` starts two hex digits, and the result is UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let escapes_are_whole = text
        .split('%')
        .skip(1)
        .all(|part| part.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())));
    if !escapes_are_whole {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The query parameters of a request, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// The parameters of the request that `app` answers.
    ///
    /// # Errors
    ///
    /// 400: a name or value is not percent-encoded UTF-8.
    pub fn of(app: &App) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in app.head.query().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                percent_decode(&text.replace('+', " "))
                    .ok_or_else(|| Problem::invalid(name, "The query is not percent-encoded UTF-8."))
            };
            let (name, value) = (decode(name)?, decode(value)?);
            // One would be taken and the other one lost; filters by metadata all count.
            if !name.starts_with("metadata.") && pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::invalid(name, "Given more than once."));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// Every parameter, in the order in which they were sent.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is set: `1` or `true`; not set: absent, `0` or `false`.
    ///
    /// # Errors
    ///
    /// 400: it has another value.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Problem::invalid(name, "Must be 1 or 0.")),
        }
    }

    /// An integer within bounds; `default` when absent.
    ///
    /// # Errors
    ///
    /// 400: it is not an integer, or out of range.
    pub fn integer(&self, name: &str, range: std::ops::RangeInclusive<u64>, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits_only && range.contains(number));
        number.ok_or_else(|| out_of_range(name, &range))
    }

    /// One of `words`; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is another word.
    pub fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        self.get(name).map(|word| choose(name, word, words)).transpose()
    }
}

fn out_of_range<N: std::fmt::Display>(field: &str, range: &std::ops::RangeInclusive<N>) -> Problem {
    Problem::invalid(field, format!("Must be an integer from {} to {}.", range.start(), range.end()))
}

fn choose<T: Copy>(field: &str, word: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        Problem::invalid(field, format!("Must be one of: {}.", known.join(", ")))
    })
}

/// The body's bytes.
///
/// # Errors
///
/// 413: more than `limit` bytes. 400: the body ended early.
pub async fn bytes(request: &worker::Request, limit: usize) -> Result<Vec<u8>, Problem> {
    http::body(request.inner(), limit).await.map_err(|error| match error {
        BodyError::TooLarge => Problem::too_large(limit),
        BodyError::Lost => Problem::new(400, "incomplete-body", "The body ended early", "Send the whole body."),
    })
}

/// A request header; nothing when absent.
pub fn header(request: &worker::Request, name: &str) -> Option<String> {
    request.headers().get(name).ok().flatten()
}

/// The request's `Content-Type`, fit to be kept with the body and sent back; nothing when absent or empty.
///
/// # Errors
///
/// 400: it is longer than 256 bytes, or not printable ASCII.
pub fn content_type(request: &worker::Request) -> Result<Option<String>, Problem> {
    let given = header(request, "content-type").filter(|given| !given.is_empty());
    let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match given {
        Some(text) if text.len() > CONTENT_TYPE_BYTES_MAX || !is_plain(&text) => {
            let detail = format!("Must have at most {CONTENT_TYPE_BYTES_MAX} bytes of ASCII.");
            Err(Problem::invalid("Content-Type", detail))
        }
        given => Ok(given),
    }
}

/// The request's `Idempotency-Key`; nothing when it has none.
///
/// # Errors
///
/// 400: it is not 1 to 256 bytes long.
pub fn idempotency_key(request: &worker::Request) -> Result<Option<String>, Problem> {
    let key = header(request, "idempotency-key");
    key.map(|key| check_id("Idempotency-Key", &key).map(|()| key)).transpose()
}

/// The body as any JSON value.
///
/// # Errors
///
/// 415: another media type. 413: more than `limit` bytes. 400: not acceptable JSON.
pub async fn json(request: &worker::Request, limit: usize) -> Result<Value, Problem> {
    json_of_depth(request, limit, json::DEPTH_MAX).await
}

/// The same, nested `depth_max` levels deep at most.
///
/// # Errors
///
/// As [`json()`].
pub async fn json_of_depth(request: &worker::Request, limit: usize, depth_max: usize) -> Result<Value, Problem> {
    check_media_type(request)?;
    json::parse(&bytes(request, limit).await?, depth_max).map_err(|error| Problem::malformed(&error))
}

/// The body as a JSON object whose fields are taken one by one.
///
/// # Errors
///
/// As [`json()`]; and 400 when it is JSON but not an object.
pub async fn object(request: &worker::Request, limit: usize) -> Result<Fields, Problem> {
    Fields::of(json(request, limit).await?)
}

/// The same, where a missing body means `{}`.
///
/// # Errors
///
/// As [`object`].
pub async fn object_or_nothing(request: &worker::Request, limit: usize) -> Result<Fields, Problem> {
    let bytes = bytes(request, limit).await?;
    if bytes.is_empty() {
        return Ok(Fields(Map::new()));
    }
    check_media_type(request)?;
    Fields::of(json::parse(&bytes, json::DEPTH_MAX).map_err(|error| Problem::malformed(&error))?)
}

fn check_media_type(request: &worker::Request) -> Result<(), Problem> {
    let Some(content_type) = header(request, "content-type") else { return Ok(()) };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type("application/json"))
    }
}

/// The fields of a JSON object. Each is taken once; `finish` refuses what is left. `null` counts as absent.
#[derive(Clone, Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of `value`.
    ///
    /// # Errors
    ///
    /// 400: it is not an object.
    pub fn of(value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Problem::new(400, "invalid-request", "The request is not valid", "The body must be an object.")),
        }
    }

    /// Whether `name` is there and not `null`.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// The value of `name`, whatever it is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A text of at most `bytes_max` bytes; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is not a text, or too long, or has a control character.
    pub fn text(&mut self, name: &str, bytes_max: usize) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => {
                if text.chars().any(char::is_control) {
                    return Err(Problem::invalid(name, "Must not contain control characters."));
                }
                Ok(Some(text))
            }
            Some(Value::String(_)) => Err(Problem::invalid(name, format!("Must have at most {bytes_max} bytes."))),
            Some(_) => Err(Problem::invalid(name, "Must be a string.")),
        }
    }

    /// An id: a text of 1 to 256 bytes, which must be there.
    ///
    /// # Errors
    ///
    /// 400: it is missing, not a text, empty, too long, or has a control character.
    pub fn id(&mut self, name: &str) -> Result<String, Problem> {
        let id = self.text(name, ID_BYTES_MAX)?.ok_or_else(|| missing(name))?;
        check_id(name, &id)?;
        Ok(id)
    }

    /// A list of texts of 1 to `bytes_max` bytes, at most `count_max`; empty when absent.
    ///
    /// # Errors
    ///
    /// 400: it is not a list, has too many items, or an item is not such a text.
    pub fn texts(&mut self, name: &str, count_max: usize, bytes_max: usize) -> Result<Vec<String>, Problem> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let Value::Array(items) = value else { return Err(Problem::invalid(name, "Must be an array of strings.")) };
        if items.len() > count_max {
            return Err(Problem::invalid(name, format!("Must have at most {count_max} items.")));
        }
        let text = |(index, item)| match item {
            Value::String(text) if (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control) => {
                Ok(text)
            }
            _ => {
                let detail = format!("Must be a string of 1 to {bytes_max} bytes without control characters.");
                Err(Problem::invalid(format!("{name}[{index}]"), detail))
            }
        };
        items.into_iter().enumerate().map(text).collect()
    }

    /// An integer within bounds; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is not an integer, or out of range.
    pub fn integer(&mut self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match json::integer(&value).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(out_of_range(name, &range)),
        }
    }

    /// A non-negative integer within bounds; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is not an integer, or out of range.
    pub fn count(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let unsigned = value.as_u64().or_else(|| json::integer(&value)?.try_into().ok());
        match unsigned.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(out_of_range(name, &range)),
        }
    }

    /// `true` or `false`; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is something else.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Problem::invalid(name, "Must be true or false.")),
        }
    }

    /// One of `words`; nothing when absent.
    ///
    /// # Errors
    ///
    /// 400: it is another word, or no word.
    pub fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(word)) => choose(name, &word, words).map(Some),
            Some(_) => Err(Problem::invalid(name, "Must be a string.")),
        }
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    ///
    /// 400: a field nobody asked for.
    pub fn finish(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(field) => Err(Problem::invalid(field.clone(), "Unknown field.")),
        }
    }

    /// The same for the fields of an object at `place`.
    ///
    /// # Errors
    ///
    /// 400: a field nobody asked for.
    pub fn finish_at(self, place: &str) -> Result<(), Problem> {
        let field = self.0.keys().next().cloned().unwrap_or_default();
        self.finish().map_err(|problem| problem.at(format!("{place}.{field}")))
    }
}

/// 400: `field` must be there.
pub fn missing(field: &str) -> Problem {
    Problem::invalid(field, "Required.")
}
