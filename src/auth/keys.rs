//! Keys made of passwords, which is slow on purpose: the order for it as a value, to be filled on a helper thread, and
//! a bounded memory of the results. Whoever owns the helper owns the cache.

use std::collections::{HashMap, VecDeque};

use ring::digest::{Context, SHA256};

use super::scram::{Keys, derive};
use super::secret::Password;

/// An order to derive keys. Running it costs about half a microsecond per iteration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// Of which password.
    pub password: Password,
    /// With which salt.
    pub salt: Box<[u8]>,
    /// 1 to [`super::scram::MAX_ITERATIONS`].
    pub iterations: u32,
}

type Id = [u8; 32];

impl Derivation {
    /// Does it. Not on a data thread (SESSIONS R14).
    pub fn run(&self) -> Keys {
        derive(self.password.expose(), &self.salt, self.iterations)
    }

    /// Names the order in the cache without keeping the password there.
    fn id(&self) -> Id {
        let mut context = Context::new(&SHA256);
        for part in [self.password.expose(), &self.salt] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.update(&self.iterations.to_be_bytes());
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The newest derived keys; the oldest go first.
#[derive(Debug)]
pub struct KeyCache {
    known: HashMap<Id, Keys>,
    order: VecDeque<Id>,
    capacity: usize,
}

impl KeyCache {
    /// Keeps at most `capacity` results (at least one) of about 150 bytes.
    pub fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// The result of an order that was filled before.
    pub fn get(&self, order: &Derivation) -> Option<&Keys> {
        self.known.get(&order.id())
    }

    /// Remembers a result.
    pub fn insert(&mut self, order: &Derivation, keys: Keys) {
        let id = order.id();
        if self.known.insert(id, keys).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r14_the_cache_is_bounded_and_knows_orders_apart() {
        let mut cache = KeyCache::new(2);
        let order = |password: &str, salt: &str| Derivation {
            password: Password::new(password),
            salt: salt.as_bytes().into(),
            iterations: 1,
        };
        // The lengths tell ("ab", "c") from ("a", "bc").
        let orders = [order("ab", "c"), order("a", "bc"), order("x", "y")];
        for order in &orders {
            assert_eq!(cache.get(order), None);
            cache.insert(order, order.run());
            cache.insert(order, order.run());
        }
        assert_eq!(cache.known.len(), 2);
        assert_eq!(cache.get(&orders[0]), None, "the oldest went");
        assert_eq!(cache.get(&orders[1]), Some(&orders[1].run()));
        assert_eq!(cache.get(&orders[2]), Some(&orders[2].run()));
    }
}
