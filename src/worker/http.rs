//! Requests in and replies out, with one crossing for each.

use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::TryFutureExt;
use js_sys::{Promise, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::future_to_promise;

use super::glue;
use super::promise::Settled;

/// What every request is asked for.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method as it was sent.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// `Authorization`, empty when absent.
    pub authorization: String,
    /// `X-Request-Id`, empty when absent.
    pub request_id: String,
    /// `Origin`, empty when absent.
    pub origin: String,
}

impl Head {
    /// Reads the head of `request`.
    pub fn of(request: &web_sys::Request) -> Self {
        let text = glue::request_head(request);
        let mut lines = text.split('\n').map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Self { method: next(), url: next(), authorization: next(), request_id: next(), origin: next() }
    }

    /// The query string, without the question mark.
    pub fn query(&self) -> &str {
        self.url.split_once('?').map_or("", |(_, query)| query)
    }

    /// The path, still percent-encoded.
    pub fn path(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let path = rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/");
        path.split_once('?').map_or(path, |(path, _)| path)
    }
}

/// A text of the request's `cf`, say its `continent`; empty when there is none. `worker::Request::cf` gives nothing, because
/// the request is not the platform's own: see `seen` in `entry.js`.
pub fn cf(request: &web_sys::Request, name: &str) -> String {
    glue::request_cf(request, name)
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than the limit.
    TooLarge,
    /// The client went away, or the body was read before.
    Lost,
}

/// The body of `request`.
///
/// # Errors
///
/// [`BodyError::TooLarge`] beyond `limit` bytes; [`BodyError::Lost`] when it cannot be read to its end.
pub async fn body(request: &web_sys::Request, limit: usize) -> Result<Vec<u8>, BodyError> {
    #[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
    let read = Settled::of(&glue::request_body(request, limit as f64)).await.map_err(|_| BodyError::Lost)?;
    let bytes: Uint8Array = read.dyn_into().map_err(|_| BodyError::TooLarge)?;
    Ok(bytes.to_vec())
}

/// What a reply carries.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// Bytes that others hold too.
    Shared(Rc<Vec<u8>>),
    /// A range of bytes that others hold too.
    Part(Rc<[u8]>, Range<usize>),
    /// Bytes that arrive while they are sent.
    Stream(web_sys::ReadableStream),
}

impl Body {
    /// Its bytes, where they are counted.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::Empty | Self::Stream(_) => None,
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::Shared(bytes) => Some(bytes.len()),
            Self::Part(_, range) => Some(range.len()),
        }
    }
}

/// The platform's response. `fields` are name and value of each header, one a line.
///
/// # Errors
///
/// What the platform threw: a status or header it does not take.
pub fn response(status: u16, fields: &str, body: &Body) -> Result<web_sys::Response, JsValue> {
    match body {
        Body::Empty => glue::response(status, fields, None),
        Body::Bytes(bytes) => glue::response(status, fields, Some(bytes)),
        Body::Shared(bytes) => glue::response(status, fields, Some(bytes)),
        Body::Part(bytes, range) => glue::response(status, fields, Some(bytes.get(range.clone()).unwrap_or_default())),
        Body::Stream(stream) => glue::stream_response(status, fields, stream),
    }
}

/// Runs `answer` to its first wait. Most refusals and the plainest answers have none: they need no promise and no task.
pub fn at_once<T: Into<JsValue> + 'static>(answer: impl Future<Output = Result<T, JsValue>> + 'static) -> JsValue {
    let mut answer = Box::pin(answer.map_ok(Into::into));
    // The task that takes over polls again, which renews every waker, so nothing this one misses is lost.
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(thrown)) => Promise::reject(&thrown).into(),
        Poll::Pending => future_to_promise(answer).into(),
    }
}
