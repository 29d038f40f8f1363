//! The queue of replies that a server owes. Pure: it is told each message sent and each message received, and says
//! whether the client may see it. Without it nobody knows what belongs to whom once something was injected.

use std::collections::VecDeque;

use crate::wire::back;

use kinds::{Counted, changes_names, ends, fallible, undo_of};

/// What to take back if a message is skipped because an earlier one of its series failed. Made and read by `session`.
pub type Undo = Box<dyn std::any::Any>;

/// One reply that the server owes, or one that is made here at this place of the order.
#[derive(Debug)]
pub enum Expect {
    /// A simple query, its replies hidden from the client if it was injected. Ends with ReadyForQuery.
    Query {
        /// Injected: nothing of it reaches the client.
        hide: bool,
    },
    /// A simple query injected behind a request of the client, all hidden but its ReadyForQuery, which stands for the request's own: the
    /// client goes on when both are done.
    After,
    /// ParseComplete, BindComplete and CommandComplete of an injected BEGIN, all hidden. It is sent in the extended protocol without a
    /// Sync: if it fails the server passes over what follows, so nothing of the client's runs outside the block that it is meant for.
    Begin,
    /// An error that the server was made to give, in whose place the client gets one made here.
    Refused {
        /// The whole ErrorResponse.
        error: Box<[u8]>,
    },
    /// ParseComplete.
    Parse {
        /// Injected.
        hide: bool,
        /// What to take back if it fails.
        undo: Option<Undo>,
    },
    /// ParseComplete of the unnamed statement.
    Unnamed {
        /// Injected.
        hide: bool,
        /// What to take back if it fails.
        undo: Undo,
    },
    /// The refusal of a Parse of a name that exists.
    Again {
        /// The name, as the client knows it.
        name: Box<[u8]>,
    },
    /// BindComplete.
    Bind,
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement,
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows or copy data up to its completion.
    Execute,
    /// CloseComplete.
    Close {
        /// Injected.
        hide: bool,
        /// What to take back if it is skipped.
        undo: Option<Undo>,
    },
    /// ReadyForQuery.
    Sync,
    /// FunctionCallResponse, then ReadyForQuery.
    Function,
    /// The end of the client's copy data; no reply of its own.
    CopyEnd,
    /// No reply: what the message behind it does before it can fail.
    Mark {
        /// What to take back if that message is skipped.
        undo: Undo,
    },
    /// Messages that are made here and go out when their turn comes.
    Made {
        /// Whole frames.
        frames: Made,
        /// What to take back if it is skipped.
        undo: Option<Undo>,
    },
}

/// Messages made here.
#[derive(Debug)]
pub enum Made {
    /// One message without a body, by its tag.
    Tag(u8),
    /// Whole frames.
    Frames(Box<[u8]>),
}

/// What to do with a message of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is the client's.
    Forward,
    /// It answers what was injected.
    Hide,
}

/// A message that nothing was sent for: the connection cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected message \"{}\" from the server", .0.escape_ascii())]
pub struct Unexpected(pub u8);

/// The queue.
#[derive(Debug, Default)]
pub struct Expected {
    queue: VecDeque<Expect>,
    /// An extended series failed and its Sync was not sent yet: the server ignores everything until then.
    skipping: bool,
    /// The server waits for copy data: it ignores Sync and Flush.
    copy_in: bool,
    /// A series was begun and its Sync was not sent yet.
    series: Series,
    /// Changes of names in the queue.
    changes: Counted,
    /// Messages in the queue that make all behind them be skipped if they fail.
    fallible: Counted,
    /// Replies in the queue that end with ReadyForQuery.
    ends: usize,
    /// How many series were ended by Sync.
    number: u64,
    /// How many replies were ever expected.
    sent: u64,
}

/// Whether what was sent last leaves a series open. Its transaction is open until Sync, though nothing may be owed: a client
/// that asks with Flush has had all its answers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Series {
    #[default]
    Closed,
    Open,
}

impl Expected {
    /// The server owes nothing.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.in_series()
    }

    /// A reply is owed now; a series that is open owes none before more of it is sent.
    pub fn owes(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many replies are owed.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// One whole request of the client's is owed its answer, and nothing that was injected or is made here stands among it.
    pub fn is_plain(&self) -> bool {
        let (Some(last), before) = (self.queue.back(), self.queue.len().saturating_sub(1)) else { return false };
        let ends = match last {
            Expect::Query { hide: false } => before == 0,
            Expect::Sync => self.queue.iter().take(before).all(kinds::is_plain),
            _ => false,
        };
        ends && !self.copy_in && !self.in_series()
    }

    /// One simple query of the client's is owed its answer and nothing else: of an answer of rows only the end changes anything.
    pub fn is_query(&self) -> bool {
        self.queue.len() == 1 && matches!(self.queue.front(), Some(Expect::Query { hide: false }))
    }

    /// The server waits for copy data.
    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// An injected BEGIN was not answered yet.
    pub fn begins(&self) -> bool {
        matches!(self.queue.front(), Some(Expect::Begin))
    }

    /// A whole request was sent behind an injected BEGIN that was not answered yet. Nothing more may follow: if BEGIN fails the server
    /// passes over that request only.
    pub fn awaits_begin(&self) -> bool {
        self.begins() && !self.in_series()
    }

    /// The error that is made here for the one that the server is about to give.
    pub fn take_refusal(&mut self) -> Option<Box<[u8]>> {
        match self.queue.front_mut() {
            Some(Expect::Refused { error }) => Some(std::mem::take(error)),
            _ => None,
        }
    }

    /// The series failed and was not ended by Sync yet.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// Messages of an extended series were sent without the Sync that ends it.
    pub fn in_series(&self) -> bool {
        self.skipping || self.series == Series::Open
    }

    /// What is sent now may be skipped for an error that has not come yet.
    pub fn exposed(&self) -> bool {
        self.skipping || self.fallible.open > 0
    }

    /// A series that was ended by Sync has changed names and may still fail: what they stand for is not known.
    pub fn undecided(&self) -> bool {
        self.changes.all > self.changes.open
    }

    /// Something is owed that ends with ReadyForQuery: the transaction's state behind it is not known.
    pub fn unsettled(&self) -> bool {
        self.ends > 0
    }

    /// How many replies were ever expected.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of the series that messages belong to now.
    pub fn series(&self) -> u64 {
        self.number
    }

    /// The name of the Parse whose refusal is to come next.
    pub fn again(&self) -> Option<&[u8]> {
        let front = self.queue.iter().find(|expect| !matches!(expect, Expect::CopyEnd | Expect::Mark { .. }))?;
        if let Expect::Again { name } = front { Some(name) } else { None }
    }

    /// Nothing of what is owed will come: everything that it was to change, in order.
    pub fn give_up(&mut self) -> Vec<Undo> {
        let undone = self.queue.drain(..).filter_map(undo_of).collect();
        *self = Self::default();
        undone
    }

    /// Takes the front off, and out of the counts.
    fn pop(&mut self) -> Option<Expect> {
        let front = self.queue.pop_front()?;
        self.ends -= usize::from(ends(&front));
        if changes_names(&front) {
            self.changes.pop();
        }
        if fallible(&front) {
            self.fallible.pop();
        }
        Some(front)
    }

    /// A message was (or is about to be) sent. Returns what must be taken back at once: the server will ignore it.
    pub fn push(&mut self, expect: Expect) -> Option<Undo> {
        self.sent += 1;
        match expect {
            Expect::Sync if self.copy_in && !self.copy_ended() => None,
            Expect::Sync => {
                self.skipping = false;
                self.series = Series::Closed;
                self.changes.open = 0;
                self.fallible.open = 0;
                self.ends += 1;
                self.number += 1;
                self.queue.push_back(Expect::Sync);
                None
            }
            // The server takes it for a breach of the copy, whose error is all that answers it.
            Expect::Query { .. } | Expect::Function if self.copy_in && !self.copy_ended() => {
                self.queue.push_back(Expect::CopyEnd);
                None
            }
            // Copy data that nobody asked for is ignored by the server.
            Expect::CopyEnd if self.queue.is_empty() => None,
            expect if self.skipping => undo_of(expect),
            expect => {
                match expect {
                    // A query in the middle of a series ends its transaction too.
                    Expect::Query { .. } | Expect::After | Expect::Function => self.series = Series::Closed,
                    Expect::CopyEnd | Expect::Mark { .. } | Expect::Made { frames: Made::Frames(_), .. } => {}
                    _ => self.series = Series::Open,
                }
                self.ends += usize::from(ends(&expect));
                if changes_names(&expect) {
                    self.changes.push();
                }
                if fallible(&expect) {
                    self.fallible.push();
                }
                self.queue.push_back(expect);
                None
            }
        }
    }

    /// The end of the copy data was sent.
    pub fn copy_ended(&self) -> bool {
        self.queue.iter().any(|expect| matches!(expect, Expect::CopyEnd))
    }

    /// A message made here whose turn has come.
    pub fn pop_made(&mut self) -> Option<Made> {
        self.pass_silent();
        if !matches!(self.queue.front(), Some(Expect::Made { .. })) {
            return None;
        }
        match self.pop() {
            Some(Expect::Made { frames, .. }) => Some(frames),
            _ => None,
        }
    }

    /// How the client's requests that are still owed an answer would have to be answered if the server is gone: how many end
    /// with ReadyForQuery, and whether a series without its Sync follows them.
    pub fn owed(&self) -> (usize, bool) {
        let ends = |expect: &&Expect| {
            let refused = matches!(expect, Expect::Made { frames: Made::Frames(_), .. });
            refused || matches!(expect, Expect::Query { hide: false } | Expect::Sync | Expect::Function)
        };
        let last = usize::from(matches!(self.queue.front(), Some(Expect::After)));
        (self.queue.iter().filter(ends).count() + last, self.in_series())
    }

    /// A message of the server has arrived. `undone` receives what a failed series did not do.
    ///
    /// # Errors
    /// Nothing that was sent is answered by such a message.
    pub fn on(&mut self, tag: u8, undone: &mut Vec<Undo>) -> Result<Fate, Unexpected> {
        if tag == back::NOTIFICATION {
            return Ok(Fate::Forward);
        }
        if matches!(tag, back::NOTICE | back::PARAMETER_STATUS) {
            return Ok(self.fate());
        }
        self.pass_silent();
        let Some(front) = self.queue.front() else {
            return if tag == back::ERROR { Ok(Fate::Forward) } else { Err(Unexpected(tag)) };
        };
        match front {
            Expect::Query { .. } | Expect::After | Expect::Function => self.on_simple(tag),
            Expect::Sync if tag == back::READY => Ok(self.done_and_ready()),
            // A Sync can fail too: it commits.
            Expect::Sync if tag == back::ERROR => Ok(Fate::Forward),
            _ if tag == back::ERROR => Ok(self.on_series_error(undone)),
            _ => self.on_series(tag),
        }
    }

    /// Would a message of that kind be hidden if it came now?
    pub fn hides(&self, tag: u8) -> bool {
        match self.queue.front() {
            Some(Expect::Query { hide: true }) => !matches!(tag, back::PARAMETER_STATUS | back::NOTIFICATION),
            Some(Expect::After) => !matches!(tag, back::PARAMETER_STATUS | back::NOTIFICATION | back::READY),
            Some(_) if tag == back::READY => self.ready_comes_later(),
            Some(Expect::Parse { hide: true, .. } | Expect::Unnamed { hide: true, .. }) => tag == back::PARSE_COMPLETE,
            Some(Expect::Close { hide: true, .. }) => tag == back::CLOSE_COMPLETE,
            Some(Expect::Begin) => matches!(tag, back::PARSE_COMPLETE | back::BIND_COMPLETE | back::COMPLETE),
            _ => false,
        }
    }

    /// The ReadyForQuery of what is at the front is given by what was injected behind it.
    fn ready_comes_later(&self) -> bool {
        let behind = self.queue.iter().skip(1).find(|expect| !matches!(expect, Expect::CopyEnd | Expect::Mark { .. }));
        matches!(behind, Some(Expect::After))
    }

    fn done_and_ready(&mut self) -> Fate {
        let later = self.ready_comes_later();
        // The end of an injected query behind a request is the one that the client waits for.
        let shown = matches!(self.queue.front(), Some(Expect::After));
        let fate = self.done();
        if later {
            Fate::Hide
        } else if shown {
            Fate::Forward
        } else {
            fate
        }
    }

    fn fate(&self) -> Fate {
        match self.queue.front() {
            Some(
                Expect::After
                | Expect::Begin
                | Expect::Query { hide: true }
                | Expect::Parse { hide: true, .. }
                | Expect::Unnamed { hide: true, .. }
                | Expect::Close { hide: true, .. },
            ) => Fate::Hide,
            _ => Fate::Forward,
        }
    }

    fn done(&mut self) -> Fate {
        let fate = self.fate();
        self.pop();
        self.pass_silent();
        fate
    }

    fn on_simple(&mut self, tag: u8) -> Result<Fate, Unexpected> {
        match tag {
            back::READY => {
                self.copy_in = false;
                return Ok(self.done_and_ready());
            }
            back::COPY_IN | back::COPY_BOTH => self.enter_copy_in(),
            back::ERROR | back::COMPLETE => self.copy_in = false,
            back::ROW_DESCRIPTION | back::DATA_ROW | back::EMPTY_QUERY | back::FUNCTION_RESULT => {}
            back::COPY_OUT | back::COPY_DATA | back::COPY_DONE => {}
            other => return Err(Unexpected(other)),
        }
        Ok(self.fate())
    }

    fn on_series(&mut self, tag: u8) -> Result<Fate, Unexpected> {
        let done = match (self.queue.front(), tag) {
            (Some(Expect::Parse { .. } | Expect::Unnamed { .. }), back::PARSE_COMPLETE) => true,
            (Some(Expect::Begin), back::PARSE_COMPLETE | back::BIND_COMPLETE) => false,
            (Some(Expect::Begin), back::COMPLETE) => true,
            (Some(Expect::Bind), back::BIND_COMPLETE) => true,
            (Some(Expect::Close { .. }), back::CLOSE_COMPLETE) => true,
            (Some(Expect::DescribeStatement), back::PARAMETER_DESCRIPTION) => false,
            (Some(Expect::DescribeStatement | Expect::DescribePortal), back::ROW_DESCRIPTION | back::NO_DATA) => true,
            (Some(Expect::Execute), back::COMPLETE | back::EMPTY_QUERY | back::PORTAL_SUSPENDED) => {
                self.copy_in = false;
                true
            }
            (Some(Expect::Execute), back::COPY_IN) => {
                self.enter_copy_in();
                false
            }
            (Some(Expect::Execute), back::DATA_ROW | back::COPY_OUT | back::COPY_DATA | back::COPY_DONE) => false,
            (_, other) => return Err(Unexpected(other)),
        };
        Ok(if done { self.done() } else { self.fate() })
    }

    /// The server has begun to read copy data: each Sync that was sent ahead of it is ignored, and a query breaks the copy.
    fn enter_copy_in(&mut self) {
        self.copy_in = true;
        let simple = !matches!(self.queue.front(), Some(Expect::Execute));
        while let Some(Expect::Sync) = self.queue.get(1) {
            self.queue.remove(1);
            self.ends -= 1;
            if !simple && !self.queue.iter().any(|expect| matches!(expect, Expect::Sync)) {
                self.series = Series::Open;
            }
        }
        if let Some(next @ (Expect::Query { .. } | Expect::Function)) = self.queue.get_mut(1) {
            *next = Expect::CopyEnd;
            self.ends -= 1;
        }
    }

    /// Everything up to the next Sync is skipped by the server, simple queries included.
    fn on_series_error(&mut self, undone: &mut Vec<Undo>) -> Fate {
        let fate = Fate::Forward;
        self.copy_in = false;
        loop {
            match self.queue.front() {
                None => {
                    self.skipping = true;
                    break;
                }
                Some(Expect::Sync) => break,
                Some(_) => undone.extend(self.pop().and_then(undo_of)),
            }
        }
        fate
    }

    /// What has no reply is done with when all before it is.
    fn pass_silent(&mut self) {
        while let Some(Expect::CopyEnd | Expect::Mark { .. }) = self.queue.front() {
            self.queue.pop_front();
        }
    }
}

mod kinds;
#[cfg(test)]
mod tests;
