//! What the watchdog needs of the rest of the process. Implemented by `app`. Must not decide.

use std::net::IpAddr;

use tokio::sync::mpsc;

use crate::cluster::{Errand, NodeId, Sign};
use crate::support::clock::Instant;

/// A row as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// The process, as the watchdog sees it.
pub trait Hands {
    /// A session on a server, as the monitor role.
    type Session;

    /// Logs in. The caller sets a deadline.
    ///
    /// # Errors
    /// For people.
    fn open(&self, node: NodeId) -> impl Future<Output = Result<Self::Session, String>>;

    /// Rows of one query. Not cancel safe: who drops the future drops the session.
    ///
    /// # Errors
    /// What the server said, or what became of the connection.
    fn ask(&self, session: &mut Self::Session, sql: &str) -> impl Future<Output = Result<Vec<Row>, String>>;

    /// Every data thread has seen that nothing may begin; what is under way on that primary ends, until then by itself if it lives, and by
    /// force behind that. No answer to it counts any more.
    ///
    /// # Errors
    /// It is not known to be so.
    fn stop_writing(&self, node: Option<NodeId>, patience: Instant) -> impl Future<Output = Result<(), String>>;

    /// Ends every session that was accepted on this address; how many.
    fn end_sessions(&self, address: IpAddr) -> usize;

    /// Cancels what the session of that number does, if `is_right` says so of one of its secrets. False: there can be none of that number
    /// here, or the secret is another one.
    fn cancel(&self, session: i32, is_right: &dyn Fn(&[u8]) -> bool) -> bool;

    /// Begins to do what a partner has asked for, for that person, and tells `signs` until it is over.
    ///
    /// # Errors
    /// Nothing was begun; why, for people.
    fn obey(&self, errand: Errand, who: String, signs: mpsc::Sender<Sign>) -> Result<(), String>;
}
