//! What kinds of expected replies have in common, and how many of a kind are in the queue. Owned by the queue; must not change it.

use super::{Expect, Made, Undo};

/// How many there are in the queue, and how many of them the next Sync is behind.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) all: usize,
    pub(super) open: usize,
}

impl Counted {
    pub(super) fn push(&mut self) {
        self.all += 1;
        self.open += 1;
    }

    pub(super) fn pop(&mut self) {
        if self.all == self.open {
            self.open = self.open.saturating_sub(1);
        }
        self.all = self.all.saturating_sub(1);
    }
}

pub(super) fn changes_names(expect: &Expect) -> bool {
    matches!(
        expect,
        Expect::Parse { undo: Some(_), .. } | Expect::Close { undo: Some(_), .. } | Expect::Made { undo: Some(_), .. }
    )
}

/// A failure of it makes the server skip what follows.
pub(super) fn fallible(expect: &Expect) -> bool {
    matches!(
        expect,
        Expect::Parse { .. }
            | Expect::Unnamed { .. }
            | Expect::Again { .. }
            | Expect::Begin
            | Expect::Refused { .. }
            | Expect::Bind
            | Expect::DescribeStatement
            | Expect::DescribePortal
            | Expect::Execute
            | Expect::Close { .. }
    )
}

/// A message of a series that the client sent itself.
pub(super) fn is_plain(expect: &Expect) -> bool {
    matches!(
        expect,
        Expect::Parse { hide: false, .. }
            | Expect::Unnamed { hide: false, .. }
            | Expect::Bind
            | Expect::DescribeStatement
            | Expect::DescribePortal
            | Expect::Execute
    )
}

pub(super) fn ends(expect: &Expect) -> bool {
    let refused = matches!(expect, Expect::Made { frames: Made::Frames(_), .. });
    refused || matches!(expect, Expect::Query { .. } | Expect::After | Expect::Sync | Expect::Function)
}

pub(super) fn undo_of(expect: Expect) -> Option<Undo> {
    match expect {
        Expect::Parse { undo, .. } | Expect::Close { undo, .. } | Expect::Made { undo, .. } => undo,
        Expect::Unnamed { undo, .. } | Expect::Mark { undo } => Some(undo),
        _ => None,
    }
}
