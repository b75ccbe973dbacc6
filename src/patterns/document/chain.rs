//! Versions as Rust types: a chain of `TryFrom`, whose completeness the compiler checks.
//!
//! ```
//! # use kv_patterns::patterns::document::{Chain, First, Next};
//! # use serde::{Deserialize, Serialize};
//! # use serde_json::json;
//! #[derive(Deserialize)]
//! struct UserV1 { name: String }
//!
//! #[derive(Serialize, Deserialize)]
//! struct UserV2 { first: String, last: String }
//!
//! impl TryFrom<UserV1> for UserV2 {
//!     type Error = &'static str;
//!     fn try_from(old: UserV1) -> Result<Self, Self::Error> {
//!         let (first, last) = old.name.split_once(' ').ok_or("a name of one word")?;
//!         Ok(Self { first: first.to_owned(), last: last.to_owned() })
//!     }
//! }
//!
//! // Versions are numbered by their place, so a gap cannot be written, and a missing `TryFrom` does not compile.
//! type User = Next<First<UserV1>, UserV2>;
//! let user = User::read(1, json!({ "name": "Ada Lovelace" })).unwrap();
//! assert_eq!((User::VERSION, user.last.as_str()), (2, "Lovelace"));
//! ```
//!
//! ```compile_fail
//! # use kv_patterns::patterns::document::{Chain, First, Next};
//! #[derive(serde::Deserialize)]
//! struct V1;
//! #[derive(serde::Deserialize)]
//! struct V2; // and nothing that makes it from V1
//! let _ = <Next<First<V1>, V2> as Chain>::VERSION;
//! ```

use std::fmt::Display;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::schema::{Migrate, MigrationError};

/// A chain of versions, each made from the one before.
pub trait Chain {
    /// The newest version.
    type Latest;
    /// Its number.
    const VERSION: u32;

    /// `data` of `version` as the newest version.
    ///
    /// # Errors
    ///
    /// The version is none of the chain's, the data has another shape, or a conversion failed.
    fn read(version: u32, data: Value) -> Result<Self::Latest, ChainError>;
}

/// Why data cannot be brought to the newest version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("version {version}: {why}")]
pub struct ChainError {
    /// The version that could not be read or made.
    pub version: u32,
    /// What is wrong.
    pub why: String,
}

/// Version 1.
#[derive(Clone, Copy, Debug)]
pub struct First<T>(PhantomData<T>);

/// The version after those of `C`.
#[derive(Clone, Copy, Debug)]
pub struct Next<C, T>(PhantomData<(C, T)>);

fn parse<T: DeserializeOwned>(version: u32, data: Value) -> Result<T, ChainError> {
    serde_json::from_value(data).map_err(|error| ChainError { version, why: error.to_string() })
}

impl<T: DeserializeOwned> Chain for First<T> {
    type Latest = T;
    const VERSION: u32 = 1;

    fn read(version: u32, data: Value) -> Result<T, ChainError> {
        if version == Self::VERSION {
            parse(version, data)
        } else {
            Err(ChainError { version, why: "no such version".to_owned() })
        }
    }
}

impl<C, T> Chain for Next<C, T>
where
    C: Chain,
    T: DeserializeOwned + TryFrom<C::Latest, Error: Display>,
{
    type Latest = T;
    const VERSION: u32 = C::VERSION + 1;

    fn read(version: u32, data: Value) -> Result<T, ChainError> {
        if version == Self::VERSION {
            return parse(version, data);
        }
        let before = C::read(version, data)?;
        T::try_from(before).map_err(|error| ChainError { version: Self::VERSION, why: error.to_string() })
    }
}

/// A chain as the schema of stored documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed<C>(PhantomData<C>);

impl<C> Typed<C> {
    /// The schema of the chain `C`.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C: Chain<Latest: Serialize>> Migrate for Typed<C> {
    fn version(&self) -> u32 {
        C::VERSION
    }

    fn migrate(&self, from: u32, data: Value) -> Result<Value, MigrationError> {
        let failed = |why| MigrationError { from, why };
        let latest = C::read(from, data).map_err(|error| failed(error.to_string()))?;
        serde_json::to_value(latest).map_err(|error| failed(error.to_string()))
    }
}
