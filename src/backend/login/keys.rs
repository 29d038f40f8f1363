//! Derives keys of passwords away from the data threads, few at a time, and remembers them (SESSIONS R14). One for the
//! whole process, shared by all threads; reached by logins of clients and to servers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::auth::scram::Keys;
use crate::auth::{Derivation, KeyCache};

/// Results that are kept: one per user, and one more for each server whose salt differs.
const REMEMBERED: usize = 4096;
/// Derivations at the same time: a storm of logins must leave the machine to those who are in.
const AT_ONCE: usize = 2;

/// Makes keys.
#[derive(Debug)]
pub struct KeyMaker {
    known: Mutex<KeyCache>,
    places: Semaphore,
}

impl Default for KeyMaker {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyMaker {
    /// One that remembers nothing yet.
    pub fn new() -> Self {
        Self { known: Mutex::new(KeyCache::new(REMEMBERED)), places: Semaphore::new(AT_ONCE) }
    }

    fn known(&self) -> MutexGuard<'_, KeyCache> {
        // A panic elsewhere leaves whole entries behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, order: &Derivation) -> Option<Keys> {
        self.known().get(order).cloned()
    }

    /// The keys of an order, from memory or from a helper thread of this runtime. Cancel safe.
    pub async fn keys(&self, order: &Derivation) -> Keys {
        if let Some(keys) = self.remembered(order) {
            return keys;
        }
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        // Someone else may have made them while this one waited.
        if let Some(keys) = self.remembered(order) {
            return keys;
        }
        let copy = order.clone();
        let made = spawn_blocking(move || copy.run()).await.expect("deriving keys does not panic");
        self.known().insert(order, made.clone());
        made
    }
}
