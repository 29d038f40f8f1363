//! `PGPOOL SHOW`, `SET` and `RESET` of parameters. What is set holds for this session; the rest is the configuration file's to change.

use std::borrow::Cow;

use crate::session::local::{Answer, Refusal};
use crate::session::{Global, Session};

use super::{Own, Rows, texts};

/// SQLSTATE of pgpool-II's own errors.
const INTERNAL: &str = "XX000";

/// Parameters that a session may set for itself, in pgpool-II's words and in ours.
const SETTABLE: [&str; 3] = ["log_statement", "log_per_node_statement", "log.statements"];

/// Groups of pgpool-II: all items that begin so.
const GROUPS: [&str; 4] = ["backend", "watchdog", "heartbeat", "health_check"];

/// What `PGPOOL SHOW` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    name: String,
}

impl Asked {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// More than one item: `ALL`, a group, a parameter of every node.
    fn many(&self) -> bool {
        const PER_NODE: [&str; 8] = [
            "backend_hostname",
            "backend_port",
            "backend_weight",
            "backend_data_directory",
            "backend_status",
            "standby_delay",
            "backend_flag",
            "backend_application_name",
        ];
        self.name == "all" || GROUPS.contains(&&*self.name) || PER_NODE.contains(&&*self.name)
    }

    pub(super) fn columns(&self) -> Vec<Cow<'static, str>> {
        match self.many() {
            true => ["item", "value", "description"].map(Cow::Borrowed).to_vec(),
            false => vec![Cow::Owned(self.name.clone())],
        }
    }

    pub(super) fn rows(&self, global: &Global, own: &Own) -> Result<Rows, Refusal> {
        let mut rows = global.settings.load().status(&global.cluster.view());
        if own.logs {
            for row in rows.iter_mut().filter(|row| SETTABLE.contains(&&*row.name)) {
                row.value = if row.name.contains('.') { "true".to_owned() } else { "1".to_owned() };
            }
        }
        if self.many() {
            let fits = |name: &str| self.name == "all" || name.starts_with(self.name.as_str());
            rows.retain(|row| fits(&row.name));
            return Ok(rows.into_iter().map(|row| texts([row.name, row.value, row.description])).collect());
        }
        let found = rows.into_iter().find(|row| row.name.eq_ignore_ascii_case(&self.name));
        match found {
            Some(row) => Ok(vec![texts([row.value])]),
            None => Err(unknown(&self.name)),
        }
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal::new(INTERNAL, format!("config variable \"{name}\" not found"))
}

impl Session {
    /// PGPOOL SET and RESET; no value is the configuration file's.
    pub(super) fn set_own(&mut self, name: &str, value: Option<&str>) -> Result<Answer, Refusal> {
        if !SETTABLE.contains(&name) {
            let global = &self.context.global;
            let known = global.settings.load().status(&global.cluster.view());
            if !known.iter().any(|row| row.name.eq_ignore_ascii_case(name)) {
                return Err(unknown(name));
            }
            let message = format!("invalid Context, value for parameter \"{name}\" cannot be changed");
            return Err(Refusal::new(INTERNAL, message).with_hint("Change it in the configuration file, and reload."));
        }
        self.own.logs = match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("off" | "false" | "no" | "0") => false,
            Some("on" | "true" | "yes" | "1") => true,
            Some(other) => {
                let message = format!("invalid value for parameter \"{name}\": \"{other}\"");
                return Err(Refusal::new("22023", message));
            }
        };
        Ok(Answer::Tag("SET"))
    }
}
