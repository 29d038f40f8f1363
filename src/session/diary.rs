//! The log lines of clients that come and go, if `log.connections` wants them. Must not be on the path of a statement.

use super::{End, Session};

impl Session {
    pub(super) fn log_arrival(&self) {
        if self.context.settings.borrow().log_connections {
            let (user, database, client) = (&*self.who.user, &*self.who.database, self.control.shown.peer());
            tracing::info!(event = "connected", session = self.id, user, database, %client, "a client has logged in");
        }
    }

    pub(super) fn log_end(&self, end: &End) {
        if self.context.settings.borrow().log_connections {
            let (user, database, client) = (&*self.who.user, &*self.who.database, self.control.shown.peer());
            let seconds = self.control.since.elapsed().as_secs_f64();
            let why = match end {
                End::Client => "the client has left".to_owned(),
                End::Fault(fault) => fault.to_string(),
                End::Stopped => "pgherd stops".to_owned(),
                End::Fatal(refusal) => refusal.message.clone(),
            };
            tracing::info!(event = "disconnected", session = self.id, user, database, %client, seconds, "{why}");
        }
    }
}
