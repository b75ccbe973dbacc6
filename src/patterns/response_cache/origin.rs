//! What the gateway needs of an origin: to send a request head with a body, and to take the answer's body in one of three ways.

use super::{RequestHead, ResponseHead};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// No connection, a broken one, or an answer that is no HTTP or broke off.
    Failed,
    /// Nothing, or nothing more, arrived in time.
    TimedOut,
}

/// A body read up to a limit.
#[derive(Debug)]
pub enum Gathered<T> {
    /// All of it.
    Whole(Vec<u8>),
    /// It has more bytes than the limit; here it is from its beginning, still arriving.
    TooLarge(T),
}

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// All of it.
    Whole(Vec<u8>),
    /// It had more bytes than the limit.
    TooLarge,
    /// It ended before its end.
    CutOff,
}

/// The body of an origin's answer.
#[allow(async_fn_in_trait, reason = "isolates have one thread, so futures need not be Send")]
pub trait OriginBody {
    /// What a client is sent while it arrives.
    type Stream;

    /// Reads the body before anything is answered.
    ///
    /// # Errors
    /// [`Unreached`]: the connection broke, or nothing came for too long.
    async fn gather(self, limit: usize) -> Result<Gathered<Self::Stream>, Unreached>;

    /// Passes the body on untouched.
    fn pass(self) -> Self::Stream;

    /// Passes the body on and keeps a copy, which `done` gets before the client sees the end. Up to `limit` bytes are read as
    /// fast as they come, so that a slow client keeps nobody waiting, and to the end although the client went away.
    fn copy(self, limit: usize, length: Option<u64>, done: impl FnOnce(Copied) + 'static) -> Self::Stream;
}

/// Where requests go that the cache cannot answer.
#[allow(async_fn_in_trait, reason = "isolates have one thread, so futures need not be Send")]
pub trait Origin {
    /// The body of a request.
    type Upload;
    /// The body of an answer.
    type Body: OriginBody;

    /// Sends a request; redirects are not followed.
    ///
    /// # Errors
    /// [`Unreached`] if no answer's head came within `timeout_seconds`.
    async fn send(
        &self,
        request: &RequestHead,
        upload: Option<Self::Upload>,
        timeout_seconds: u64,
    ) -> Result<(ResponseHead, Self::Body), Unreached>;
}
