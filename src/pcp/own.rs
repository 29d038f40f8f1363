//! What pgherd's own client asks beyond pgpool-II's protocol: one more kind of message, with JSON in it, answered in JSON by the same kind,
//! with any number of lines of progress before it. Words only; must not know what comes of them.

use serde::{Deserialize, Serialize};

use super::request::StopMode;

/// The kind of such a request and of its answer. No message of pgpool-II has it.
pub const OWN: u8 = b'#';
/// The kind of a line of progress.
pub const PROGRESS: u8 = b'+';
/// Events that one answer may have.
pub const MOST_EVENTS: usize = 1_000;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Own {
    /// Nodes, pools, and how clients fare.
    Overview,
    /// The nodes, or one of them.
    Nodes {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u16>,
    },
    /// The health checks of all nodes, or one.
    HealthChecks {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u16>,
    },
    /// The sessions, or one of them.
    Sessions {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<i32>,
    },
    /// The pools.
    Pools,
    /// The settings.
    Settings,
    /// The partner proxies.
    Watchdog,
    /// Do not use a node any more.
    Detach {
        /// Which.
        node: u16,
        /// Answer when no transaction uses it any more.
        #[serde(default)]
        gracefully: bool,
    },
    /// Use it again.
    Attach {
        /// Which.
        node: u16,
    },
    /// Make a node primary in place of a dead one.
    Promote {
        /// Which.
        node: u16,
    },
    /// Move the primary's role.
    SwitchOver {
        /// To which; none: the best.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<u16>,
    },
    /// Rebuild a node.
    Recover {
        /// Which.
        node: u16,
    },
    /// Read the configuration file again.
    Reload {
        /// All partner proxies, too.
        #[serde(default)]
        group: bool,
    },
    /// End.
    Stop {
        /// How.
        mode: StopMode,
        /// All partner proxies, too.
        #[serde(default)]
        group: bool,
    },
    /// Let no new statement begin.
    Pause {
        /// Whole seconds, after which they go on by themselves.
        seconds: u32,
        /// Answer when no statement is under way any more.
        #[serde(default)]
        wait: bool,
    },
    /// Let them go on.
    Resume,
    /// Cancel what a session does.
    Cancel {
        /// Which.
        session: i32,
    },
    /// End a session.
    End {
        /// Which.
        session: i32,
    },
    /// Replace server connections by new ones.
    ResetPool(Which),
    /// What has happened.
    Events {
        /// Only events with a greater number.
        #[serde(default)]
        after: u64,
        /// At most so many, the newest.
        most: usize,
    },
}

/// Which pools; what is not given matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Which {
    /// Of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u16>,
    /// Of this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Own {
    /// Does it change something, so that what happens meanwhile is worth telling?
    pub(super) fn is_order(&self) -> bool {
        use Own as O;
        match self {
            O::Detach { .. } | O::Attach { .. } | O::Promote { .. } | O::SwitchOver { .. } | O::Recover { .. } => true,
            O::Pause { .. } | O::Reload { .. } => true,
            O::Overview | O::Nodes { .. } | O::HealthChecks { .. } | O::Sessions { .. } | O::Pools | O::Settings => {
                false
            }
            O::Watchdog | O::Stop { .. } | O::Resume | O::Cancel { .. } | O::End { .. } => false,
            O::ResetPool(_) | O::Events { .. } => false,
        }
    }

    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("no request: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::MOST_REQUEST;
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written_and_fit() {
        let name = "n".repeat(63);
        let which = Which { node: Some(65_535), database: Some(name.clone()), user: Some(name) };
        for own in [
            Own::Overview,
            Own::Nodes { node: None },
            Own::Sessions { session: Some(i32::MAX) },
            Own::Detach { node: 1, gracefully: true },
            Own::SwitchOver { node: Some(2) },
            Own::Stop { mode: StopMode::Fast, group: true },
            Own::Reload { group: true },
            Own::Pause { seconds: 30, wait: true },
            Own::ResetPool(which),
            Own::ResetPool(Which::default()),
            Own::Events { after: u64::MAX, most: 100 },
        ] {
            let text = serde_json::to_vec(&own).expect("JSON");
            assert!(text.len() <= MOST_REQUEST, "{own:?}");
            assert_eq!(Own::read(&text), Ok(own));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in
            ["", "{}", "{\"command\":\"format_disk\"}", "{\"command\":\"detach\"}", "[]", "\"overview\"", "\u{0}"]
        {
            assert!(Own::read(text.as_bytes()).is_err_and(|why| why.starts_with("no request")), "{text}");
        }
        assert!(Own::read(br#"{"command":"pause","seconds":-1}"#).is_err());
        assert!(Own::read(br#"{"command":"stop","mode":"soon"}"#).is_err());
        assert!(Own::read(br#"{"command":"attach","node":1,"force":true}"#).is_err());
    }
}
