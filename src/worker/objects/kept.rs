//! What the classes share: reading a call, one row of JSON as the whole state, setting the alarm.

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::{Request, Response, Result, SqlStorage, State};

use super::Call;
use crate::clock::{Clock, Timestamp};
use crate::worker::{glue, http};

/// Calls are ours, and what they carry was bounded by the routes.
const CALL_BYTES_MAX: usize = 1 << 20;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)";

/// The call in `request`.
pub(super) async fn call<T: DeserializeOwned>(request: &Request) -> Result<Call<T>> {
    let body = http::body(request.inner(), CALL_BYTES_MAX).await;
    let body = body.map_err(|_| worker::Error::from("the call did not arrive"))?;
    serde_json::from_slice(&body).map_err(worker::Error::from)
}

pub(super) fn reply(answer: &impl Serialize) -> Result<Response> {
    Ok(glue::text_response(200, "", &serde_json::to_string(answer)?)?.into())
}

/// What an object keeps, as JSON text in its one row: the platform's own serialisation loses maps and large integers.
#[derive(Debug)]
pub(super) struct Kept {
    sql: SqlStorage,
    /// The table of the class's own, if it has one.
    own_table: Option<&'static str>,
    /// Whether the tables are known to be there.
    has_tables: Cell<bool>,
}

impl Kept {
    pub(super) fn new(state: &State, own_table: Option<&'static str>) -> Self {
        Self { sql: state.storage().sql(), own_table, has_tables: Cell::new(false) }
    }

    /// The database, with its tables.
    pub(super) fn sql(&self) -> Result<&SqlStorage> {
        if !self.has_tables.get() {
            for table in [Some(TABLE), self.own_table].into_iter().flatten() {
                self.sql.exec(table, None)?;
            }
            self.has_tables.set(true);
        }
        Ok(&self.sql)
    }

    pub(super) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let json = glue::sql_json(self.sql()?.as_ref(), "SELECT json FROM kept")?;
        json.map(|json| serde_json::from_slice(json.as_bytes()).map_err(worker::Error::from)).transpose()
    }

    pub(super) fn save(&self, kept: &impl Serialize) -> Result<()> {
        let query = "INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
        Ok(glue::sql_run(self.sql()?.as_ref(), query, &serde_json::to_string(kept)?)?)
    }

    /// Forgets everything, the tables too.
    pub(super) async fn forget(&self, state: &State) -> Result<()> {
        let forgotten = state.storage().delete_all().await;
        self.has_tables.set(false);
        forgotten
    }
}

/// Sets the alarm to go off at `at`.
pub(super) async fn set_alarm(state: &State, clock: &impl Clock, at: Timestamp) -> Result<()> {
    let wait_millis = i64::try_from(at.millis_since(clock.now())).unwrap_or(i64::MAX);
    state.storage().set_alarm(wait_millis).await
}
