//! What the classes share: reading a call, one row of JSON as the whole state, setting the alarm.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use worker::{Request, Response, Result, SqlStorage, SqlStorageValue, State};

use super::Call;
use crate::clock::{Clock, Timestamp};

/// The call in `request`.
pub(super) async fn call<T: DeserializeOwned>(request: &mut Request) -> Result<Call<T>> {
    serde_json::from_slice(&request.bytes().await?).map_err(worker::Error::from)
}

pub(super) fn reply(answer: &impl Serialize) -> Result<Response> {
    Response::ok(serde_json::to_string(answer)?)
}

/// What an object keeps, as JSON text in its one row: the platform's own serialisation loses maps and large integers.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) sql: SqlStorage,
}

#[derive(Deserialize)]
struct Row {
    json: String,
}

impl Kept {
    pub(super) fn of(state: &State) -> Result<Self> {
        let sql = state.storage().sql();
        sql.exec("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)", None)?;
        Ok(Self { sql })
    }

    pub(super) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let rows = self.sql.exec("SELECT json FROM kept", None)?.to_array::<Row>()?;
        rows.first().map(|row| serde_json::from_slice(row.json.as_bytes()).map_err(worker::Error::from)).transpose()
    }

    pub(super) fn save(&self, kept: &impl Serialize) -> Result<()> {
        let json = SqlStorageValue::String(serde_json::to_string(kept)?);
        self.sql
            .exec("INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json", vec![json])?;
        Ok(())
    }
}

/// Sets the alarm to go off at `at`.
pub(super) async fn set_alarm(state: &State, clock: &impl Clock, at: Timestamp) -> Result<()> {
    let wait_millis = i64::try_from(at.millis_since(clock.now())).unwrap_or(i64::MAX);
    state.storage().set_alarm(wait_millis).await
}
