//! Where a timeline comes from, as PostgreSQL's history files tell it (HA H6): numbers alone do not say whether two servers are on the same
//! branch, since two of them may begin the same number. Values only.

use super::{Lsn, Timeline};

/// Ancestors of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    timeline: Timeline,
    /// The ancestors, oldest first, each with the position at which it was left.
    left: Vec<(Timeline, Lsn)>,
}

impl History {
    /// The first timeline of a cluster, which has no ancestors, or what is kept of another one.
    pub fn new(timeline: Timeline, left: Vec<(Timeline, Lsn)>) -> Self {
        Self { timeline, left }
    }

    /// Reads the history file of a timeline; `None` if it is none.
    pub fn parse(timeline: Timeline, text: &str) -> Option<Self> {
        let mut left: Vec<(Timeline, Lsn)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (number, lsn) = (words.next()?.parse().ok().map(Timeline)?, Lsn::parse(words.next()?)?);
            if number >= timeline || left.last().is_some_and(|(before, _)| *before >= number) {
                return None;
            }
            left.push((number, lsn));
        }
        (timeline <= Timeline(1) || !left.is_empty()).then_some(Self { timeline, left })
    }

    /// Whose history it is.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The ancestors, oldest first, each with the position at which it was left.
    pub fn ancestors(&self) -> &[(Timeline, Lsn)] {
        &self.left
    }

    /// Where this ancestor was left: what it had written behind that is not in this timeline.
    pub fn left(&self, ancestor: Timeline) -> Option<Lsn> {
        self.left.iter().find(|(timeline, _)| *timeline == ancestor).map(|(_, lsn)| *lsn)
    }

    /// Is it the other timeline itself, or one that has begun on it?
    pub fn continues(&self, other: &Self) -> bool {
        if self.timeline == other.timeline {
            return self == other;
        }
        let next = self.left.get(other.left.len());
        self.left.starts_with(&other.left) && next.is_some_and(|(timeline, _)| *timeline == other.timeline)
    }
}

/// Can a server of the one history be on the timeline of the other, or on one that has begun on it? What is not known is no reason against it.
pub fn may_continue(own: Option<&History>, other: Option<&History>) -> bool {
    own.zip(other).is_none_or(|(own, other)| own.continues(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, text: &str) -> History {
        History::parse(Timeline(timeline), text).expect("a history")
    }

    #[test]
    fn h06_a_history_file_is_read_as_postgresql_writes_it() {
        let read = history(3, "1\t0/3000148\tno recovery target specified\n\n2\t0/50000D8\tx\n# a word\n");
        assert_eq!(read.left(Timeline(1)), Some(Lsn(0x300_0148)));
        assert_eq!(read.left(Timeline(2)), Some(Lsn(0x500_00D8)));
        assert_eq!((read.left(Timeline(3)), read.timeline()), (None, Timeline(3)));
        assert_eq!(history(1, "").ancestors(), []);
        for (timeline, bad) in [(2, ""), (2, "x\t0/1"), (2, "2\t0/1"), (3, "2\t0/1\n1\t0/2"), (2, "1"), (2, "1\tzz")] {
            assert_eq!(History::parse(Timeline(timeline), bad), None, "{timeline} {bad}");
        }
    }

    #[test]
    fn h06_only_a_branch_that_begins_on_a_timeline_continues_it() {
        let first = history(1, "");
        let (second, other) = (history(2, "1\t0/100\tx"), history(2, "1\t0/200\tx"));
        assert!(second.continues(&first) && second.continues(&second) && !first.continues(&second));
        assert!(!second.continues(&other) && !other.continues(&second), "both are called 2");
        let third = history(3, "1\t0/100\tx\n2\t0/300\tx");
        assert!(third.continues(&second) && third.continues(&first) && !third.continues(&other));
        let aside = history(4, "1\t0/200\tx");
        assert!(aside.continues(&first) && !aside.continues(&second) && !aside.continues(&third));
    }
}
