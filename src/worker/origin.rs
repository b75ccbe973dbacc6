//! `fetch` as an [`Origin`]: redirects are not followed, Cloudflare's cache stays out, nothing waits for ever.
//!
//! The platform decodes `gzip` and `br` content as soon as code reads it, and encodes again what is sent with such a
//! `Content-Encoding`; what is passed on untouched stays as it was.

use std::cell::Cell;
use std::rc::Rc;

use js_sys::Uint8Array;
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};

use super::glue;
use super::promise::Settled;
use crate::patterns::response_cache::headers::{Headers, HeadersError};
use crate::patterns::response_cache::origin::{Copied, Gathered, Origin, OriginBody, Unreached};
use crate::patterns::response_cache::{RequestHead, ResponseHead};

/// The network.
#[derive(Clone, Copy, Debug)]
pub struct Network;

/// The body of an answer, not yet read.
#[derive(Debug)]
pub struct NetworkBody {
    response: web_sys::Response,
    idle_millis: f64,
}

/// The fields of a request.
///
/// # Errors
///
/// Too many or too large.
pub fn request_fields(request: &web_sys::Request) -> Result<Headers, HeadersError> {
    fields(&glue::header_fields(request))
}

fn fields(text: &str) -> Result<Headers, HeadersError> {
    let mut lines = text.split('\n');
    Headers::from_pairs(std::iter::from_fn(|| Some((lines.next().filter(|name| !name.is_empty())?, lines.next()?))))
}

impl Origin for Network {
    type Upload = web_sys::Request;
    type Body = NetworkBody;

    async fn send(
        &self,
        request: &RequestHead,
        upload: Option<web_sys::Request>,
        timeout_seconds: u64,
    ) -> Result<(ResponseHead, NetworkBody), Unreached> {
        let mut lines = String::new();
        for (name, value) in request.headers.iter() {
            for text in [name, value] {
                if !lines.is_empty() {
                    lines.push('\n');
                }
                lines.push_str(text);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "at most 300 seconds")]
        let timeout_millis = timeout_seconds as f64 * 1000.0;
        let url = request.target.to_string();
        let fetched = glue::origin_fetch(&url, &request.method, &lines, upload.as_ref(), timeout_millis);
        let response = Settled::of(&fetched).await.map_err(|_| Unreached::Failed)?;
        if response.is_undefined() {
            return Err(Unreached::TimedOut);
        }
        let response: web_sys::Response = response.unchecked_into();
        let headers = fields(&glue::header_fields(&response)).map_err(|_| Unreached::Failed)?;
        // Of no class, or a switch of protocols that nobody asked for (RFC 9110 §15).
        if !(200..600).contains(&response.status()) {
            return Err(Unreached::Failed);
        }
        let head = ResponseHead { status: response.status(), headers };
        Ok((head, NetworkBody { response, idle_millis: timeout_millis }))
    }
}

#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
const fn number(bytes: u64) -> f64 {
    bytes as f64
}

impl OriginBody for NetworkBody {
    /// Nothing when the answer has no body.
    type Stream = Option<web_sys::ReadableStream>;

    async fn gather(self, limit: usize) -> Result<Gathered<Self::Stream>, Unreached> {
        let gathered = glue::gather_body(&self.response, number(limit as u64), self.idle_millis);
        let gathered = Settled::of(&gathered).await.map_err(|_| Unreached::Failed)?;
        if gathered.is_undefined() {
            return Err(Unreached::TimedOut);
        }
        Ok(match gathered.dyn_into::<Uint8Array>() {
            Ok(bytes) => Gathered::Whole(bytes.to_vec()),
            Err(stream) => Gathered::TooLarge(Some(stream.unchecked_into())),
        })
    }

    fn pass(self) -> Self::Stream {
        self.response.body()
    }

    fn copy(self, limit: usize, length: Option<u64>, done: impl FnOnce(Copied) + 'static) -> Self::Stream {
        // The stream may end in more than one way; the first counts.
        let done = Rc::new(Cell::new(Some(done)));
        let callback = Closure::<dyn FnMut(JsValue)>::new(move |end: JsValue| {
            let Some(done) = done.take() else { return };
            let cut_off = if end.is_null() { Copied::TooLarge } else { Copied::CutOff };
            done(end.dyn_into::<Uint8Array>().map_or(cut_off, |bytes| Copied::Whole(bytes.to_vec())));
        });
        let callback: JsValue = callback.into_js_value();
        let limit = number(limit as u64);
        glue::copy_body(&self.response, limit, length.map(number), self.idle_millis, &callback).ok().flatten()
    }
}
