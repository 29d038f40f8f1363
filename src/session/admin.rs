//! Statements about pgherd itself on the client port. Reads what is published; must not change anything.

use crate::wire::sqlstate;

use super::Session;
use super::context::Context;
use super::local::{Answer, Refusal};
use super::look::Where;
use super::survey::Survey;

impl Session {
    /// Answers `SHOW POOL_…` and `PGPOOL …`, whose words come folded.
    pub(super) fn administer(&mut self, words: &[Box<str>]) -> Result<Answer, Refusal> {
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        match &words[..] {
            ["pgpool", "show", "route", text] => Ok(self.show_route(text)),
            ["show", "pool_nodes"] => Ok(self.show_nodes()),
            ["show", "pool_version"] => {
                Ok(rows(vec!["pool_version"], vec![vec![Some(format!("pgherd {}", env!("CARGO_PKG_VERSION")))]]))
            }
            other => {
                let message = format!("unknown statement about the pool: {}", other.join(" "));
                let hint = "SHOW POOL_NODES, SHOW POOL_VERSION and PGPOOL SHOW ROUTE '…' are understood.";
                Err(Refusal::new(sqlstate::SYNTAX_ERROR, message).with_hint(hint))
            }
        }
    }

    /// Where a statement would go now, and why.
    fn show_route(&mut self, text: &str) -> Answer {
        let looked = self.look(text.as_bytes(), false);
        let verdict = looked.verdict.verdict;
        let (target, reason) = if looked.standby_ok() {
            let survey = Survey::of_text(looked.clone());
            let (place, reason) = self.place_and_reason(&survey, &[]);
            match place {
                Where::Standby(node) => (format!("standby {node}"), reason),
                Where::Primary => ("primary".to_owned(), reason),
            }
        } else {
            ("primary".to_owned(), verdict.reason)
        };
        let opaque = if looked.verdict.opaque { "yes" } else { "no" };
        let row = [target.as_str(), reason.name(), Context::sentence(reason), opaque].map(|cell| Some(cell.to_owned()));
        rows(vec!["target", "reason", "explanation", "opaque"], vec![row.to_vec()])
    }

    fn show_nodes(&self) -> Answer {
        let view = self.context.cluster().view();
        let total: f64 = view.nodes.iter().map(|node| node.weight).sum();
        let row = |node: &crate::cluster::NodeView| {
            let share = if total > 0.0 { node.weight / total } else { 0.0 };
            let position = node.position.as_ref();
            vec![
                Some(node.id.to_string()),
                Some(node.name.clone()),
                Some(node.status.to_string()),
                Some(node.role.to_string()),
                Some(format!("{share:.6}")),
                position.map(|position| position.sample.lsn.to_string()),
                node.lag.map(|lag| lag.to_string()),
                Some(view.epoch.0.to_string()),
            ]
        };
        let columns = vec!["node_id", "name", "status", "role", "lb_weight", "lsn", "replication_delay", "epoch"];
        rows(columns, view.nodes.iter().map(row).collect())
    }
}

fn rows(columns: Vec<&'static str>, rows: Vec<Vec<Option<String>>>) -> Answer {
    Answer::Rows { columns, rows, tag: "SHOW" }
}
