//! What the administration port needs of the rest of the process; `app` implements it. Must not hold logic.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::admins::Admins;
use super::own::Which;
use super::reloaded::Reloaded;
use super::request::StopMode;
use crate::cluster::{Errand, NodeId, Sign};
use crate::config::Settings;
use crate::failover::engine::Order;
use crate::session::Global;

/// The rest of the process.
pub trait House {
    /// The settings that hold.
    fn settings(&self) -> Arc<Settings>;

    /// The administrators that hold.
    fn admins(&self) -> Arc<Admins>;

    /// What the data threads share: view, pools, counters, sessions.
    fn global(&self) -> &Arc<Global>;

    /// Clients that are connected, those that still log in included.
    fn clients(&self) -> usize;

    /// Takes an order to the failover engine; the answer is there when it is over.
    ///
    /// # Errors
    /// Why it is refused, or failed, for people.
    fn order(&self, order: Order) -> impl Future<Output = Result<String, String>>;

    /// Has a node rebuilt from the primary; the answer is there when it is used, or when it failed.
    ///
    /// # Errors
    /// Why it is refused, or failed, for people.
    fn recover(&self, node: NodeId) -> impl Future<Output = Result<String, String>>;

    /// Takes this proxy orders about nodes? True where it leads its partners, and where there are none.
    fn leads(&self) -> bool;

    /// Asks a partner for something, for `who`; what comes of it goes to `signs`, and their end says that nobody knows.
    ///
    /// # Errors
    /// Nothing was asked; why, for people.
    fn ask(&self, partner: &str, errand: Errand, who: &str, signs: mpsc::Sender<Sign>) -> Result<(), String>;

    /// How far a partner has come with what it was asked, for [`recovery`](Self::recovery) to tell; empty: it is over.
    fn tell_progress(&self, how: String);

    /// The recovery under way, for people; empty: there is none.
    fn recovery(&self) -> String;

    /// Reads the configuration file again, for `who`.
    ///
    /// # Errors
    /// Nothing was changed; why, for people.
    fn reload(&self, who: &str) -> impl Future<Output = Result<Reloaded, String>>;

    /// Can it be stopped so?
    ///
    /// # Errors
    /// Why not, for people.
    fn may_stop(&self) -> Result<(), String>;

    /// Begins to stop, for `who`; returns at once. To be asked once the client has its answer.
    fn stop(&self, mode: StopMode, who: &str);

    /// Cancels what a session does; false if there is no such session.
    ///
    /// # Errors
    /// Its thread does not answer: nobody knows.
    fn cancel(&self, session: i32) -> impl Future<Output = Result<bool, String>>;

    /// Ends a session; false if there is none.
    ///
    /// # Errors
    /// The same.
    fn end(&self, session: i32) -> impl Future<Output = Result<bool, String>>;

    /// Server connections of these pools end as soon as they are idle. How many were open.
    fn reset(&self, which: &Which) -> impl Future<Output = u32>;
}
