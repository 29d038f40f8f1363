//! Connections of clients that replicate: their own server connection on the primary, bytes passed as they are. Must not look
//! at them.

use std::task::{Context, Poll, ready};

use crate::backend::LoginParams;
use crate::cluster::Shared;
use crate::net::Stream;
use crate::session::login::{ClientLogin, Replication};
use crate::wire::write::{self, Severity};
use crate::wire::{TxStatus, sqlstate};

use super::servers::Servers;

/// Bytes on their way in one direction.
const BUFFER: usize = 64 * 1024;

/// Serves a client that replicates until either side ends.
pub(super) async fn run(servers: &Servers, cluster: &Shared, mut client: ClientLogin) {
    let mut hello = Vec::new();
    let Some(node) = cluster.view().primary else {
        write::error(&mut hello, Severity::Fatal, sqlstate::CANNOT_CONNECT_NOW, "no primary is known now", None);
        let _ = client.stream.write_all(&hello).await;
        return;
    };
    let replication = if client.replication == Replication::Physical { "true" } else { "database" };
    let params = LoginParams {
        user: &client.user,
        database: &client.database,
        options: &client.options,
        replication: Some(replication),
    };
    let mut server = match servers.replicate(node, &params).await {
        Ok(server) => server,
        Err(error) => {
            write::error(&mut hello, Severity::Fatal, &error.sqlstate, &error.message, None);
            let _ = client.stream.write_all(&hello).await;
            return;
        }
    };
    for (name, value) in &server.parameters {
        write::parameter_status(&mut hello, name, value);
    }
    write::key_data(&mut hello, server.cancel.pid, &server.cancel.secret);
    write::ready(&mut hello, TxStatus::Idle);
    if client.stream.write_all(&hello).await.is_err() || server.stream.write_all(&client.leftover).await.is_err() {
        return;
    }
    let mut up = Pipe::new();
    let mut down = Pipe::new();
    std::future::poll_fn(|cx| {
        let to_server = up.poll(cx, &mut client.stream, &mut server.stream);
        let to_client = down.poll(cx, &mut server.stream, &mut client.stream);
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
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<()> {
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
                _ => return Poll::Ready(()),
            }
        }
    }
}
