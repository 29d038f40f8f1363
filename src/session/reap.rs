//! Server connections that their session left in the middle of something: made fit for the next one, or closed. Runs as
//! tasks of the thread, never from a destructor; each has a deadline.

use std::rc::Rc;

use crate::backend::{Carried, Leftovers, Lost, Pool, Server};
use crate::sql::Flags;
use crate::support::buffer::BufferPool;
use crate::support::clock::Duration;
use crate::wire::TxStatus;

use super::Session;
use super::lease::Leased;

/// How long a statement whose client has vanished may still run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long rolling back and cleaning may take.
const CLEANING: Duration = Duration::from_secs(10);
/// How long a CancelRequest may take before the connection that it is for is given up.
const CANCELLING: Duration = Duration::from_secs(5);

/// Takes over a lease whose client is gone. PostgreSQL would go on with what it was sent, so that is waited for; a statement that only
/// reads is cancelled.
pub(super) fn abandon(session: &mut Session, mut lease: Box<Leased>) {
    session.pin = None;
    // Whatever of it still comes true, nobody is told of any more.
    session.spread(lease.notes.news);
    let Some(pool) = session.pool(lease.server.identity.node) else { return };
    if lease.up.left > 0 || lease.up.pass > 0 || lease.down.left > 0 {
        // In the middle of a message: the server sees the end of the connection and gives up.
        return pool.lost(lease.server);
    }
    if lease.server.expected.in_series() && !lease.server.expected.skipping() {
        // What was executed without a Sync is rolled back by the end of the connection, and by nothing that keeps it.
        return pool.lost(lease.server);
    }
    let reads = !lease.notes.flags.any(Flags::WRITES.with(Flags::OPAQUE));
    if reads && !lease.server.expected.is_empty() {
        session.send_cancel(&lease.server);
    }
    lease.server.end_messages();
    lease.server.input.consume(std::mem::take(&mut lease.down.pass));
    let buffers = session.context.hub.buffers.clone();
    let known = lease.notes.flags.has(Flags::DDL).then(|| session.who.known.clone());
    tokio::task::spawn_local(async move {
        let mut server = lease.server;
        let cleaned = clean(&mut server, &buffers).await;
        if let Some(known) = known {
            known.changed();
        }
        match cleaned {
            Ok(()) => put(pool, server).await,
            Err(_) => pool.lost(server),
        }
    });
}

async fn clean(server: &mut Server, buffers: &BufferPool) -> Result<(), Lost> {
    within(PATIENCE, server.drain(buffers, &mut Vec::new())).await?;
    if server.status != TxStatus::Idle {
        ask(server, b"ROLLBACK", buffers).await?;
    }
    ask(server, b"DISCARD ALL", buffers).await?;
    server.statements.clear();
    server.applied = Carried::none();
    server.leftovers = Leftovers { session: 0, sequences: 0, dirty: false };
    Ok(())
}

async fn ask(server: &mut Server, text: &[u8], buffers: &BufferPool) -> Result<(), Lost> {
    let outcome = within(CLEANING, server.ask(text, buffers)).await?;
    match outcome.error {
        None => Ok(()),
        Some((code, message)) => Err(Lost::Protocol(format!("cleaning failed: {code} {message}"))),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Lost::Timeout))
}

/// Gives a connection back once no CancelRequest is under way for it (SESSIONS R18).
pub(super) fn after_cancels(pool: Rc<Pool>, server: Box<Server>) {
    tokio::task::spawn_local(put(pool, server));
}

async fn put(pool: Rc<Pool>, server: Box<Server>) {
    // What the cancel may have hit came before its connection was closed; a notice of it is read here.
    match settle_cancels(&server).await {
        Ok(()) if server.at_rest() => pool.put(server),
        _ => pool.lost(server),
    }
}

/// Waits until no CancelRequest is under way for a connection, so that what is sent next cannot be hit by one.
///
/// # Errors
/// It takes too long: the connection cannot be trusted.
pub(super) async fn settle_cancels(server: &Server) -> Result<(), Lost> {
    let mut waited = Duration::ZERO;
    while server.cancels.get() > 0 {
        const STEP: Duration = Duration::from_millis(2);
        if waited > CANCELLING {
            return Err(Lost::Timeout);
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
    Ok(())
}
