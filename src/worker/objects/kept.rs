//! What the classes share: one row of JSON as the whole state, setting the alarm.

use std::cell::{Cell, RefCell};

use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::{Result, SqlStorage, State};

use crate::clock::{Clock, Timestamp};
use crate::worker::glue;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY CHECK (id = 1), json TEXT NOT NULL)";

/// What an object keeps, as JSON text in its one row: the platform's own serialisation loses maps and large integers.
///
/// The row is read once in the object's life: nobody else writes it, and the platform ends an object that could not store.
/// Source: <https://developers.cloudflare.com/durable-objects/reference/in-memory-state/>
#[derive(Debug)]
pub(super) struct Kept<T> {
    sql: SqlStorage,
    /// The table of the class's own, if it has one.
    own_table: Option<&'static str>,
    /// Whether the tables are known to be there.
    has_tables: Cell<bool>,
    is_read: Cell<bool>,
    row: RefCell<Option<T>>,
}

impl<T: Clone + Serialize + DeserializeOwned> Kept<T> {
    pub(super) fn new(state: &State, own_table: Option<&'static str>) -> Self {
        let (sql, row) = (state.storage().sql(), RefCell::new(None));
        Self { sql, own_table, has_tables: Cell::new(false), is_read: Cell::new(false), row }
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

    pub(super) fn load(&self) -> Result<Option<T>> {
        if !self.is_read.get() {
            let json = glue::sql_json(self.sql()?.as_ref(), "SELECT json FROM kept")?;
            self.row.replace(json.map(|json| serde_json::from_slice(json.as_bytes())).transpose()?);
            self.is_read.set(true);
        }
        Ok(self.row.borrow().clone())
    }

    pub(super) fn save(&self, kept: T) -> Result<()> {
        let query = "INSERT INTO kept VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json";
        glue::sql_run(self.sql()?.as_ref(), query, &serde_json::to_string(&kept)?)?;
        self.row.replace(Some(kept));
        self.is_read.set(true);
        Ok(())
    }

    /// Forgets everything, the tables too.
    pub(super) async fn forget(&self, state: &State) -> Result<()> {
        let forgotten = state.storage().delete_all().await;
        self.has_tables.set(false);
        self.is_read.set(false);
        forgotten
    }
}

/// Sets the alarm to go off at `at`.
pub(super) async fn set_alarm(state: &State, clock: &impl Clock, at: Timestamp) -> Result<()> {
    let wait_millis = i64::try_from(at.millis_since(clock.now())).unwrap_or(i64::MAX);
    state.storage().set_alarm(wait_millis).await
}
