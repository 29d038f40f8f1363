//! Statements about pgherd itself on the client port: what is asked, by whom, and how the answer comes about. Reads what is published;
//! changes nothing but this session's own parameters.

mod inside;
mod own;
mod pgpool;
mod vars;

use std::borrow::Cow;

use crate::sql::Effect;
use crate::support::clock::{Duration, Instant, SystemTime, stamp};
use crate::wire::{front, sqlstate};

use super::local::{Answer, Refusal};
use super::{Context, End, Session, frames};

/// Rows of a table as text.
type Rows = Vec<Vec<Option<String>>>;

/// What PGPOOL SET has changed for one session.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Its statements are logged.
    pub(super) logs: bool,
}

/// A table that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Show {
    Status,
    Nodes,
    Processes,
    PoolPools,
    Version,
    Cache,
    HealthCheckStats,
    BackendStats,
    Watchdog,
    Sessions,
    Waiting,
    Pinned,
    Counters,
    Routing,
    Pools,
    OwnNodes,
    Events(usize),
    Statements(usize),
    Route(String),
    Variable(vars::Asked),
}

/// A statement about pgherd.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    Show(Show),
    Set(String, Option<String>),
    Reset(String),
    ResetAll,
}

const HINT: &str = "SHOW POOL_{ STATUS | NODES | PROCESSES | POOLS | VERSION | CACHE | HEALTH_CHECK_STATS | BACKEND_STATS | WATCHDOG }, PGPOOL SHOW \
    { NODES | SESSIONS | WAITING | PINNED | POOLS | ROUTING | COUNTERS | EVENTS [n] | STATEMENTS [n] | ROUTE '…' | ALL | parameter }, PGPOOL SET \
    and PGPOOL RESET are understood.";

/// Rows of a list that is not told how long to be.
const LIST: usize = 50;

impl Command {
    fn read(words: &[&str]) -> Option<Self> {
        let count = |text: &str| text.parse().ok();
        Some(Self::Show(match words {
            ["show", "pool_status"] => Show::Status,
            ["show", "pool_nodes"] => Show::Nodes,
            ["show", "pool_processes"] => Show::Processes,
            ["show", "pool_pools"] => Show::PoolPools,
            ["show", "pool_version"] => Show::Version,
            ["show", "pool_cache"] => Show::Cache,
            ["show", "pool_health_check_stats"] => Show::HealthCheckStats,
            ["show", "pool_backend_stats"] => Show::BackendStats,
            ["show", "pool_watchdog"] => Show::Watchdog,
            ["pgpool", "show", "sessions"] => Show::Sessions,
            ["pgpool", "show", "waiting"] => Show::Waiting,
            ["pgpool", "show", "pinned"] => Show::Pinned,
            ["pgpool", "show", "counters"] => Show::Counters,
            ["pgpool", "show", "routing"] => Show::Routing,
            ["pgpool", "show", "pools"] => Show::Pools,
            ["pgpool", "show", "nodes"] => Show::OwnNodes,
            ["pgpool", "show", "events"] => Show::Events(LIST),
            ["pgpool", "show", "events", most] => Show::Events(count(most)?),
            ["pgpool", "show", "statements"] => Show::Statements(LIST),
            ["pgpool", "show", "statements", most] => Show::Statements(count(most)?),
            ["pgpool", "show", "route", text] => Show::Route((*text).to_owned()),
            ["pgpool", "show", name @ ..] if !name.is_empty() => Show::Variable(vars::Asked::new(&name.concat())),
            ["pgpool", "reset", "all"] => return Some(Self::ResetAll),
            ["pgpool", "reset", name] => return Some(Self::Reset((*name).to_owned())),
            ["pgpool", "set", name, "to" | "=", value] => {
                let value = (*value != "default").then(|| (*value).to_owned());
                return Some(Self::Set((*name).to_owned(), value));
            }
            _ => return None,
        }))
    }
}

impl Show {
    /// It is about the sessions of all threads, which must be asked first.
    fn gathers(&self) -> bool {
        matches!(self, Self::Sessions | Self::Waiting | Self::Pinned | Self::Processes | Self::PoolPools)
    }

    fn columns(&self) -> Vec<Cow<'static, str>> {
        let named: &[&'static str] = match self {
            Self::Status => &["item", "value", "description"],
            Self::Nodes => pgpool::NODES,
            Self::Processes => pgpool::PROCESSES,
            Self::PoolPools => pgpool::POOLS,
            Self::Version => &["pool_version"],
            Self::Cache => pgpool::CACHE,
            Self::HealthCheckStats => pgpool::HEALTH_CHECK_STATS,
            Self::BackendStats => pgpool::BACKEND_STATS,
            Self::Watchdog => own::WATCHDOG,
            Self::Sessions => own::SESSIONS,
            Self::Waiting => own::WAITING,
            Self::Pinned => own::PINNED,
            Self::Counters => &["name", "value"],
            Self::Routing => own::ROUTING,
            Self::Pools => own::POOLS,
            Self::OwnNodes => own::NODES,
            Self::Events(_) => own::EVENTS,
            Self::Statements(_) => own::STATEMENTS,
            Self::Route(_) => &["target", "reason", "explanation", "opaque"],
            Self::Variable(asked) => return asked.columns(),
        };
        named.iter().map(|name| Cow::Borrowed(*name)).collect()
    }
}

impl Session {
    /// Answers `SHOW POOL_…` and `PGPOOL …`, whose words come folded.
    pub(super) fn administer(&mut self, words: &[Box<str>]) -> Result<Answer, Refusal> {
        let command = self.command(words)?;
        match command {
            Command::Show(show) => {
                let columns = show.columns();
                self.rows(&show).map(|rows| Answer::Rows { columns, rows })
            }
            Command::Set(name, value) => self.set_own(&name, value.as_deref()),
            Command::Reset(name) => self.set_own(&name, None),
            Command::ResetAll => {
                self.own = Own::default();
                Ok(Answer::Tag("RESET"))
            }
        }
    }

    /// What the answer will look like, without its rows: for a statement that is described before it is executed.
    pub(super) fn describe_admin(&self, words: &[Box<str>]) -> Result<Answer, Refusal> {
        Ok(match self.command(words)? {
            Command::Show(show) => Answer::Rows { columns: show.columns(), rows: Vec::new() },
            _ => Answer::Tag("SET"),
        })
    }

    /// What is meant, if this user may ask for it.
    fn command(&self, words: &[Box<str>]) -> Result<Command, Refusal> {
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        let Some(command) = Command::read(&words) else {
            let message = format!("unknown statement about the pool: {}", words.join(" "));
            return Err(Refusal::new(sqlstate::SYNTAX_ERROR, message).with_hint(HINT));
        };
        // Where a statement of one's own would go is everyone's to ask.
        let open =
            !matches!(command, Command::Show(_)) || matches!(command, Command::Show(Show::Route(_) | Show::Version));
        let sets = matches!(command, Command::Set(..));
        if (sets || !open && !self.context.is_observer(&self.who.user)) && !self.sees_all() {
            let what = if sets { "set anything of the pool" } else { "look into the pool" };
            let message = format!("\"{}\" may not {what}", self.who.user);
            let hint = "auth.stats_users and auth.admin_users say who may.";
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message).with_hint(hint));
        }
        Ok(command)
    }

    /// May this session see what is other users' own?
    fn sees_all(&self) -> bool {
        self.told.get("is_superuser") == Some(b"on") || self.context.is_admin(&self.who.user)
    }

    fn rows(&mut self, show: &Show) -> Result<Rows, Refusal> {
        let context = self.context.clone();
        let global = context.global.clone();
        Ok(match show {
            Show::Status => {
                let rows = global.settings.load().status(&global.cluster.view());
                rows.into_iter().map(|row| texts([row.name, row.value, row.description])).collect()
            }
            Show::Nodes => self.pool_nodes(),
            Show::Processes => pgpool::processes(&context, &self.sessions_seen()?),
            Show::PoolPools => pgpool::pools(&context, &self.sessions_seen()?),
            Show::Version => vec![texts([pgpool::version()])],
            Show::Cache => vec![pgpool::no_cache()],
            Show::HealthCheckStats => pgpool::health_check_stats(&global),
            Show::BackendStats => pgpool::backend_stats(&global),
            Show::Watchdog => own::watchdog(&global),
            Show::Sessions => {
                let all = self.sees_all();
                own::sessions(self.sessions_seen()?, all, &self.who.user)
            }
            Show::Waiting => own::waiting(self.sessions_seen()?),
            Show::Pinned => own::pinned(self.sessions_seen()?),
            Show::Counters => own::counters(&global),
            Show::Routing => own::routing(&global),
            Show::Pools => own::pools(&global),
            Show::OwnNodes => own::nodes(&global),
            Show::Events(most) => own::events(&global, *most),
            Show::Statements(most) => own::statements(&global, *most),
            Show::Route(text) => self.show_route(text),
            Show::Variable(asked) => asked.rows(&global, &self.own)?,
        })
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
        let Some(looked) = survey.single().filter(|_| survey.executes <= 1).cloned() else { return Ok(false) };
        let [Effect::Admin { words }] = &looked.facts.effects[..] else { return Ok(false) };
        if survey.executes == 1 {
            self.gather(words).await;
        }
        if self.lease.as_ref().is_none_or(|lease| !lease.server.at_rest() || !lease.quiet()) {
            return Ok(false);
        }
        let answer = if survey.executes == 0 { self.describe_admin(words) } else { self.administer(words) };
        match answer {
            Ok(answer) => self.answer(&survey, &answer),
            Err(refusal) => self.refuse(&survey, &refusal),
        }
        self.not_timed();
        Ok(true)
    }

    /// Asks all threads for their sessions, if the statement of these words needs them.
    pub(super) async fn gather(&mut self, words: &[Box<str>]) {
        if self.gathered.is_none() && self.command(words).is_ok_and(|command| gathers(&command)) {
            self.gathered = (self.context.global.describe)().await;
        }
    }

    /// The sessions of all threads, the oldest first.
    fn sessions_seen(&mut self) -> Result<Vec<super::Description>, Refusal> {
        let Some(mut all) = self.gathered.take() else {
            let text = "sessions cannot be shown here in a transaction that has begun, and a thread may have been too busy to answer";
            return Err(Refusal::new(sqlstate::OBJECT_NOT_IN_STATE, text));
        };
        all.sort_by_key(|one| one.since);
        Ok(all)
    }
}

fn gathers(command: &Command) -> bool {
    matches!(command, Command::Show(show) if show.gathers())
}

/// A row without NULLs.
fn texts<const N: usize>(cells: [String; N]) -> Vec<Option<String>> {
    cells.into_iter().map(Some).collect()
}

/// Seconds of a wait or of a state, for people.
fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

/// Milliseconds, for people.
fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1_000.0)
}

/// A time of the wall clock; empty if there was none.
fn time(at: Option<SystemTime>) -> String {
    at.map(stamp).unwrap_or_default()
}

impl Context {
    /// What the wall clock said then.
    fn wall_at(&self, at: Instant) -> SystemTime {
        self.global.born + at.saturating_duration_since(self.global.started)
    }
}
