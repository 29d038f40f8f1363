//! Connections of clients that replicate: their own server connection on the primary, bytes passed as they are. Owned by the data
//! thread that accepted them. Must not look at the bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use tokio::sync::Notify;

use crate::backend::{LoggedIn, LoginParams, Place};
use crate::cluster::NodeId;
use crate::net::Stream;
use crate::session::Context;
use crate::session::login::{ClientLogin, Replication};
use crate::wire::write::{self, Severity};
use crate::wire::{CancelKey, TxStatus, sqlstate};

use super::servers::Servers;

/// Bytes on their way in one direction.
const BUFFER: usize = 64 * 1024;

/// Those of one thread.
#[derive(Default)]
pub(super) struct Passing {
    all: RefCell<HashMap<u64, Passed>>,
}

/// What others can do to one.
struct Passed {
    node: NodeId,
    key: CancelKey,
    end: Rc<Notify>,
}

impl Passing {
    /// Takes a cancel request on to the server. False if `id` is none of these connections.
    pub(super) fn cancel(&self, id: u64, servers: &Arc<Servers>) -> bool {
        let all = self.all.borrow();
        let Some(passed) = all.get(&id) else { return false };
        let (node, key, servers) = (passed.node, passed.key.clone(), servers.clone());
        tokio::task::spawn_local(async move { servers.cancel(node, key).await });
        true
    }

    /// Ends all of them. There is no boundary in a stream of WAL that would be worth waiting for: who receives it asks again.
    pub(super) fn stop(&self) {
        self.all.borrow().values().for_each(|passed| passed.end.notify_one());
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.borrow().len()
    }

    /// Serves a client that replicates until either side ends. `issued` is what the client cancels by.
    pub(super) async fn run(
        &self,
        context: &Context,
        servers: &Servers,
        mut client: ClientLogin,
        issued: (i32, Vec<u8>),
    ) {
        let (node, mut server, place) = match open(context, servers, &client).await {
            Ok(opened) => opened,
            Err(refusal) => {
                let _ = client.stream.write_all(&refusal).await;
                return;
            }
        };
        let mut hello = std::mem::take(&mut client.accepted);
        for (name, value) in &server.parameters {
            write::parameter_status(&mut hello, name, value);
        }
        write::key_data(&mut hello, issued.0, &issued.1);
        write::ready(&mut hello, TxStatus::Idle);
        if client.stream.write_all(&hello).await.is_err() || server.stream.write_all(&client.leftover).await.is_err() {
            return;
        }
        let id = u64::try_from(issued.0).expect("numbers of sessions are positive");
        let end = Rc::new(Notify::new());
        self.all.borrow_mut().insert(id, Passed { node, key: server.cancel.clone(), end: end.clone() });
        tokio::select! {
            () = relay(&mut client.stream, &mut server.stream) => {}
            () = end.notified() => {}
        }
        self.all.borrow_mut().remove(&id);
        drop(place);
    }
}

/// A connection of the client's own to the primary, counted among the node's; or the refusal to send.
async fn open(
    context: &Context,
    servers: &Servers,
    client: &ClientLogin,
) -> Result<(NodeId, LoggedIn, Place), Vec<u8>> {
    let refused = |code: &str, message: &str| {
        let mut refusal = Vec::new();
        write::error(&mut refusal, Severity::Fatal, code, message, None);
        refusal
    };
    let (node, epoch) = (context.cluster().view().primary, context.cluster().view().epoch);
    let node = node.ok_or_else(|| refused(sqlstate::CANNOT_CONNECT_NOW, "no primary is known now"))?;
    let full = || {
        refused(
            sqlstate::TOO_MANY_CONNECTIONS,
            &format!("node {node} has its max_connections already, and all are busy"),
        )
    };
    let place = context.place(node).await.ok_or_else(full)?;
    let params = LoginParams {
        user: &client.user,
        database: &client.database,
        options: &client.options,
        replication: Some(if client.replication == Replication::Physical { "true" } else { "database" }),
    };
    match servers.replicate(node, &params).await {
        // Another may have taken its place meanwhile.
        Ok(_) if context.cluster().view().primary != Some(node) || context.cluster().view().epoch != epoch => {
            Err(refused(sqlstate::CANNOT_CONNECT_NOW, "the primary has changed"))
        }
        Ok(server) => Ok((node, server, place)),
        Err(error) => Err(refused(&error.sqlstate, &error.message)),
    }
}

/// Passes bytes both ways until either direction has ended.
async fn relay(client: &mut Stream, server: &mut Stream) {
    let mut up = Pipe::new();
    let mut down = Pipe::new();
    std::future::poll_fn(|cx| {
        let to_server = up.poll(cx, client, server);
        let to_client = down.poll(cx, server, client);
        if to_server.is_ready() || to_client.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// One direction.
struct Pipe {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Pipe {
    fn new() -> Self {
        Self { bytes: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Moves bytes until nothing more can be moved now. Ready when the direction has ended.
    fn poll(&mut self, cx: &mut task::Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<()> {
        loop {
            while self.start < self.end {
                match ready!(to.poll_write(cx, &self.bytes[self.start..self.end])) {
                    Ok(count) => self.start += count,
                    Err(_) => return Poll::Ready(()),
                }
            }
            if let Poll::Ready(Err(_)) = to.poll_flush(cx) {
                return Poll::Ready(());
            }
            match ready!(from.poll_read(cx, &mut self.bytes)) {
                Ok(count) if count > 0 => (self.start, self.end) = (0, count),
                // Asked anew, it says so again.
                _ => return to.poll_settled(cx),
            }
        }
    }
}
