//! Statements about pgherd itself on the client port. Reads what is published; must not change anything.

use crate::routing::Traces;
use crate::sql::Effect;
use crate::support::clock::{Instant, now};
use crate::wire::{front, sqlstate};

use super::context::Context;
use super::counters::Counters;
use super::frames;
use super::local::{Answer, Refusal};
use super::look::Where;
use super::shown::Description;
use super::survey::Survey;
use super::{End, Session};

impl Session {
    /// Answers `SHOW POOL_…` and `PGPOOL …`, whose words come folded.
    pub(super) fn administer(&mut self, words: &[Box<str>]) -> Result<Answer, Refusal> {
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        match &words[..] {
            ["pgpool", "show", "route", text] => Ok(self.show_route(text)),
            ["pgpool", "show", "counters"] => Ok(self.show_counters()),
            ["pgpool", "show", "sessions"] => self.show_sessions(),
            ["show", "pool_nodes"] => Ok(self.show_nodes()),
            ["show", "pool_version"] => {
                Ok(rows(vec!["pool_version"], vec![vec![Some(format!("pgherd {}", env!("CARGO_PKG_VERSION")))]]))
            }
            other => {
                let message = format!("unknown statement about the pool: {}", other.join(" "));
                let hint = "SHOW POOL_NODES, SHOW POOL_VERSION and PGPOOL SHOW { ROUTE '…' | SESSIONS | COUNTERS } are understood.";
                Err(Refusal::new(sqlstate::SYNTAX_ERROR, message).with_hint(hint))
            }
        }
    }

    /// Where a statement would go now, and why.
    fn show_route(&mut self, text: &str) -> Answer {
        let looked = self.look(text.as_bytes());
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
        let opaque = if looked.verdict.verdict.traces == Traces::Opaque { "yes" } else { "no" };
        let row = [target.as_str(), reason.name(), Context::sentence(reason), opaque].map(|cell| Some(cell.to_owned()));
        rows(vec!["target", "reason", "explanation", "opaque"], vec![row.to_vec()])
    }

    /// What all data threads have counted together, and how old the samples of the servers' positions are.
    fn show_counters(&self) -> Answer {
        let global = &self.context.global;
        let sum = |of: &fn(&Counters) -> &super::Count| global.counters.iter().map(|one| of(one).get()).sum::<u64>();
        let mut all: Vec<_> = Counters::ALL.iter().map(|(name, of)| ((*name).to_owned(), sum(of))).collect();
        all.push(("held_now".to_owned(), u64::from(global.held.waiting())));
        let (view, now) = (global.cluster.view(), now());
        for node in &view.nodes {
            if let Some(sample) = global.cluster.samples.newest(node.id).filter(|sample| sample.epoch == view.epoch) {
                let age = now.saturating_duration_since(sample.asked).as_millis();
                all.push((format!("sample_age_ms_node_{}", node.id), u64::try_from(age).unwrap_or(u64::MAX)));
            }
        }
        let row = |(name, number): (String, u64)| vec![Some(name), Some(number.to_string())];
        rows(vec!["name", "value"], all.into_iter().map(row).collect())
    }

    /// Is the request at the front of the input a short text for pgherd itself?
    pub(super) fn asks_pgherd(&self) -> bool {
        const LONGEST: usize = 200;
        let Ok(Some(header)) = self.client.header() else { return false };
        if !matches!(header.tag, front::QUERY | front::PARSE) || header.size > LONGEST {
            return false;
        }
        let Some(body) = self.client.input.filled().get(5..header.size) else { return false };
        let text = match header.tag {
            front::QUERY => frames::query(body),
            _ => frames::parse(body).map(|parse| parse.text),
        };
        let Some(text) = text.map(<[u8]>::trim_ascii_start) else { return false };
        [&b"pgpool"[..], b"show pool_"]
            .iter()
            .any(|start| text.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start)))
    }

    /// Gets what such a text may ask for. A session that keeps its server connection is answered here and now, so that by the extended
    /// protocol, too, the server does not see the text; true if that is done.
    pub(super) async fn administer_at_rest(&mut self) -> Result<bool, End> {
        let Some(survey) = self.survey().map_err(End::Fault)?.filter(|survey| survey.complete) else {
            return Ok(false);
        };
        let Some(looked) = survey.single().filter(|_| survey.executes == 1).cloned() else { return Ok(false) };
        let [Effect::Admin { words }] = &looked.facts.effects[..] else { return Ok(false) };
        if words.iter().any(|word| **word == *"sessions") {
            self.gathered = (self.context.global.describe)().await;
        }
        if self.lease.as_ref().is_none_or(|lease| !lease.server.at_rest() || !lease.quiet()) {
            return Ok(false);
        }
        match self.local_answer(&looked) {
            Some(Ok(answer)) => self.answer(&survey, &answer),
            Some(Err(refusal)) => self.refuse(&survey, &refusal),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// One row for each session. Others' are shown to superusers and the monitor role alone but for who they are and what they do.
    fn show_sessions(&mut self) -> Result<Answer, Refusal> {
        let Some(mut all) = self.gathered.take() else {
            let text =
                "PGPOOL SHOW SESSIONS cannot run in a transaction block, and a thread may have been too busy to answer";
            return Err(Refusal::new(sqlstate::OBJECT_NOT_IN_STATE, text));
        };
        all.sort_by_key(|one| one.since);
        let sees_all = self.told.get("is_superuser") == Some(b"on") || self.context.is_monitor(&self.who.user);
        let now = now();
        let seconds = |since: Instant| format!("{:.1}", now.saturating_duration_since(since).as_secs_f64());
        let row = |one: Description| {
            let own = sees_all || one.user == self.who.user;
            let private = |text: String| own.then_some(text);
            vec![
                Some(one.id.to_string()),
                Some(one.thread.to_string()),
                Some(one.database.to_string()),
                Some(one.user.to_string()),
                private(one.application_name),
                private(one.client.to_string()),
                Some(seconds(one.since)),
                Some(one.doing.words().to_owned()),
                Some(seconds(one.doing_since)),
                one.pinned,
                private(one.carried.join(", ")),
                one.server.map(|(node, _)| node.to_string()),
                one.server.map(|(_, process)| process.to_string()),
                Some(one.probes.to_string()),
                Some(one.retries.to_string()),
            ]
        };
        let columns = vec![
            "session",
            "thread",
            "database",
            "username",
            "application_name",
            "client",
            "seconds",
            "state",
            "state_seconds",
            "pinned",
            "carried",
            "node_id",
            "server_pid",
            "probes",
            "retries",
        ];
        Ok(rows(columns, all.into_iter().map(row).collect()))
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
