//! Ends what is under way on a primary whose epoch is over (HA H17): on the server that was primary when it was ordered, again and again until it
//! has ended, or until nobody wants that any more. Part of the runner; must not decide.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::engine::Event;
use super::hands::Hands;
use super::heart::Heart;
use crate::cluster::NodeId;
use crate::support::clock::{self, Duration, Instant};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// What has begun may take its time until so long before nothing of it counts any more.
const REST: Duration = Duration::from_millis(500);
/// That it does not work is said again after so long.
const REMINDER: Duration = Duration::from_secs(60);

/// What is to end.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// The epoch of the newest order; 0: nothing is to end.
    epoch: Cell<u64>,
    /// The primaries of that order, and of those before it that were not carried out.
    nodes: RefCell<BTreeSet<NodeId>>,
}

impl Stops {
    fn order(&self, epoch: u64, primary: Option<NodeId>) {
        self.epoch.set(epoch);
        self.nodes.borrow_mut().extend(primary);
    }

    /// This order is the newest, and nobody has taken it back.
    fn wants(&self, epoch: u64) -> bool {
        self.epoch.get() == epoch
    }

    fn done(&self, epoch: u64) {
        if self.wants(epoch) {
            self.end();
        }
    }

    /// Nothing is to end any more: whoever is primary now is another matter.
    pub(super) fn end(&self) {
        self.epoch.set(0);
        self.nodes.borrow_mut().clear();
    }

    /// That epoch is agreed on.
    pub(super) fn agreed(&self, epoch: u64) {
        if epoch >= self.epoch.get() {
            self.end();
        }
    }

    async fn once<H: Hands>(&self, hands: &H, patience: Instant) -> Result<(), String> {
        let nodes: Vec<NodeId> = self.nodes.borrow().iter().copied().collect();
        if nodes.is_empty() {
            return hands.stop_writing(None, patience).await;
        }
        for node in nodes {
            hands.stop_writing(Some(node), patience).await?;
        }
        Ok(())
    }

    async fn serve<H: Hands>(&self, hands: &H, epoch: u64, patience: Instant, tell: mpsc::Sender<Event>) {
        let mut told: Option<Instant> = None;
        while self.wants(epoch) {
            match self.once(hands, patience).await {
                Ok(()) => {
                    self.done(epoch);
                    let _ = tell.send(Event::Stopped(epoch)).await;
                    return;
                }
                Err(why) => {
                    let now = clock::boot();
                    if told.is_none_or(|at| now >= at + REMINDER) {
                        told = Some(now);
                        tracing::warn!(event = "writing_not_stopped", why, "connections to the primary stay");
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }
}

impl<H: Hands + 'static> Heart<H> {
    /// Ends what is under way on who is primary now.
    pub(super) fn stop_writing(&mut self, epoch: u64) {
        self.stops.order(epoch, self.shared.view().primary);
        let (hands, tell, stops) = (self.hands.clone(), self.tell.clone(), self.stops.clone());
        // Behind the bound nothing counts any more, whoever is still at it.
        let patience = self.bound.map_or_else(clock::boot, |bound| bound - REST);
        self.tasks.spawn_local(async move { Rc::clone(&stops).serve(&*hands, epoch, patience, tell).await });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::task::LocalSet;

    use super::*;
    use crate::cluster::{Errand, Sign};
    use crate::watchdog::runner::hands::Row;

    /// Fences, or fails to, and remembers whom.
    #[derive(Default)]
    struct Fencer {
        fails: Cell<bool>,
        fenced: RefCell<Vec<Option<NodeId>>>,
    }

    impl Hands for Fencer {
        type Session = ();

        async fn open(&self, _node: NodeId) -> Result<(), String> {
            Ok(())
        }

        async fn ask(&self, _session: &mut (), _sql: &str) -> Result<Vec<Row>, String> {
            Ok(Vec::new())
        }

        async fn stop_writing(&self, node: Option<NodeId>, _patience: Instant) -> Result<(), String> {
            self.fenced.borrow_mut().push(node);
            if self.fails.get() { Err("a thread hangs".to_owned()) } else { Ok(()) }
        }

        fn end_sessions(&self, _address: IpAddr) -> usize {
            0
        }

        fn cancel(&self, _session: i32, _is_right: &dyn Fn(&[u8]) -> bool) -> bool {
            false
        }

        fn obey(&self, _errand: Errand, _who: String, _signs: mpsc::Sender<Sign>) -> Result<(), String> {
            Ok(())
        }
    }

    /// One order at work.
    fn begin(stops: &Rc<Stops>, hands: &Rc<Fencer>, epoch: u64, primary: u16) -> mpsc::Receiver<Event> {
        let (tell, told) = mpsc::channel(4);
        stops.order(epoch, Some(NodeId(primary)));
        let (stops, hands) = (stops.clone(), hands.clone());
        tokio::task::spawn_local(async move { stops.serve(&*hands, epoch, clock::boot(), tell).await });
        told
    }

    #[tokio::test(start_paused = true)]
    async fn h17_who_was_primary_when_it_was_ordered_is_fenced_until_it_works() {
        let work = async {
            let (stops, hands) = (Rc::new(Stops::default()), Rc::new(Fencer::default()));
            hands.fails.set(true);
            let mut told = begin(&stops, &hands, 4, 1);
            sleep(AGAIN * 5).await;
            assert!(hands.fenced.borrow().len() >= 4 && told.try_recv().is_err());
            hands.fails.set(false);
            assert_eq!(told.recv().await, Some(Event::Stopped(4)));
            assert!(hands.fenced.borrow().iter().all(|node| *node == Some(NodeId(1))), "{:?}", hands.fenced);
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn h17_a_newer_order_takes_over_what_was_not_carried_out() {
        let work = async {
            let (stops, hands) = (Rc::new(Stops::default()), Rc::new(Fencer::default()));
            hands.fails.set(true);
            let mut first = begin(&stops, &hands, 4, 1);
            sleep(AGAIN * 2).await;
            let mut second = begin(&stops, &hands, 5, 2);
            assert_eq!(first.recv().await, None, "the first ends without a word");
            hands.fails.set(false);
            hands.fenced.borrow_mut().clear();
            assert_eq!(second.recv().await, Some(Event::Stopped(5)));
            assert_eq!(*hands.fenced.borrow(), [Some(NodeId(1)), Some(NodeId(2))]);
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_fenced_any_more_once_the_epoch_is_agreed_on() {
        let work = async {
            let (stops, hands) = (Rc::new(Stops::default()), Rc::new(Fencer::default()));
            hands.fails.set(true);
            let mut told = begin(&stops, &hands, 4, 1);
            sleep(AGAIN * 2).await;
            stops.agreed(3);
            let before = hands.fenced.borrow().len();
            sleep(AGAIN * 3).await;
            assert!(hands.fenced.borrow().len() > before, "an earlier one says nothing");
            stops.agreed(4);
            assert_eq!(told.recv().await, None);
            let before = hands.fenced.borrow().len();
            sleep(AGAIN * 10).await;
            assert_eq!(hands.fenced.borrow().len(), before);
        };
        LocalSet::new().run_until(work).await;
    }
}
