//! The virtual address, as the engine orders it, one order after the other (HA H19 to H22). Must not decide.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::address::{Passing, VirtualAddress};
use super::super::engine::{Address, AddressIs, Event};
use super::commands::Commands;
use super::hands::Hands;
use crate::cluster;
use crate::config::VipOn;
use crate::support::clock::{self, Duration, Instant};

/// Orders that may wait: the kernel takes a fraction of a millisecond, the probe 200 ms.
const ORDERS: usize = 16;
/// Between two attempts to delete it.
const AGAIN: Duration = Duration::from_millis(100);
/// Between two complaints that it cannot be deleted.
const REMINDER: Duration = Duration::from_secs(10);
/// The kernel has ended it so long behind its time at the latest.
const LATEST: Duration = Duration::from_millis(1_300);

/// How long the end of the process waits for the next holder's first word.
const HEARD: Duration = Duration::from_millis(500);

/// What clients begin at an address that was given up, on its way to the next holder.
type Passed = Rc<RefCell<Option<Passing>>>;

/// The task that has it.
#[derive(Debug)]
pub(super) struct Keeper {
    order: mpsc::Sender<Address>,
    passing: Passed,
}

impl Keeper {
    pub(super) fn start<H: Hands + 'static>(
        job: Job<H>,
        tasks: &mut tokio::task::JoinSet<()>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (order, orders) = mpsc::channel(ORDERS);
        let passing = job.passing.clone();
        tasks.spawn_local(job.serve(orders, events));
        Self { order, passing }
    }

    /// Whoever comes next is told of what clients have begun here behind the address.
    pub(super) async fn farewell(&self) {
        let passing = self.passing.borrow_mut().take();
        if let Some(passing) = passing {
            passing.heard(HEARD).await;
        }
    }

    /// A full queue: the kernel hangs. A renewal that is lost then lets the address end by itself, a release is ordered again.
    pub(super) fn order(&self, order: Address) {
        let _ = self.order.try_send(order);
    }
}

/// Returns when the address is certainly not here: deleted, or ended by the kernel.
async fn gone(vip: &VirtualAddress, until: Instant) {
    while vip.give_up().await.is_err() && clock::boot() < until + LATEST {
        sleep(AGAIN).await;
    }
}

/// The same behind a program: what that has put somewhere may have no end of its own, and nobody is told that it is gone before it is.
async fn gone_everywhere(vip: &VirtualAddress) {
    let mut complained = None;
    while let Err(error) = vip.give_up_everywhere().await {
        let now = clock::boot();
        if complained.is_none_or(|at| now >= at + REMINDER) {
            complained = Some(now);
            tracing::error!(event = "address_stays", %error, "the virtual address cannot be deleted here: delete it by hand (ip address del)");
        }
        sleep(AGAIN).await;
    }
}

/// What it works with.
pub(super) struct Job<H> {
    pub(super) hands: Rc<H>,
    pub(super) shared: std::sync::Arc<cluster::Shared>,
    pub(super) address: IpAddr,
    pub(super) on: VipOn,
    pub(super) commands: Commands,
    pub(super) passing: Passed,
    /// Where a test asks for a failure.
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "there are no such tests"))]
    pub(super) disk: super::Disk,
}

impl<H: Hands> Job<H> {
    async fn serve(mut self, mut orders: mpsc::Receiver<Address>, events: mpsc::Sender<Event>) {
        // What is missing is told at once, and a copy that a process before has left goes.
        let mut vip = match self.open().await {
            Ok(vip) => Some(vip),
            Err(why) => {
                self.shared.events.record(cluster::Event::error("address_unavailable", "watchdog").why(why));
                None
            }
        };
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                () = sleep(AGAIN), if self.commands.is_astray() => {
                    if let Some(vip) = &vip {
                        let _ = vip.give_up_everywhere().await;
                    }
                    continue;
                }
            };
            #[cfg(debug_assertions)]
            self.disk.fail_if_asked("fail-address");
            let said = match order {
                None => return,
                Some(Address::Take { ask, until }) => Some(self.take(&mut vip, ask, until).await),
                Some(Address::Renew { until }) => match &vip {
                    Some(vip) => self.renew(vip, until).await,
                    None => None,
                },
                Some(Address::Release) => self.release(vip.as_ref()).await,
                Some(Address::Announce) => {
                    if !self.commands.announce() {
                        vip.iter().for_each(VirtualAddress::announce);
                    }
                    None
                }
            };
            if matches!(said, Some(AddressIs::Failed(_))) {
                self.look_again(&mut vip);
            }
            if let Some(said) = said
                && events.send(Event::Address(said)).await.is_err()
            {
                return;
            }
        }
    }

    async fn open(&self) -> Result<VirtualAddress, String> {
        let opened = VirtualAddress::open(self.address, &self.on).await;
        opened.map_err(|error| format!("virtual_ip {} cannot be held: {error}", self.address))
    }

    async fn take(&mut self, vip: &mut Option<VirtualAddress>, ask: bool, until: Instant) -> AddressIs {
        if vip.is_none() {
            match self.open().await {
                Ok(opened) => *vip = Some(opened),
                Err(why) => return AddressIs::Failed(why),
            }
        }
        let Some(vip) = vip else { return AddressIs::Failed("it was not opened".to_owned()) };
        match if ask { vip.holder().await } else { Ok(None) } {
            Ok(None) => {}
            Ok(Some(mac)) => {
                return AddressIs::Occupied(format!(
                    "{} is answered for by {mac}, which is no partner's",
                    self.address
                ));
            }
            Err(error) => return AddressIs::Failed(error.to_string()),
        }
        self.passing.take();
        let held = match self.commands.up(until).await {
            Ok(false) => vip.hold(until).await.map_err(|error| error.to_string()),
            Ok(true) => vip.adopt(until).await.map_err(|error| format!("behind if_up_cmd: {error}")),
            Err(why) => Err(why),
        };
        match held {
            Ok(()) => AddressIs::Taken,
            Err(why) => {
                self.lose(vip, until).await;
                AddressIs::Failed(why)
            }
        }
    }

    /// The interface that failed may be gone, and another one may have its name: the next try looks it up anew. Not while a program is astray:
    /// what it does is undone by what is open.
    fn look_again(&mut self, vip: &mut Option<VirtualAddress>) {
        if !self.commands.is_astray() {
            *vip = None;
        }
    }

    /// It must not be here: at once, then what the operator's program has to do besides, and once more for what that has done.
    async fn lose(&mut self, vip: &VirtualAddress, until: Instant) {
        gone(vip, until).await;
        self.hands.end_sessions(self.address);
        self.commands.hush().await;
        if self.commands.were_begun() {
            gone_everywhere(vip).await;
            self.commands.down().await;
            gone_everywhere(vip).await;
        }
    }

    async fn renew(&mut self, vip: &VirtualAddress, until: Instant) -> Option<AddressIs> {
        let error = vip.hold(until).await.err()?;
        self.hands.end_sessions(self.address);
        self.lose(vip, until).await;
        Some(AddressIs::Failed(error.to_string()))
    }

    /// Sessions first: their clients can be told only while the address is here. Nothing is said if it is not known to be gone.
    async fn release(&mut self, vip: Option<&VirtualAddress>) -> Option<AddressIs> {
        let ended = self.hands.end_sessions(self.address);
        if let Some(vip) = vip {
            self.commands.hush().await;
            let ready = Passing::prepare(vip);
            if self.commands.were_begun() {
                self.commands.down().await;
                vip.give_up_everywhere().await.ok()?;
            }
            vip.give_up().await.ok()?;
            // An order that was repeated, since this took long, ends nothing that is held.
            if self.passing.borrow().is_none() {
                self.passing.replace(Some(ready.begin()));
            }
        }
        // Whoever came in between.
        let ended = ended + self.hands.end_sessions(self.address);
        tracing::debug!(ended, "sessions on the virtual address have ended");
        Some(AddressIs::Released)
    }
}
