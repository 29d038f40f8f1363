//! Where clients arrive: each data thread accepts at sockets of its own, and sees to a client until it has a session. Must not know what
//! sessions do.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::net::{Acceptor, DetachedStream, Listener, PeerAddr, Stream};
use crate::session::login::{self, Admission, Replication, Turned};
use crate::session::{Arrival, Context, Session};
use crate::support::clock::Duration;

use super::data::{Common, ThreadMail};
use super::passthrough::Passing;

/// After an accept that failed for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(50);

/// What a data thread listens at.
pub(super) struct Ears {
    pub(super) listeners: Vec<Listener>,
    /// Closes them when its sender is gone.
    pub(super) deaf: watch::Receiver<()>,
}

impl Ears {
    /// Starts to accept, in tasks of this thread.
    pub(super) fn listen(self, hall: &Hall) {
        for listener in self.listeners {
            let address = listener.address();
            match listener.attend() {
                Ok(acceptor) => {
                    let (hall, deaf) = (hall.clone(), self.deaf.clone());
                    tokio::task::spawn_local(async move { hall.accept(acceptor, deaf).await });
                }
                // Its socket is closed: the other threads get its share, if there are any.
                Err(error) => tracing::error!(%error, %address, "a data thread cannot accept clients: start anew"),
            }
        }
    }
}

/// What clients need to become sessions of a thread.
#[derive(Clone)]
pub(super) struct Hall {
    pub(super) context: Rc<Context>,
    pub(super) common: Arc<Common>,
    pub(super) passing: Rc<Passing>,
}

impl Hall {
    async fn accept(&self, acceptor: Acceptor, mut deaf: watch::Receiver<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                _ = deaf.changed() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.seat(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }

    /// Here, or on a thread that has fewer clients.
    fn seat(&self, stream: Stream, peer: PeerAddr) {
        let own = self.context.hub.thread;
        let place = self.common.place(own);
        let present = Present::enter(&self.common, place);
        if place == own {
            return self.receive(stream, peer, present);
        }
        let Ok(stream) = stream.detach() else { return };
        // It is busy if its mailbox is full.
        if let Err(ThreadMail::Client(stream, peer, _)) =
            self.common.post(place, ThreadMail::Client(stream, peer, present))
        {
            self.arrive(stream, peer, Present::enter(&self.common, own));
        }
    }

    /// A client that another thread has accepted.
    pub(super) fn arrive(&self, stream: DetachedStream, peer: PeerAddr, present: Present) {
        if let Ok(stream) = stream.attach() {
            self.receive(stream, peer, present);
        }
    }

    fn receive(&self, stream: Stream, peer: PeerAddr, present: Present) {
        let welcome = Box::pin(welcome(self.clone(), stream, peer));
        tokio::task::spawn_local(async move {
            if let Some(session) = welcome.await {
                session.run().await;
            }
            drop(present);
        });
    }
}

/// Counts a client on its thread as long as it is here.
pub(super) struct Present {
    common: Arc<Common>,
    thread: usize,
}

impl Present {
    fn enter(common: &Arc<Common>, thread: usize) -> Self {
        common.clients.fetch_add(1, Ordering::AcqRel);
        common.load[thread].fetch_add(1, Ordering::AcqRel);
        Self { common: common.clone(), thread }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.common.clients.fetch_sub(1, Ordering::AcqRel);
        self.common.load[self.thread].fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection from its first byte on: a client that may stay becomes a session.
async fn welcome(hall: Hall, stream: Stream, peer: PeerAddr) -> Option<Box<Session>> {
    let (session, secret, accepted) = admit(&hall, stream, peer).await?;
    session.open(secret, accepted).await
}

/// The login. Gives the session, the secret of its cancel key, and AuthenticationOk, which is still to be sent.
async fn admit(hall: &Hall, stream: Stream, peer: PeerAddr) -> Option<(Box<Session>, Vec<u8>, Vec<u8>)> {
    let Hall { context, common, passing } = hall;
    let door = common.door.load_full();
    let admission = if common.stopping.load(Ordering::Acquire) {
        Admission::Stopping
    } else if common.clients.load(Ordering::Acquire) > common.max_clients.load(Ordering::Relaxed) {
        Admission::Full
    } else {
        Admission::Open
    };
    let arrival = login::log_in(stream, peer, &door, admission).await;
    if let Err(Turned::Refused | Turned::Unauthorized) = &arrival {
        context.counters.refused.add(1);
    }
    let client = match arrival.ok()? {
        login::Arrival::Cancel(key, mut stream) => {
            if !common.cancel(&key) {
                context.counters.cancels_refused.add(1);
                common.tell_refused_cancel(peer);
            }
            let _ = stream.shutdown().await;
            return None;
        }
        login::Arrival::Client(client) => client,
    };
    if let Some(learned) = client.learned.clone() {
        common.servers.learn(&client.user, learned);
    }
    let (id, secret) = common.secrets.issue(context.hub.thread, common.mail.len(), client.protocol_minor);
    if client.replication != Replication::No {
        passing.run(context, &common.servers, *client, (id, secret)).await;
        return None;
    }
    let arrival = Arrival {
        stream: client.stream,
        peer,
        user: client.user,
        database: client.database,
        options: client.options,
        id,
        early: client.leftover,
    };
    Some((Box::new(Session::new(context.clone(), arrival)), secret, client.accepted))
}
