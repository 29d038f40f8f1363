//! How many connections there may be, and how many of one host, so that nobody keeps others out by holding them. Must not close anything.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Connections at a time.
const MOST: usize = 64;
/// Of one host.
const MOST_OF_ONE: usize = 24;

/// Connections of each host.
#[derive(Debug, Default)]
pub(super) struct Places(RefCell<HashMap<IpAddr, usize>>);

/// One connection, as long as it is there.
#[derive(Debug)]
pub(super) struct Place(Rc<Places>, IpAddr);

impl Places {
    /// A place for a connection of that host; none if there is none left for it.
    pub(super) fn take(self: &Rc<Self>, host: IpAddr) -> Option<Place> {
        let host = host.to_canonical();
        let mut all = self.0.borrow_mut();
        if all.values().sum::<usize>() >= MOST {
            return None;
        }
        let own = all.entry(host).or_default();
        if *own >= MOST_OF_ONE {
            return None;
        }
        *own += 1;
        Some(Place(self.clone(), host))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.0.borrow_mut();
        if let Some(own) = all.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                all.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_its_share_and_gives_it_back() {
        let places: Rc<Places> = Rc::default();
        let take = |last: u8| places.take([192, 0, 2, last].into());
        let first: Vec<_> = (0..30).filter_map(|_| take(1)).collect();
        assert_eq!(first.len(), 24);
        assert!(places.take("::ffff:192.0.2.1".parse().expect("an address")).is_none(), "the same host");
        let second: Vec<_> = (0..30).filter_map(|_| take(2)).collect();
        let third: Vec<_> = (0..30).filter_map(|_| take(3)).collect();
        assert_eq!((second.len(), third.len()), (24, 16));
        drop(first);
        assert!(take(4).is_some());
        drop((second, third));
        assert!(places.0.borrow().is_empty());
    }
}
