//! What the request at the front of the client's input is, before anything of it is sent. Looks, never takes.

use crate::sql::Kind;
use crate::wire::{Fault, front};

use super::Session;
use super::frames;
use super::look::Looked;

/// A request.
#[derive(Debug)]
pub(super) struct Survey {
    /// Bytes of it, up to and including its end; meaningless unless `complete`.
    pub(super) size: usize,
    /// All of it is in the buffer.
    pub(super) complete: bool,
    /// Of the extended protocol, up to its Sync; otherwise one simple query or function call.
    pub(super) series: bool,
    /// What its different statements are. Empty if something of it could not be looked at.
    pub(super) statements: Statements,
    /// It executes something.
    pub(super) executes: u32,
    /// It holds something that only a primary may get whatever the texts say (a row limit, an unknown statement).
    pub(super) primary: bool,
}

/// Statements of a request. One, as most have, takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Statements {
    first: Option<Looked>,
    more: Vec<Looked>,
}

impl Statements {
    /// Adds a statement, unless it is the one before: Parse, Describe and Bind of one statement are one.
    fn push(&mut self, looked: Looked) {
        let last = self.more.last().or(self.first.as_ref());
        if last.is_some_and(|last| std::rc::Rc::ptr_eq(&last.facts, &looked.facts)) {
            return;
        }
        match self.first {
            None => self.first = Some(looked),
            Some(_) => self.more.push(looked),
        }
    }

    pub(super) fn first(&self) -> Option<&Looked> {
        self.first.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Looked> {
        self.first.iter().chain(&self.more)
    }
}

impl Survey {
    /// The one statement of the request.
    pub(super) fn single(&self) -> Option<&Looked> {
        self.statements.first().filter(|_| self.statements.more.is_empty())
    }

    /// All of it could run on a standby as far as its texts tell.
    pub(super) fn reads(&self) -> bool {
        self.complete
            && !self.primary
            && self.statements.first().is_some()
            && self.statements.iter().all(|looked| looked.standby_ok())
    }
}

impl Session {
    /// Looks at the request at the front of the input. `None`: wait for more bytes first.
    pub(super) fn survey(&mut self) -> Result<Option<Survey>, Fault> {
        let Some(header) = self.client.header()? else { return Ok(None) };
        match header.tag {
            front::QUERY | front::FUNCTION_CALL => self.survey_one(header.size, header.tag),
            // Waits without a lease for what a buffer can hold.
            _ if self.client.input.len() < header.size && self.can_hold(header.size) => Ok(None),
            _ => Ok(Some(self.survey_series())),
        }
    }

    fn survey_one(&mut self, size: usize, tag: u8) -> Result<Option<Survey>, Fault> {
        if self.client.input.len() < size {
            return Ok(if self.can_hold(size) { None } else { Some(Survey::unread(false)) });
        }
        let mut survey = Survey { size, complete: true, ..Survey::unread(false) };
        if tag == front::QUERY {
            let input = std::mem::take(&mut self.client.input);
            if let Some(text) = frames::query(&input.filled()[5..size]) {
                survey.statements.push(self.look(text));
                survey.executes = 1;
                survey.primary = false;
            }
            self.client.input = input;
        }
        Ok(Some(survey))
    }

    /// Makes room for a message of that size. False: it is longer than any buffer.
    fn can_hold(&mut self, size: usize) -> bool {
        let input = &mut self.client.input;
        size <= input.capacity() || (size <= crate::support::buffer::LARGE && self.context.hub.buffers.enlarge(input))
    }

    fn survey_series(&mut self) -> Survey {
        let input = std::mem::take(&mut self.client.input);
        let survey = match frames::series(input.filled()) {
            None => Survey::unread(true),
            Some(size) => self.survey_messages(&input.filled()[..size]),
        };
        self.client.input = input;
        survey
    }

    fn survey_messages(&mut self, bytes: &[u8]) -> Survey {
        let mut survey = Survey { size: bytes.len(), complete: true, primary: false, ..Survey::unread(true) };
        let mut unnamed = self.unnamed().and_then(|unnamed| unnamed.facts.clone());
        let mut parsed: Vec<(&[u8], Looked)> = Vec::new();
        let mut bound = false;
        for (header, body) in frames::whole(bytes) {
            match header.tag {
                front::PARSE => match frames::parse(body) {
                    Some(parse) => {
                        let looked = self.look(parse.text);
                        if parse.name.is_empty() {
                            unnamed = Some(looked.facts.clone());
                        } else {
                            survey.primary |= self.prepared_named(parse.name).is_some();
                            parsed.push((parse.name, looked.clone()));
                        }
                        survey.statements.push(looked);
                    }
                    None => survey.primary = true,
                },
                front::BIND => {
                    bound = true;
                    let deferred = matches!(self.block, super::block::Block::Deferred(_));
                    survey.primary |= deferred && frames::says_now(body);
                    let name = frames::bind(body).map(|(_, name, _)| name);
                    match name.and_then(|name| self.facts_of(name, unnamed.as_ref(), &parsed)) {
                        Some(looked) => survey.statements.push(looked),
                        None => survey.primary = true,
                    }
                }
                front::DESCRIBE => match frames::target(body) {
                    Some((b'S', name)) => match self.facts_of(name, unnamed.as_ref(), &parsed) {
                        Some(looked) => survey.statements.push(looked),
                        None => survey.primary = true,
                    },
                    // The server says that there is no such portal.
                    Some((b'P', b"")) => survey.primary |= !bound,
                    _ => survey.primary = true,
                },
                front::EXECUTE => {
                    survey.executes += 1;
                    survey.primary |= frames::row_limit(body) != Some(0);
                }
                // A kind that does not exist: the server says so.
                front::CLOSE => survey.primary |= !matches!(frames::target(body), Some((b'S' | b'P', _))),
                _ => {}
            }
        }
        survey
    }

    fn facts_of(
        &mut self,
        name: &[u8],
        unnamed: Option<&std::rc::Rc<crate::sql::Facts>>,
        parsed: &[(&[u8], Looked)],
    ) -> Option<Looked> {
        if name.is_empty() {
            return Some(self.judge(unnamed?.clone()));
        }
        if let Some((_, looked)) = parsed.iter().rev().find(|(known, _)| *known == name) {
            return Some(looked.clone());
        }
        let facts = self.prepared_named(name)?.facts.clone();
        Some(self.judge(facts))
    }
}

impl Survey {
    /// A request of which nothing is known.
    pub(super) fn unread(series: bool) -> Self {
        Self { size: 0, complete: false, series, statements: Statements::default(), executes: 0, primary: true }
    }

    /// A request that is no longer in the input.
    pub(super) fn taken(series: bool) -> Self {
        Self { complete: true, ..Survey::unread(series) }
    }

    /// A request of one text, for asking where it would go.
    pub(super) fn of_text(looked: Looked) -> Self {
        let mut statements = Statements::default();
        statements.push(looked);
        Self { complete: true, statements, executes: 1, primary: false, ..Survey::unread(false) }
    }

    /// A series that only closes statements, or is nothing but a Sync: no server is needed for it.
    pub(super) fn is_housekeeping(&self) -> bool {
        self.series && self.complete && !self.primary && self.executes == 0 && self.statements.first().is_none()
    }

    /// The request is nothing but an empty query.
    pub(super) fn is_empty_query(&self) -> bool {
        self.single().is_some_and(|looked| looked.facts.kind == Kind::Empty) && self.executes == 1
    }
}
