//! What is answered here in a server's place: refusals, deferred BEGIN, empty blocks, statements about the session's own
//! bookkeeping. Must not talk to a server.

use std::borrow::Cow;

use crate::sql::{Effect, Facts};
use crate::wire::write::{self, Severity};
use crate::wire::{TxStatus, back, front, sqlstate};

use super::Session;
use super::finish::Pin;
use super::frames;
use super::lease::Leased;
use super::look::{Looked, forbidden_in_statement_mode, pins};
use super::survey::Survey;

/// An error for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    pub(super) fn cancelled() -> Self {
        Self::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
    }

    pub(super) fn stopping() -> Self {
        Self::new(sqlstate::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
    }

    pub(super) fn failed_block() -> Self {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        Self::new(sqlstate::IN_FAILED_TRANSACTION, message)
    }

    /// Appends the ErrorResponse.
    pub(super) fn write(&self, out: &mut Vec<u8>, severity: Severity) {
        write::error(out, severity, &self.code, &self.message, self.hint.as_deref());
    }
}

/// What one answered statement says.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// CommandComplete with that tag.
    Tag(&'static str),
    /// EmptyQueryResponse.
    Empty,
    /// Rows of text.
    Rows {
        /// Column names.
        columns: Vec<Cow<'static, str>>,
        /// Values.
        rows: Vec<Vec<Option<String>>>,
    },
}

impl Answer {
    /// RowDescription or NoData.
    fn describe(&self, out: &mut Vec<u8>) {
        match self {
            Self::Rows { columns, .. } => {
                let columns: Vec<&str> = columns.iter().map(|name| &**name).collect();
                crate::wire::answer::row_description(out, &columns);
            }
            _ => write::empty(out, back::NO_DATA),
        }
    }

    fn execute(&self, out: &mut Vec<u8>) {
        match self {
            Self::Tag(tag) => write::complete(out, tag),
            Self::Empty => write::empty(out, back::EMPTY_QUERY),
            Self::Rows { rows, .. } => {
                for row in rows {
                    crate::wire::answer::data_row(out, row.iter().map(Option::as_deref));
                }
                write::complete(out, &format!("SELECT {}", rows.len()));
            }
        }
    }

    /// Everything that answers a simple query but ReadyForQuery.
    pub(super) fn simple(&self, out: &mut Vec<u8>) {
        if let Self::Rows { .. } = self {
            self.describe(out);
        }
        self.execute(out);
    }
}

impl Session {
    /// The status byte that the client should see while it holds no lease.
    pub(super) fn shown_status(&self) -> TxStatus {
        self.block.shown()
    }

    /// Answers the request at the front of the input, which is complete, with `answer`.
    pub(super) fn answer(&mut self, survey: &Survey, answer: &Answer) {
        let status = self.shown_status();
        let input = std::mem::take(&mut self.client.input);
        let bytes = &input.filled()[..survey.size];
        if survey.series {
            self.answer_series(bytes, answer, status);
        } else {
            self.forget_unnamed();
            self.forget_for(answer);
            answer.simple(&mut self.client.output);
            write::ready(&mut self.client.output, status);
        }
        self.client.input = input;
        self.client.input.consume(survey.size);
    }

    /// The replies that a server would give to each message of a series.
    fn answer_series(&mut self, bytes: &[u8], answer: &Answer, status: TxStatus) {
        for (header, body) in frames::whole(bytes) {
            match header.tag {
                front::PARSE => {
                    self.define_here(body);
                    write::empty(&mut self.client.output, back::PARSE_COMPLETE);
                }
                front::BIND => write::empty(&mut self.client.output, back::BIND_COMPLETE),
                front::DESCRIBE => {
                    if body.first() == Some(&b'S') {
                        write::frame(&mut self.client.output, back::PARAMETER_DESCRIPTION, |out| out.extend([0, 0]));
                    }
                    answer.describe(&mut self.client.output);
                }
                front::EXECUTE => {
                    self.forget_for(answer);
                    answer.execute(&mut self.client.output);
                }
                front::CLOSE => {
                    if let Some((b'S', name)) = frames::target(body) {
                        self.undefine(name);
                        if name.is_empty() {
                            self.forget_unnamed();
                        }
                    }
                    write::empty(&mut self.client.output, back::CLOSE_COMPLETE);
                }
                front::SYNC => write::ready(&mut self.client.output, status),
                _ => {}
            }
        }
    }

    /// DEALLOCATE ALL and DISCARD ALL, answered here (SESSIONS R3).
    fn forget_for(&mut self, answer: &Answer) {
        if let Answer::Tag("DEALLOCATE ALL" | "DISCARD ALL") = answer {
            self.forget_names();
        }
    }

    fn define_here(&mut self, body: &[u8]) {
        let Some(parse) = frames::parse(body) else { return };
        let facts = self.look(parse.text).facts;
        if parse.name.is_empty() {
            self.forget_unnamed();
            self.keep_unnamed(0, parse.tail, facts);
        } else {
            let prepared = self.prepared_now(0, parse.tail, facts);
            self.define(parse.name, prepared);
        }
    }

    /// Fails the request at the front of the input. A block fails with it.
    pub(super) fn refuse(&mut self, survey: &Survey, refusal: &Refusal) {
        self.block.fail();
        if !survey.series {
            self.forget_unnamed();
        }
        refusal.write(&mut self.client.output, Severity::Error);
        let status = self.shown_status();
        match survey.complete {
            true => {
                write::ready(&mut self.client.output, status);
                self.client.input.consume(survey.size);
            }
            false => self.skip = super::Skip::of(survey),
        }
    }

    /// A statement that is about the session's own bookkeeping, in the middle of a lease with nothing owed. False: the server
    /// must see it after all.
    pub(super) fn answer_in_lease(&mut self, lease: &mut Leased, looked: &Looked) -> bool {
        if !lease.quiet() {
            return false;
        }
        let Some(answer) = self.local_answer(looked) else { return false };
        let out = &mut self.client.output;
        match answer {
            Ok(answer) => answer.simple(out),
            Err(refusal) => refusal.write(out, Severity::Error),
        }
        write::ready(out, lease.server.status);
        true
    }

    /// The answer to a statement that needs no server, whatever the state of the session; none if it needs one.
    pub(super) fn local_answer(&mut self, looked: &Looked) -> Option<Result<Answer, Refusal>> {
        if looked.facts.statements != 1 {
            return None;
        }
        match &looked.facts.effects[..] {
            [Effect::Admin { words }] => Some(self.administer(words)),
            [Effect::Deallocate { name: Some(name) }] => {
                self.undefine(name.as_bytes())?;
                Some(Ok(Answer::Tag("DEALLOCATE")))
            }
            _ => None,
        }
    }

    /// A statement that must not run at all: what the pool's mode or its bounds forbid (SESSIONS R5, R21). One that pins and may
    /// run has its place among the pinned ones from here on.
    pub(super) fn refusal(&mut self, facts: &Facts, lease: Option<&Leased>) -> Option<Refusal> {
        if self.who.limits.mode == crate::config::PoolMode::Statement
            && let Some(what) = forbidden_in_statement_mode(facts)
        {
            let message = format!("{what} is not possible with pool mode \"statement\"");
            return Some(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
        }
        if !pins(facts) || self.pin.is_some() || self.who.limits.mode == crate::config::PoolMode::Session {
            return None;
        }
        let node = lease.map(|lease| lease.server.identity.node).or_else(|| self.context.cluster().view().primary)?;
        let pool = self.pool(node)?;
        let most = self.context.most_pinned(&self.who);
        if let Some(pin) = Pin::reserve(pool.shared(), most) {
            self.pin = Some(Box::new(pin));
            return None;
        }
        let message = format!("too many sessions keep a server connection for themselves ({most} of {most})");
        let hint = "Temporary tables, LISTEN, session advisory locks, WITH HOLD cursors and SQL PREPARE do so; raise pool.max_pinned.";
        Some(Refusal::new(sqlstate::TOO_MANY_CONNECTIONS, message).with_hint(hint))
    }

    /// Refuses a simple query in a lease: the server is made to fail its block, if there is one, without the client seeing how.
    pub(super) fn refuse_in_lease(&mut self, lease: &mut Leased, refusal: &Refusal) {
        let mut frames = Vec::new();
        refusal.write(&mut frames, Severity::Error);
        let status = if lease.server.status == TxStatus::Idle { TxStatus::Idle } else { TxStatus::Failed };
        write::ready(&mut frames, status);
        if lease.server.status == TxStatus::InBlock {
            fail_block(&mut lease.server);
        }
        let made = crate::backend::Made::Frames(frames.into());
        lease.server.expected.push(crate::backend::Expect::Made { frames: made, undo: None });
    }
}

/// Makes the server's block fail: a savepoint of that name does not exist.
pub(super) fn fail_block(server: &mut crate::backend::Server) {
    write::query(&mut server.output, b"ROLLBACK TO SAVEPOINT \"pgherd: this block has failed\"");
    server.expected.push(crate::backend::Expect::Query { hide: true });
    server.unnamed = 0;
}
