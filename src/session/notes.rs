//! What the statements of one transaction may have done to their session, gathered while they are sent and looked into when
//! it has ended. Pure; must not ask anyone.

use crate::sql::{Effect, Facts, Flags};

/// Gathered over one transaction on a primary.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Union of the flags of all texts.
    pub(super) flags: Flags,
    /// Those of them that others were not told of yet.
    pub(super) news: Flags,
    /// Settings whose values must be asked for, lower case.
    pub(super) touched: Vec<Box<str>>,
    /// A RESET or DISCARD among them: a setting may have gone back to its default.
    resets: Resets,
    /// State beyond settings may have been made or given up: ask whether the session is pinned (SESSIONS R1, R5).
    pub(super) probe: bool,
    /// COMMIT was sent: if its answer is lost, the outcome is unknown (SESSIONS R20).
    pub(super) commits: bool,
    /// Statements sent.
    pub(super) statements: u32,
    /// What no probe finds.
    pub(super) unseen: Unseen,
}

/// RESETs of a transaction.
#[derive(Debug, Default)]
struct Resets {
    /// There was one.
    any: bool,
    /// Those after which the startup options were not applied again yet.
    due: Due,
    /// The same for the rest of the transaction only.
    local: Vec<Box<str>>,
}

/// Settings that a RESET has set to the server's defaults, where the session's are its startup options.
#[derive(Debug, Default)]
pub(super) enum Due {
    /// None.
    #[default]
    Nothing,
    /// These, lower case. Others keep what a SET gave them.
    Names(Vec<Box<str>>),
    /// All of them.
    All,
}

impl Due {
    /// Is this setting among them?
    pub(super) fn covers(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Names(names) => names.iter().any(|known| **known == *name),
            Self::All => true,
        }
    }

    fn add(&mut self, name: &str) {
        match self {
            Self::Nothing => *self = Self::Names(vec![name.into()]),
            Self::Names(names) if names.len() >= MOST_TOUCHED => *self = Self::All,
            Self::Names(names) if !names.iter().any(|known| **known == *name) => names.push(name.into()),
            Self::Names(_) | Self::All => {}
        }
    }

    /// It was set since.
    fn forget(&mut self, name: &str) {
        if let Self::Names(names) = self {
            names.retain(|known| **known != *name);
        }
    }
}

/// Reasons and duties that only the texts tell.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// A named statement too long to be parsed again elsewhere.
    pub(super) long_statement: bool,
    /// The server's prepared statements are not what was believed: drop them.
    pub(super) forget_statements: bool,
}

/// Settings asked for after one transaction; beyond it the session keeps its connection.
pub(super) const MOST_TOUCHED: usize = 1_000;

/// Any of these may have written something that a later read should see.
pub(super) const WROTE: Flags = Flags::WRITES.with(Flags::OPAQUE).with(Flags::DDL);

/// Any of these makes or gives up state that a probe finds.
const PROBED: Flags =
    Flags::OPAQUE.with(Flags::TEMP).with(Flags::ADVISORY_LOCK).with(Flags::ADVISORY_UNLOCK).with(Flags::MAY_UNPIN);

impl Notes {
    /// Takes a text's facts over. `judged` are the verdict's words on it, which knows the catalog.
    pub(super) fn add(&mut self, facts: &Facts, judged: Flags) {
        self.statements += 1;
        let flags = facts.flags.without(Flags::OPAQUE).with(judged);
        self.flags = self.flags.with(flags);
        self.news = self.news.with(flags);
        self.probe |= flags.any(PROBED);
        for effect in &facts.effects {
            self.add_effect(effect);
        }
    }

    fn add_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Set { name } => {
                self.touch(name);
                self.resets.due.forget(name);
            }
            Effect::Reset { name } => {
                self.touch(name);
                self.resets.any = true;
                self.resets.due.add(name);
            }
            Effect::ResetLocal { name } if self.resets.local.len() < MOST_TOUCHED => {
                self.resets.local.push(name.clone())
            }
            Effect::ResetAll => self.note_reset(),
            Effect::DiscardAll => {
                self.note_reset();
                self.probe = true;
            }
            Effect::Prepare { .. } | Effect::Listen | Effect::Declare { hold: true } => self.probe = true,
            Effect::Deallocate { .. } | Effect::Unlisten | Effect::CloseCursor | Effect::Discard => self.probe = true,
            Effect::Commit { .. } => self.commits = true,
            // What was prepared, in whatever session, becomes true with it.
            Effect::TwoPhase => {
                self.commits = true;
                let all = Flags::WRITES.with(Flags::DDL);
                (self.flags, self.news) = (self.flags.with(all), self.news.with(all));
            }
            _ => {}
        }
    }

    fn note_reset(&mut self) {
        (self.resets.any, self.resets.due) = (true, Due::All);
    }

    /// A setting may have gone back to its default.
    pub(super) fn reset(&self) -> bool {
        self.resets.any
    }

    /// What RESETs were sent for since the last call.
    pub(super) fn take_reset(&mut self) -> Due {
        std::mem::take(&mut self.resets.due)
    }

    /// What SET LOCAL … TO DEFAULT was sent for since the last call.
    pub(super) fn take_local_reset(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.resets.local)
    }

    pub(super) fn touch(&mut self, name: &str) {
        if !self.touched.iter().any(|known| **known == *name) {
            self.touched.push(name.into());
        }
    }

    /// Something that a later read should see may have been written.
    pub(super) fn wrote(&self) -> bool {
        self.flags.any(WROTE)
    }

    /// A value may have been taken from a sequence.
    pub(super) fn took(&self) -> bool {
        self.flags.any(Flags::SEQUENCE_WRITE.with(Flags::OPAQUE))
    }

    /// The server connection may hold something of the session's that only it can tell: settings, or what pins.
    pub(super) fn must_ask(&self) -> bool {
        !self.touched.is_empty() || self.reset() || self.probe
    }

    /// It could have changed what its session looks like beyond what is known.
    pub(super) fn is_opaque(&self) -> bool {
        self.flags.has(Flags::OPAQUE)
    }
}
