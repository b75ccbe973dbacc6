//! The real thing: [`Store`] over a Workers KV namespace.
//!
//! - Values are bytes. JSON is text made by `serde_json`, never a JavaScript object: the runtime's bindings for Rust
//!   store a map as `{}` without a word.
//! - A key that a bulk read was asked for and that its answer does not mention is unknown, not missing: the runtime
//!   drops keys that look like integers. No [`Key`] does, so this is an error here, not a value.
//! - Bulk reads never ask for metadata: that fails as a whole as soon as one key is missing.

use js_sys::{Array, JsString, Promise, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};

use super::glue;
use super::promise::Settled;
use crate::kv::limits::LIST_LIMIT_MAX;
use crate::kv::{Error, Key, Page, PageKey, PageRequest, Prefix, Read, Store, Write};

/// A namespace bound to this Worker. Clones are the same namespace.
#[derive(Clone, Debug)]
pub struct WorkersKv {
    namespace: JsValue,
}

impl WorkersKv {
    /// The namespace bound as `binding`; nothing when there is no such binding.
    pub fn bound(env: &worker::Env, binding: &str) -> Option<Self> {
        let namespace = js_sys::Reflect::get(env, &JsValue::from_str(binding)).ok()?;
        namespace.is_object().then_some(Self { namespace })
    }
}

/// Name, expiration in seconds, metadata: a key as the page's text holds it.
type ListedKey = (String, Option<u64>, Option<String>);

async fn settled(promise: Promise) -> Result<JsValue, Error> {
    Settled::of(&promise).await.map_err(|thrown| failure(&thrown))
}

fn failure(thrown: &JsValue) -> Error {
    let (message, retryable) = glue::describe(thrown);
    Error::classify(&message, retryable)
}

fn unexpected(what: &str) -> Error {
    Error::Unavailable(format!("the runtime answered with {what}"))
}

impl Store for WorkersKv {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Vec<u8>>, Error> {
        let ttl = read.cache_ttl_seconds.unwrap_or(0);
        let value = settled(glue::kv_get(&self.namespace, key.as_str(), ttl)).await?;
        if value.is_null() {
            return Ok(None);
        }
        let bytes: Uint8Array = value.dyn_into().map_err(|_| unexpected("something else than bytes"))?;
        Ok(Some(bytes.to_vec()))
    }

    async fn get_many(&self, keys: &[Key], read: Read) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let ttl = read.cache_ttl_seconds.unwrap_or(0);
        let names = keys.iter().map(Key::as_str).collect::<Vec<_>>().join("\n");
        let values: Array = settled(glue::kv_get_many(&self.namespace, &names, ttl)).await?.unchecked_into();
        values
            .iter()
            .map(|value| {
                if value.is_null() {
                    return Ok(None);
                }
                let text: JsString = value.dyn_into().map_err(|_| unexpected("no word on a key"))?;
                Ok(Some(String::from(text).into_bytes()))
            })
            .collect()
    }

    async fn put(&self, key: &Key, value: &[u8], write: Write) -> Result<(), Error> {
        let ttl = u32::try_from(write.ttl_seconds.unwrap_or(0)).unwrap_or(u32::MAX);
        let metadata = write.metadata.as_deref().unwrap_or_default();
        let put = glue::kv_put(&self.namespace, key.as_str(), value, ttl, metadata);
        settled(put.map_err(|thrown| failure(&thrown))?).await.map(drop)
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let delete = glue::kv_delete(&self.namespace, key.as_str());
        settled(delete.map_err(|thrown| failure(&thrown))?).await.map(drop)
    }

    async fn list(&self, prefix: &Prefix, request: &PageRequest) -> Result<Page, Error> {
        // The runtime takes a limit of 0 for none at all.
        if !(1..=LIST_LIMIT_MAX).contains(&request.limit) {
            return Err(Error::Invalid(format!("a page has 1 to {LIST_LIMIT_MAX} keys")));
        }
        let cursor = request.cursor.as_deref().unwrap_or_default();
        let page = settled(glue::kv_list(&self.namespace, prefix.as_str(), cursor, request.limit)).await?;
        let text = page.as_string().ok_or_else(|| unexpected("no page"))?;
        let (keys, cursor): (Vec<ListedKey>, Option<String>) =
            serde_json::from_slice(text.as_bytes()).map_err(|_| unexpected("a malformed page"))?;
        let keys = keys
            .into_iter()
            .map(|(name, expiration_seconds, metadata)| PageKey { name, expiration_seconds, metadata })
            .collect();
        Ok(Page { keys, cursor })
    }
}
