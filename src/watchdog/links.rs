//! Bytes between partners: TCP from each member to each other, and heartbeats by UDP on any number of links. Carries sealed frames and knows
//! when a connection ends; must not look into them, and must not wait for anybody: what cannot be sent now is lost.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::door::{Door, GREETING, Pass};
use super::seal::MAX_FRAME;
use crate::support::clock::{Duration, Instant, now};

/// The same is said again after so long.
const REMINDER: Duration = Duration::from_secs(60);
/// How long a connection of a member may be without saying anything.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a connection may take to be made, and a frame to be written.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(250);
/// Between two looks at what the names of heartbeat links stand for.
const RESOLVED: Duration = Duration::from_secs(30);
/// Frames that may wait for a connection: more than a member says in a second.
const QUEUE: usize = 64;
/// Frames that came and were not taken yet.
const INBOX: usize = 256;
/// Longer ones go by TCP alone, so that no heartbeat is cut into fragments.
const DATAGRAM: usize = 1_400;

/// A host name or address, and a port.
pub type Place = (String, u16);

/// Another member, as it can be reached.
#[derive(Debug, Clone)]
pub struct Far {
    /// Where it listens.
    pub host: Place,
    /// Where heartbeats go, one for each link.
    pub heartbeat: Vec<Place>,
}

/// How a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By the connection of that number.
    Connection(u64),
    /// By UDP, from there.
    Datagram(SocketAddr),
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// A frame.
    Frame(Via, Vec<u8>),
    /// This connection has ended; in order: the other side closed it, and there was no error.
    Ended {
        /// Its number.
        connection: u64,
        /// Without an error.
        orderly: bool,
    },
}

/// Links to all others. Ends when it is dropped.
#[derive(Debug)]
pub struct Links {
    far: Vec<Outward>,
    udp: Rc<UdpSocket>,
    port: u16,
    door: Rc<RefCell<Door>>,
    tasks: RefCell<JoinSet<()>>,
}

/// What names stand for now.
type Resolved = Rc<RefCell<Vec<SocketAddr>>>;

#[derive(Debug)]
struct Outward {
    host: Place,
    queue: mpsc::Sender<Vec<u8>>,
    /// Since when its connection is there.
    connected: Rc<Cell<Option<Instant>>>,
    /// What the heartbeat links' names stand for now.
    heartbeat: Resolved,
}

impl Links {
    /// Listens at `here` for partners, at `heartbeat_port` of all addresses for heartbeats, and begins to connect to everybody in `far`.
    /// Needs a `LocalSet`. Port 0 lets the system choose.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub async fn open(here: &Place, heartbeat_port: u16, far: Vec<Far>) -> io::Result<(Self, mpsc::Receiver<Came>)> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let listener = TcpListener::bind((here.0.as_str(), here.1)).await?;
        let port = listener.local_addr()?.port();
        let udp = Rc::new(datagrams(heartbeat_port)?);
        let dual = udp.local_addr()?.is_ipv6();
        let mut tasks = JoinSet::new();
        let (mut outward, mut known, door) = (Vec::new(), Vec::new(), Rc::<RefCell<Door>>::default());
        for far in far {
            let (queue, frames) = mpsc::channel(QUEUE);
            let (heartbeat, host, connected) = (Resolved::default(), Resolved::default(), Rc::new(Cell::new(None)));
            known.extend([host.clone(), heartbeat.clone()]);
            tasks.spawn_local(resolve(vec![far.host.clone()], dual, host));
            tasks.spawn_local(speak(far.host.clone(), frames, connected.clone()));
            tasks.spawn_local(resolve(far.heartbeat, dual, heartbeat.clone()));
            outward.push(Outward { host: far.host, queue, connected, heartbeat });
        }
        tasks.spawn_local(listen(listener, (door.clone(), known), sender.clone()));
        tasks.spawn_local(hear(udp.clone(), sender));
        Ok((Self { far: outward, udp, port, door, tasks: tasks.into() }, inbox))
    }

    /// A frame of the member at this place has come by that connection: it may stay.
    pub fn vouch(&self, connection: u64, member: usize) {
        self.door.borrow_mut().vouch(connection, member);
    }

    /// What came by that connection is of nobody who has the key.
    pub fn end(&self, connection: u64) {
        self.door.borrow_mut().leave(connection);
    }

    /// Returns when one of its tasks has ended, which none does by itself; fails with it if it has failed. Cancel safe.
    pub async fn failed(&self) {
        match poll_fn(|cx| self.tasks.borrow_mut().poll_join_next(cx)).await {
            Some(ended) => failed_with(ended),
            None => std::future::pending().await,
        }
    }

    /// The TCP port at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The UDP port at which it hears heartbeats.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn heartbeat_port(&self) -> io::Result<u16> {
        self.udp.local_addr().map(|address| address.port())
    }

    /// Sends to the member at this place of `far`, by every link that takes it now. Each copy is sealed anew, so that the receiver does not
    /// take the second for a replay.
    pub fn send(&self, to: usize, mut sealed: impl FnMut() -> Option<Vec<u8>>) {
        let Some(far) = self.far.get(to) else { return };
        for address in far.heartbeat.borrow().iter() {
            let Some(frame) = sealed().filter(|frame| frame.len() <= DATAGRAM) else { break };
            // A full buffer, or nobody there: as lost on the way.
            let _ = self.udp.try_send_to(&frame, *address);
        }
        if let Some(frame) = sealed() {
            // A full queue: it is not connected, and what waits is old already.
            let _ = far.queue.try_send(frame);
        }
    }

    /// Sends to the member at this place of `far` by its connection alone, once. False: there is none now, or it is clogged, and nothing was
    /// sent; true: it is on its way, and may still be lost.
    pub fn carry(&self, to: usize, frame: Vec<u8>) -> bool {
        let Some(far) = self.far.get(to) else { return false };
        // What must not be lost has the other half.
        let room = far.queue.capacity() > QUEUE / 2;
        room && far.connected.get().is_some() && far.queue.try_send(frame).is_ok()
    }

    /// Since when there is a connection to the member at this place; none: there is none.
    pub fn connected(&self, to: usize) -> Option<Instant> {
        self.far.get(to)?.connected.get()
    }

    /// What the member's heartbeat links stand for now, in their order; those that could not be looked up are missing.
    pub fn heartbeats(&self, to: usize) -> Vec<SocketAddr> {
        self.far.get(to).map_or_else(Vec::new, |far| far.heartbeat.borrow().clone())
    }

    /// Whether nobody listens there soon: a kernel that ends a process closes its sockets one by one.
    pub async fn ends(&self, to: usize, (looks, pause): (u32, Duration)) -> bool {
        for _ in 0..looks {
            if self.refuses(to).await {
                return true;
            }
            tokio::time::sleep(pause).await;
        }
        false
    }

    /// Does the member's host answer, and say that nobody listens there? Silence, a cut and a host that is gone are no such answer.
    pub async fn refuses(&self, to: usize) -> bool {
        let Some(far) = self.far.get(to) else { return false };
        let tried = timeout(PATIENCE, TcpStream::connect((far.host.0.as_str(), far.host.1))).await;
        matches!(tried, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
    }
}

/// A task that has failed (a bug) takes along whoever relies on it.
pub(super) fn failed_with(ended: Result<(), JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}

/// Hears at all addresses, of both families where the host has both.
fn datagrams(port: u16) -> io::Result<UdpSocket> {
    let open = |domain, address: IpAddr| {
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&SocketAddr::new(address, port).into())?;
        UdpSocket::from_std(socket.into())
    };
    open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()).or_else(|_| open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()))
}

async fn hear(udp: Rc<UdpSocket>, came: mpsc::Sender<Came>) {
    let mut bytes = vec![0; DATAGRAM + 1];
    loop {
        match udp.recv_from(&mut bytes).await {
            // One that was longer is cut, and no seal fits it.
            Ok((count, from)) => drop(came.try_send(Came::Frame(Via::Datagram(from), bytes[..count].to_vec()))),
            // An ICMP error about a heartbeat that was sent.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => sleep(AGAIN).await,
        }
    }
}

async fn listen(listener: TcpListener, (door, known): (Rc<RefCell<Door>>, Vec<Resolved>), came: mpsc::Sender<Came>) {
    let mut connections = JoinSet::new();
    let (mut ended, mut told) = (0_u64, None);
    let expects = |ip: IpAddr| {
        let of = |resolved: &Resolved| resolved.borrow().iter().any(|known| known.ip().to_canonical() == ip);
        known.iter().any(of)
    };
    loop {
        while let Some(joined) = connections.try_join_next() {
            failed_with(joined);
        }
        let Ok((stream, from)) = listener.accept().await else {
            sleep(AGAIN).await;
            continue;
        };
        let (number, pass, crowded) = door.borrow_mut().enter(expects(from.ip().to_canonical()));
        connections.spawn_local(receive(stream, (number, pass, door.clone()), came.clone()));
        ended += u64::from(crowded);
        if crowded && told.is_none_or(|at| now() >= at + REMINDER) {
            told = Some(now());
            let why = "too many connections to the watchdog's port show no key: the oldest of them are ended";
            tracing::warn!(event = "watchdog_crowded", ended, "{why}");
        }
    }
}

/// Reads one connection to its end.
async fn receive(
    mut stream: TcpStream,
    (connection, pass, door): (u64, Rc<Pass>, Rc<RefCell<Door>>),
    came: mpsc::Sender<Came>,
) {
    let greeted = now() + GREETING;
    let orderly = loop {
        let too_long = async {
            sleep(greeted.saturating_duration_since(now())).await;
            // It may have been vouched for meanwhile.
            if pass.is_vouched() {
                sleep(SILENCE).await;
            }
        };
        tokio::select! {
            biased;
            () = pass.over() => break false,
            read = frame(&mut stream) => match read {
                Ok(Some(bytes)) => {
                    if came.send(Came::Frame(Via::Connection(connection), bytes)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break true,
                Err(_) => break false,
            },
            () = too_long => break false,
        }
    };
    door.borrow_mut().leave(connection);
    let _ = came.send(Came::Ended { connection, orderly }).await;
}

/// The next frame; none: the other side has closed between two frames. A length is believed only up to what a frame can be.
async fn frame(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Keeps a connection to a member as long as somebody has frames for it.
async fn speak(host: Place, mut frames: mpsc::Receiver<Vec<u8>>, connected: Rc<Cell<Option<Instant>>>) {
    loop {
        if let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect((host.0.as_str(), host.1))).await {
            connected.set(Some(now()));
            let over = write(stream, &mut frames).await.is_none();
            connected.set(None);
            if over {
                return;
            }
        }
        sleep(AGAIN).await;
        // What has waited meanwhile is old.
        while frames.try_recv().is_ok() {}
        if frames.is_closed() {
            return;
        }
    }
}

/// Writes frames until the connection ends; none: there will be no more frames.
async fn write(mut stream: TcpStream, frames: &mut mpsc::Receiver<Vec<u8>>) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut end = [0; 1];
    loop {
        let bytes = tokio::select! {
            bytes = frames.recv() => bytes?,
            // Nobody says anything in this direction.
            _ = stream.read(&mut end) => return Some(()),
        };
        let length = u32::try_from(bytes.len()).ok()?;
        let whole = [&length.to_be_bytes()[..], &bytes].concat();
        if !matches!(timeout(PATIENCE, stream.write_all(&whole)).await, Ok(Ok(()))) {
            return Some(());
        }
    }
}

/// Looks up what the names stand for, again and again: it may change.
async fn resolve(names: Vec<Place>, dual: bool, found: Resolved) {
    loop {
        let mut all = Vec::new();
        for (host, port) in &names {
            if let Ok(Ok(mut addresses)) = timeout(PATIENCE, lookup_host((host.as_str(), *port))).await {
                all.extend(addresses.next());
            }
        }
        let whole = all.len() == names.len();
        // A name that cannot be looked up now stands for what it stood for.
        if whole || found.borrow().is_empty() {
            *found.borrow_mut() = all.into_iter().map(|address| if dual { mapped(address) } else { address }).collect();
        }
        sleep(if whole { RESOLVED } else { PATIENCE }).await;
    }
}

/// As a socket of both families wants it.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
