//! Durable Objects: one place that decides, one request at a time. Each class loads, asks the pattern's pure decision,
//! and stores; no rule is here.
//!
//! Loading, deciding and storing happen in one synchronous block of SQLite calls, so no other request comes between, and
//! the runtime lets no answer out before what was stored is durable.
//! Source: <https://developers.cloudflare.com/durable-objects/best-practices/rules-of-durable-objects/>
//!
//! The calls are internal: no route reaches an object. A caller sends `Call` and gets the answer as JSON.

pub mod counter;
pub mod limiter;
pub mod lock;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use worker::{Env, Method, Request, RequestInit, Response, Result, SqlStorage, SqlStorageValue, State, Stub};

use crate::clock::{Clock, Timestamp};

/// What an object is sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call<T> {
    /// Whose object it is, and of what: an object does not know its own name after an alarm.
    pub(super) tenant: String,
    /// The counter, the policy and identifier, or the resource.
    pub(super) name: String,
    /// What is asked.
    pub(super) request: T,
}

/// Why an object gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It has more to do than it can: come back later.
    #[error("the object is overloaded")]
    Overloaded,
    /// It was reset, could not be reached, or failed. What was asked may have happened.
    #[error("the object gave no answer: {0}")]
    Lost(String),
}

/// An object of one of the classes, by name.
#[derive(Debug)]
pub struct Remote<'a> {
    env: &'a Env,
    binding: &'static str,
    object: String,
}

impl<'a> Remote<'a> {
    /// The object `object` of the class bound as `binding`.
    pub const fn new(env: &'a Env, binding: &'static str, object: String) -> Self {
        Self { env, binding, object }
    }

    /// Asks the object. When `repeatable` (asking twice does no harm), it is asked once more after a failure that the
    /// runtime calls retryable.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn ask<T: Serialize, A: DeserializeOwned>(
        &self,
        (tenant, name): (&str, &str),
        request: T,
        repeatable: bool,
    ) -> std::result::Result<A, CallError> {
        let call = Call { tenant: tenant.to_owned(), name: name.to_owned(), request };
        let body = serde_json::to_string(&call).map_err(|error| CallError::Lost(error.to_string()))?;
        match self.send::<A>(&body).await {
            Err((CallError::Lost(_), true)) if repeatable => self.send(&body).await.map_err(|(error, _)| error),
            outcome => outcome.map_err(|(error, _)| error),
        }
    }

    /// One attempt, with a new stub: one that failed may stay broken. The flag says whether to try again.
    async fn send<A: DeserializeOwned>(&self, body: &str) -> std::result::Result<A, (CallError, bool)> {
        let mut response = async {
            let stub: Stub = self.env.durable_object(self.binding)?.get_by_name(&self.object)?;
            let mut init = RequestInit::new();
            init.with_method(Method::Post).with_body(Some(body.into()));
            stub.fetch_with_request(Request::new_with_init("https://object/", &init)?).await
        }
        .await
        .map_err(|error| classify(&error))?;
        let text = response.text().await.map_err(|error| classify(&error))?;
        serde_json::from_str(&text).map_err(|error| (CallError::Lost(error.to_string()), false))
    }
}

/// What the runtime's error means. Source: <https://developers.cloudflare.com/durable-objects/best-practices/error-handling/>
fn classify(error: &worker::Error) -> (CallError, bool) {
    let worker::Error::UnknownJsError { original, .. } = error else {
        return (CallError::Lost(error.to_string()), false);
    };
    let flag = |name: &str| js_sys::Reflect::get(original, &name.into()).is_ok_and(|value| value.is_truthy());
    if flag("overloaded") {
        return (CallError::Overloaded, false);
    }
    (CallError::Lost(error.to_string()), flag("retryable"))
}

/// The call in `request`.
async fn call<T: DeserializeOwned>(request: &mut Request) -> Result<Call<T>> {
    serde_json::from_str(&request.text().await?).map_err(worker::Error::from)
}

fn reply(answer: &impl Serialize) -> Result<Response> {
    Response::ok(serde_json::to_string(answer)?)
}

/// What an object keeps, as JSON text in its one row: the platform's own serialisation loses maps and large integers.
#[derive(Debug)]
struct Kept {
    sql: SqlStorage,
}

#[derive(Deserialize)]
struct Row {
    json: String,
}

impl Kept {
    fn of(state: &State) -> Result<Self> {
        let sql = state.storage().sql();
        sql.exec("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)", None)?;
        Ok(Self { sql })
    }

    fn load<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let rows = self.sql.exec("SELECT json FROM kept", None)?.to_array::<Row>()?;
        rows.first().map(|row| serde_json::from_str(&row.json).map_err(worker::Error::from)).transpose()
    }

    fn save(&self, kept: &impl Serialize) -> Result<()> {
        let json = SqlStorageValue::String(serde_json::to_string(kept)?);
        self.sql
            .exec("INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json", vec![json])?;
        Ok(())
    }
}

/// Sets the alarm to go off at `at`.
async fn set_alarm(state: &State, clock: &impl Clock, at: Timestamp) -> Result<()> {
    let wait_millis = i64::try_from(at.millis_since(clock.now())).unwrap_or(i64::MAX);
    state.storage().set_alarm(wait_millis).await
}
