//! The address that follows the leader: on a TUN device that dies with the process, or on an interface, in each case with a lifetime that
//! the kernel enforces when the process only freezes (HA H19). Keeps, announces and asks for it; must not decide who holds it.

mod frames;
mod interfaces;
mod kernel;
mod relay;
mod wire;

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::VipOn;
use crate::support::clock::{Duration, Instant, boot as now};

pub use frames::Mac;
use kernel::{Kernel, alone};
use relay::{Course, Relay};
use wire::Complaint;

/// How long a holder of the address has for an answer.
const PROBE: Duration = Duration::from_millis(200);
/// How long what clients begin is passed on behind the address.
const PASSING: Duration = Duration::from_secs(2);
/// Between two looks at whether its new holder has spoken.
const LOOK: Duration = Duration::from_millis(5);
/// The kernel chooses the number.
const DEVICE: &str = "pgherd%d";

/// Why the address is not here.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// A capability is missing.
    #[error("{what} is not permitted: the process needs {capability}")]
    Denied {
        /// What was tried.
        what: &'static str,
        /// What allows it.
        capability: &'static str,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An IPv6 address on a device of ours, where no neighbour finds it.
    #[error(
        "an IPv6 address cannot live on a TUN device: the kernel answers neighbours for an interface's own addresses alone"
    )]
    NotOnDevice,
    /// There is no interface on which neighbours would look for it.
    #[error("no interface {0}")]
    NoInterface(String),
    /// A program of the operator's has ended well, and the kernel does not know the address there.
    #[error("the program has ended well, but {0} does not have the address: it would have no lifetime")]
    NotThere(String),
    /// The evidence for holding it is over, or was by the time that the kernel had done it: the address was deleted.
    #[error("too late to hold the address")]
    Late,
}

impl AddressError {
    fn of(what: &'static str, capability: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { what, capability },
            _ => Self::Refused { what, source },
        }
    }
}

const ADMIN: &str = "CAP_NET_ADMIN";
const RAW: &str = "CAP_NET_RAW";
const TUN: &str = "CAP_NET_ADMIN, and to read and write /dev/net/tun";

/// Where the address lives.
enum Home {
    /// Ours, gone with its last descriptor, and with it the address.
    Tun(tokio_tun::Tun),
    /// Somebody else's.
    Interface,
}

/// One virtual address of this host, held or not. It is not held at first, and is not any more after a drop.
pub struct VirtualAddress {
    address: IpAddr,
    kernel: Kernel,
    home: Home,
    index: u32,
    /// The interface whose neighbours are to know of it; none: all that face it.
    named: Option<String>,
    /// Under which prefix it is held.
    width: Cell<u8>,
    complaint: Complaint,
}

impl VirtualAddress {
    /// Gets ready to hold it, and deletes a copy that a predecessor of this process left on the interface.
    ///
    /// # Errors
    /// Rights are missing, there is no such interface, or the address is on another interface of this host.
    pub async fn open(address: IpAddr, on: &VipOn) -> Result<Self, AddressError> {
        let kernel = Kernel::connect().map_err(AddressError::of("opening a netlink socket", ADMIN))?;
        let (home, index, named) = match on {
            VipOn::Tun if address.is_ipv6() => return Err(AddressError::NotOnDevice),
            VipOn::Tun => {
                let tun = tun().map_err(AddressError::of("making a TUN device", TUN))?;
                let index = index_of(tun.name())?;
                (Home::Tun(tun), index, None)
            }
            VipOn::Interface(name) => (Home::Interface, index_of(name)?, Some(name.clone())),
        };
        let width = Cell::new(alone(address));
        let this = Self { address, kernel, home, index, named, width, complaint: Complaint::default() };
        this.give_up().await?;
        let others = this.kernel.holders(address).await.map_err(AddressError::of("listing addresses", ADMIN))?;
        if let Some((other, _)) = others.first() {
            let source = io::Error::other(format!("{address} is an address of interface number {other} of this host"));
            return Err(AddressError::Refused { what: "taking the virtual address", source });
        }
        Ok(this)
    }

    /// A program has put it on the interface: from now on it has a lifetime, as with [`hold`](Self::hold).
    ///
    /// # Errors
    /// It is not there, or on another interface, too; as [`hold`](Self::hold).
    pub async fn adopt(&self, until: Instant) -> Result<(), AddressError> {
        let found = self.kernel.holders(self.address).await.map_err(AddressError::of("listing addresses", ADMIN))?;
        match found[..] {
            [(index, width)] if index == self.index => self.width.set(width),
            _ => return Err(AddressError::NotThere(self.named.clone().unwrap_or_default())),
        }
        self.hold(until).await
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Who of the neighbours answers for it, within 200 ms. To be asked while it is not held here.
    ///
    /// # Errors
    /// Rights are missing.
    pub async fn holder(&self) -> Result<Option<Mac>, AddressError> {
        let failed = AddressError::of("asking neighbours for the address", RAW);
        let address = self.address;
        for interface in interfaces::facing(address, self.named.as_deref()).map_err(&failed)? {
            let asked = tokio::task::spawn_blocking(move || wire::who_has(&interface, address, PROBE)).await;
            if let Some(mac) = asked.unwrap_or_else(|lost| Err(io::Error::other(lost))).map_err(&failed)? {
                return Ok(Some(mac));
            }
        }
        Ok(None)
    }

    /// Holds it until `until` at the most, in whole seconds rounded down; from then on the kernel deletes it within a second. To be
    /// repeated with later times for as long as it is to be held.
    ///
    /// # Errors
    /// [`AddressError::Late`], and it is not held: less than a second is left, or the kernel was told too late, as after a freeze between
    /// the look at the clock and the change. Others leave it as it was.
    pub async fn hold(&self, until: Instant) -> Result<(), AddressError> {
        let seconds = until.saturating_duration_since(now()).as_secs();
        let Some(seconds) = u32::try_from(seconds).ok().filter(|&seconds| seconds > 0) else {
            self.give_up().await?;
            return Err(AddressError::Late);
        };
        let set = self.kernel.set(self.index, (self.address, self.width.get()), seconds).await;
        // A change that comes late creates anew what the kernel had deleted already.
        if now() + Duration::from_secs(u64::from(seconds)) > until {
            self.give_up().await?;
            return Err(AddressError::Late);
        }
        set.map_err(AddressError::of("setting the virtual address", ADMIN))
    }

    /// Holds it no longer, under whatever prefix; nothing if it was not held.
    ///
    /// # Errors
    /// Rights are missing, or the kernel does not answer: what is held ends with its lifetime.
    pub async fn give_up(&self) -> Result<(), AddressError> {
        let failed = AddressError::of("deleting the virtual address", ADMIN);
        self.kernel.delete(self.index, (self.address, self.width.get())).await.map_err(failed)?;
        self.width.set(alone(self.address));
        self.remove(|index| index == self.index).await
    }

    /// Behind a program that was to put it here: deletes it wherever on this host that has put it.
    ///
    /// # Errors
    /// As [`give_up`](Self::give_up).
    pub async fn give_up_everywhere(&self) -> Result<(), AddressError> {
        self.remove(|_| true).await
    }

    async fn remove(&self, from: impl Fn(u32) -> bool) -> Result<(), AddressError> {
        let failed = AddressError::of("deleting the virtual address", ADMIN);
        for (index, width) in self.kernel.holders(self.address).await.map_err(&failed)? {
            if from(index) {
                self.kernel.delete(index, (self.address, width)).await.map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Tells the neighbours that it is here. Which interfaces face it is looked up each time: they come and go.
    pub fn announce(&self) {
        match interfaces::facing(self.address, self.named.as_deref()) {
            Ok(all) => {
                for interface in all {
                    if let Err(error) = wire::announce(&interface, self.address) {
                        self.complaint.about(&interface.name, &error);
                    }
                }
            }
            Err(error) => self.complaint.about("", &error),
        }
    }
}

/// What clients begin at an address that has just been given up goes to its next holder, for two seconds, or until this is dropped.
#[derive(Debug)]
pub struct Passing(Arc<Course>);

impl Passing {
    /// Gets ready while the address is still here. Without the right to, or without neighbours, clients ask again by themselves.
    pub fn prepare(vip: &VirtualAddress) -> Ready {
        let facing = interfaces::facing(vip.address, vip.named.as_deref()).unwrap_or_default();
        Ready(facing.iter().filter_map(|interface| Relay::open(interface, vip.address).ok()).collect())
    }

    /// Returns once the next holder has spoken and has been told of what was held, after `limit` at the latest.
    pub async fn heard(&self, limit: Duration) {
        let until = now() + limit;
        while !self.0.heard.load(Ordering::Acquire) && now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Prepared; see [`Passing::prepare`].
#[derive(Debug)]
pub struct Ready(Vec<Relay>);

impl Ready {
    /// The address is gone from here.
    pub fn begin(self) -> Passing {
        let course = Arc::<Course>::default();
        // Nobody could be heard.
        course.heard.store(self.0.is_empty(), Ordering::Release);
        for relay in self.0 {
            let course = course.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = relay.run(PASSING, &course) {
                    tracing::debug!(%error, "what clients begin is not passed on");
                }
            });
        }
        Passing(course)
    }
}

impl std::fmt::Debug for VirtualAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let home = match &self.home {
            Home::Tun(tun) => tun.name(),
            Home::Interface => self.named.as_deref().unwrap_or_default(),
        };
        write!(f, "VirtualAddress({} on {home})", self.address)
    }
}

fn tun() -> io::Result<tokio_tun::Tun> {
    let made = tokio_tun::TunBuilder::new().name(DEVICE).up().build().map_err(|error| match error {
        tokio_tun::Error::IoError(error) => error,
        tokio_tun::Error::NixError(error) => error.into(),
    })?;
    made.into_iter().next().ok_or_else(|| io::Error::other("no device was made"))
}

fn index_of(name: &str) -> Result<u32, AddressError> {
    nix::net::if_::if_nametoindex(name).map_err(|_| AddressError::NoInterface(name.to_owned()))
}
