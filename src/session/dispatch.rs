//! What becomes of the request at the front of the client's input while the session holds no lease: answered here, run on a standby, or
//! the beginning of a lease of the primary. Decides by survey and block; must not forward.

use crate::backend::Expect;
use crate::cluster::{NodeId, Trouble};
use crate::config::PoolMode;
use crate::routing::Reason;
use crate::sql::{Effect, Facts, Kind};
use crate::support::clock::now;
use crate::wire::{TxStatus, front, sqlstate, write};

use super::block::{self, Block, Deferred};
use super::hold::{Wait, Way};
use super::lease::{Leased, NoLease, SetupError};
use super::local::{Answer, Refusal, fail_block};
use super::look::{Looked, Where};
use super::read::ReadEnd;
use super::survey::Survey;
use super::{End, Session, Skip};

/// What a request for the primary got.
pub(super) enum Got {
    /// Its connection.
    Primary(Box<Leased>),
    /// Nothing: there is no primary now, and a standby can answer it.
    Elsewhere,
    /// Nothing: the client was told why.
    Refused,
}

/// A read that need not wait for a primary if a standby can answer it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roams<'a> {
    /// Nodes that have failed it.
    avoid: &'a [NodeId],
    /// A standby was just asked that will be able to answer in a moment.
    later: bool,
}

impl Session {
    /// Deals with one request. The header at the front of the input is complete.
    pub(super) async fn dispatch(&mut self) -> Result<(), End> {
        let header = self.client.header().map_err(End::Fault)?.expect("the caller waited for it");
        match header.tag {
            front::TERMINATE => return Err(End::Client),
            front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL => {
                // The end of a COPY that failed; PostgreSQL ignores it too.
                self.discard = header.size;
                return Ok(());
            }
            front::FLUSH => {
                self.client.input.consume(header.size.min(self.client.input.len()));
                return Ok(());
            }
            front::PASSWORD => return Err(End::Fault(crate::wire::Fault::Tag(header.tag))),
            _ => {}
        }
        let Some(survey) = self.survey().map_err(End::Fault)? else { return self.read_more().await };
        if let Some(refusal) = self.loss_to_tell(&survey) {
            self.refuse(&survey, &refusal);
            return Ok(());
        }
        if let Some(looked) = survey.single().filter(|looked| looked.facts.kind == Kind::Admin && survey.executes == 1)
            && let [Effect::Admin { words }] = &looked.facts.effects[..]
        {
            Box::pin(self.gather(words)).await;
        }
        if let Some(answer) = self.answered_here(&survey) {
            match answer {
                Ok(answer) => self.answer(&survey, &answer),
                Err(refusal) => self.refuse(&survey, &refusal),
            }
            self.context.counters.local.add(1);
            self.not_timed();
            return Ok(());
        }
        if let Some(refusal) = survey.statements.iter().find_map(|looked| self.refusal(&looked.facts, None)) {
            self.refuse(&survey, &refusal);
            return Ok(());
        }
        self.send(&survey).await
    }

    /// The answer to a request that needs no server.
    fn answered_here(&mut self, survey: &Survey) -> Option<Result<Answer, Refusal>> {
        if !survey.complete {
            return matches!(self.block, Block::Lost { .. }).then(|| Err(Refusal::failed_block()));
        }
        if survey.is_housekeeping() {
            return Some(Ok(Answer::Empty));
        }
        if survey.is_empty_query()
            && (!survey.series || (self.is_lone(survey) && self.block.shown() != TxStatus::Failed))
        {
            return Some(Ok(Answer::Empty));
        }
        // Pgherd's own statements can be described before they are executed.
        let once = |looked: &&Looked| match survey.executes {
            0 => looked.facts.kind == Kind::Admin,
            executes => executes == 1,
        };
        let looked = survey.single().filter(once).cloned();
        let looked = looked.filter(|looked| !looked.facts.effects.is_empty() && self.is_lone(survey));
        let Some(looked) = looked else {
            return matches!(self.block, Block::Lost { .. }).then(|| Err(Refusal::failed_block()));
        };
        let facts = looked.facts.clone();
        if self.who.limits.mode != PoolMode::Statement
            && let Some(answer) = self.block_statement(survey, &facts)
        {
            return Some(answer);
        }
        match (&self.block, &facts.effects[..]) {
            (Block::Lost { .. }, _) => Some(Err(Refusal::failed_block())),
            (Block::Failed(_), _) => None,
            (Block::None, [Effect::DiscardAll]) if facts.statements == 1 && self.settings == self.base => {
                self.discard_all();
                Some(Ok(Answer::Tag("DISCARD ALL")))
            }
            (Block::None, [Effect::Deallocate { name: None }]) if facts.statements == 1 => {
                Some(Ok(Answer::Tag("DEALLOCATE ALL")))
            }
            (_, [Effect::Admin { words }]) if survey.executes == 0 => Some(self.describe_admin(words)),
            _ => self.local_answer(&looked),
        }
    }

    /// The request is one statement and nothing else, so that an answer to it is an answer to each of its messages.
    fn is_lone(&self, survey: &Survey) -> bool {
        let bytes = &self.client.input.filled()[..survey.size];
        !survey.series || (!survey.primary && super::frames::lone(bytes))
    }

    /// BEGIN that can wait, and the end of a block that no server knows of (SESSIONS R12).
    fn block_statement(&mut self, survey: &Survey, facts: &crate::sql::Facts) -> Option<Result<Answer, Refusal>> {
        match &self.block {
            Block::None => {
                let modes = block::deferrable(facts)?;
                let begin = self.text_of(survey)?;
                let tag = block::begin_tag(&begin)?;
                let reads = block::may_read_elsewhere(modes, self.default_isolation());
                self.block = Block::Deferred(Deferred { begin: begin.into(), reads, has_read: false });
                Some(Ok(Answer::Tag(tag)))
            }
            Block::Deferred(_) => {
                let tag = block::ending(facts, false)?;
                self.block = Block::None;
                Some(Ok(Answer::Tag(tag)))
            }
            Block::Failed(_) | Block::Lost { .. } => {
                let tag = block::ending(facts, true)?;
                self.block = Block::None;
                Some(Ok(Answer::Tag(tag)))
            }
        }
    }

    /// Sends a request to where it belongs, and on to the primary if a standby would not have it.
    async fn send(&mut self, survey: &Survey) -> Result<(), End> {
        if self.context.global.pause.is_on() && !Box::pin(self.sit_out(survey)).await? {
            return Ok(());
        }
        let mut avoid: Vec<NodeId> = Vec::new();
        let (mut refused, mut later) = (false, false);
        let blocked = match &self.block {
            Block::None => false,
            Block::Deferred(deferred) => !deferred.reads || survey.statements.iter().any(|looked| looked.binds_block()),
            Block::Failed(_) | Block::Lost { .. } => true,
        };
        let mut why = match survey.statements.first() {
            Some(_) if blocked => Reason::BlockBound,
            Some(looked) => looked.verdict.verdict.reason,
            None => Reason::Opaque,
        };
        loop {
            while !blocked && !refused && !later && survey.reads() {
                let node = match self.place(survey, &avoid) {
                    (Where::Primary, reason) => {
                        why = reason;
                        break;
                    }
                    (Where::Standby(node), reason) => {
                        why = reason;
                        node
                    }
                };
                self.goes(why);
                match self.read_on(node, survey).await? {
                    ReadEnd::Done => {
                        self.held_since = None;
                        self.context.counters.routed.standby(why).add(1);
                        return Ok(());
                    }
                    ReadEnd::Primary => refused = true,
                    ReadEnd::Later => later = true,
                    ReadEnd::Elsewhere => avoid.push(node),
                }
            }
            self.goes(why);
            let roams = (!blocked && !refused && survey.reads()).then_some(Roams { avoid: &avoid, later });
            let alone = matches!(self.block, Block::None) && self.who.limits.mode != PoolMode::Session;
            let end = if survey.reads() && alone {
                self.read_on_primary(survey, roams).await?
            } else {
                self.on_primary(survey, roams).await?
            };
            if end != ReadEnd::Elsewhere {
                self.context.counters.routed.primary(why).add(1);
                return Ok(());
            }
            later = false;
        }
    }

    /// Leases the primary for a request and relays until the transaction has ended; `roams` as for [`lease_primary`](Self::lease_primary).
    async fn on_primary(&mut self, survey: &Survey, roams: Option<Roams<'_>>) -> Result<ReadEnd, End> {
        let mut lease = match self.lease_primary_or_refuse(survey, roams).await? {
            Got::Primary(lease) => lease,
            Got::Elsewhere => return Ok(ReadEnd::Elsewhere),
            Got::Refused => return Ok(ReadEnd::Done),
        };
        for looked in survey.statements.iter() {
            super::finish::hide_sequences(&mut lease, looked);
        }
        if !survey.complete {
            super::finish::hide_all_sequences(&mut lease);
        }
        match std::mem::take(&mut self.block) {
            Block::Deferred(deferred) => {
                begin(&mut lease, &deferred.begin);
                if deferred.has_read && survey.statements.iter().any(|looked| sets_modes(&looked.facts)) {
                    // The server is to say that it is too late for that (25001), as it would have behind the read.
                    write::query(&mut lease.server.output, b"SELECT 1");
                    lease.server.expected.push(Expect::Query { hide: true });
                }
            }
            Block::Failed(deferred) => {
                begin(&mut lease, &deferred.begin);
                fail_block(&mut lease.server);
            }
            Block::None => self.keep_request(&mut lease, survey),
            Block::Lost { .. } => {}
        }
        // The relay takes this text first and need not look at it again.
        self.ahead = survey.single().filter(|_| !survey.series && survey.complete).cloned();
        self.serve_lease(lease).await.map(|()| ReadEnd::Done)
    }

    /// The primary for a request, which is refused for want of it.
    pub(super) async fn lease_primary_or_refuse(
        &mut self,
        survey: &Survey,
        roams: Option<Roams<'_>>,
    ) -> Result<Got, End> {
        let refusal = match self.lease_primary(survey, roams).await {
            Ok(lease) => return Ok(lease.map_or(Got::Elsewhere, Got::Primary)),
            Err(NoLease::Gone) => return Err(End::Client),
            Err(NoLease::Refused(refusal)) => refusal,
            Err(NoLease::Unreachable(text)) => Refusal::new(sqlstate::CANNOT_CONNECT_NOW, text),
        };
        // What a standby has refused nobody has answered.
        self.corrected = None;
        self.refuse(survey, &refusal);
        Ok(Got::Refused)
    }

    /// The primary, waiting for one if there is none now: as long as `failover.hold_timeout` while the view says that one is to come, as
    /// long as the pool's queue timeout for one that cannot be reached. None, for a read that `roams`: it need not wait, since a standby can
    /// answer it.
    pub(super) async fn lease_primary(
        &mut self,
        survey: &Survey,
        mut roams: Option<Roams<'_>>,
    ) -> Result<Option<Box<Leased>>, NoLease> {
        let (mut tried, mut place) = (now(), None);
        loop {
            let wait = match self.way() {
                Way::Held(why) | Way::Refused(why) if roams.is_some_and(|roams| roams.later) => {
                    roams = roams.map(|roams| Roams { later: false, ..roams });
                    let until = self.held_from() + self.context.hold_limits().timeout;
                    Wait { why: why.to_owned(), until, held: false }
                }
                Way::Held(_) | Way::Refused(_) if self.roams_to_standby(survey, roams) => return Ok(None),
                Way::Refused(why) => return Err(NoLease::Unreachable(why.to_owned())),
                Way::Held(why) => {
                    let until = self.held_from() + self.context.hold_limits().timeout;
                    Wait { why: why.to_owned(), until, held: true }
                }
                Way::To(node) => {
                    let leased = self.lease_at(node, survey).await;
                    // The view may have changed while a connection was waited for, opened or set up.
                    let still = matches!(self.way(), Way::To(primary) if primary == node);
                    match leased {
                        Ok(lease) if self.is_outdated(&lease.server) => {
                            self.lose(lease.server);
                            continue;
                        }
                        Ok(lease) if !still => {
                            self.give_back(lease.server);
                            continue;
                        }
                        Err(NoLease::Unreachable(_)) if !still => continue,
                        Err(NoLease::Unreachable(text)) => {
                            self.report(node, Trouble::CannotConnect);
                            let why = format!("cannot reach the primary: {text}");
                            Wait { why, until: tried + self.who.limits.queue_timeout, held: false }
                        }
                        done => {
                            self.held_since = self.held_since.filter(|_| done.is_err());
                            return done.map(Some);
                        }
                    }
                }
            };
            Box::pin(self.hold(&wait, &mut place)).await?;
            if wait.held {
                // The pool's deadline does not run while writes are held.
                tried = now();
            }
        }
    }

    /// There is no primary, and a standby serves this read now that it was not sent to before.
    fn roams_to_standby(&mut self, survey: &Survey, roams: Option<Roams<'_>>) -> bool {
        let Some(roams) = roams.filter(|_| !self.context.global.pause.is_on()) else { return false };
        matches!(self.place_and_reason(survey, roams.avoid).0, Where::Standby(_))
    }

    async fn lease_at(&mut self, node: NodeId, survey: &Survey) -> Result<Box<Leased>, NoLease> {
        let mut server = match self.same_server(node, survey) {
            Some(server) => server,
            None => self.lease(node).await?,
        };
        let prepared = match self.prepare(&mut server).await {
            Err(SetupError::Refused(_)) if self.gives_up(survey) => self.prepare(&mut server).await,
            done => done,
        };
        match prepared {
            // A cancel that came during the setup is for the statement that waits behind it (SESSIONS R18).
            Ok(()) if self.control.take_cancel() => {
                self.give_back(server);
                Err(NoLease::Refused(Refusal::cancelled()))
            }
            Ok(()) => {
                self.has_server(node);
                Ok(Leased::new(server))
            }
            Err(SetupError::Refused(refusal)) => {
                self.give_back(server);
                Err(NoLease::Refused(refusal))
            }
            Err(SetupError::Lost(lost)) => {
                self.lose(server);
                Err(NoLease::Unreachable(lost.to_string()))
            }
        }
    }

    /// A setting that no server accepts any more must not keep its own RESET from running: it is given up beforehand.
    fn gives_up(&mut self, survey: &Survey) -> bool {
        let Some(looked) = survey.single().filter(|looked| looked.facts.statements == 1) else { return false };
        let mut settings = (*self.settings).clone();
        match &looked.facts.effects[..] {
            [Effect::Reset { name }] if matches!(self.block, Block::None) => settings.remove(name),
            [Effect::DiscardAll] if matches!(self.block, Block::None) => settings = (*self.base).clone(),
            [Effect::ResetAll] if matches!(self.block, Block::None) => settings.keep_identity(),
            _ => return false,
        }
        self.carry(std::rc::Rc::new(settings));
        true
    }

    /// The connection that this session wrote through last, if the request asks for a sequence's value and nobody else has
    /// used it since (SESSIONS R4).
    fn same_server(&self, node: NodeId, survey: &Survey) -> Option<Box<crate::backend::Server>> {
        let asks = |looked: &super::look::Looked| looked.facts.flags.has(crate::sql::Flags::SEQUENCE_VALUE);
        if self.last_server == 0 || !survey.statements.iter().any(asks) {
            return None;
        }
        self.pool(node)?.try_lease_same(self.last_server, self.number())
    }

    /// Skips the rest of a request that was refused, up to its end.
    pub(super) fn skip_rest(&mut self) -> Result<bool, crate::wire::Fault> {
        while let Some(header) = self.client.header()? {
            if header.tag == front::TERMINATE {
                self.skip = Skip::Nothing;
                return Ok(true);
            }
            let ends = match self.skip {
                Skip::ToSync => header.tag == front::SYNC,
                _ => true,
            };
            if ends {
                let status = self.shown_status();
                write::ready(&mut self.client.output, status);
                self.skip = Skip::Nothing;
            }
            self.discard = header.size;
            if !self.discard_some() || ends {
                return Ok(ends);
            }
        }
        Ok(false)
    }

    /// Drops bytes of a message that nobody wants. False: more of it is to come.
    pub(super) fn discard_some(&mut self) -> bool {
        let count = self.discard.min(self.client.input.len());
        self.client.input.consume(count);
        self.discard -= count;
        self.discard == 0
    }
}

/// SET TRANSACTION: what it changes can be changed before the first query only.
fn sets_modes(facts: &Facts) -> bool {
    facts.kind == Kind::Transaction && facts.effects.contains(&Effect::SetLocal)
}

/// Sends the BEGIN that was answered here.
fn begin(lease: &mut Leased, text: &[u8]) {
    let out = &mut lease.server.output;
    write::frame(out, front::PARSE, |out| {
        write::cstr(out, b"");
        write::cstr(out, text);
        out.extend([0, 0]);
    });
    // Unnamed portal of the unnamed statement: no formats, no values, no formats of results.
    write::frame(out, front::BIND, |out| out.extend([0; 8]));
    write::frame(out, front::EXECUTE, |out| out.extend([0; 5]));
    lease.server.expected.push(Expect::Begin);
    lease.server.unnamed = 0;
}
