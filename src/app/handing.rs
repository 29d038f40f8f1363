//! An orderly end of a proxy whose address a partner takes (HA H24): clients are served until the transactions that are open have ended, for no
//! one else is at the address meanwhile; then new statements are held for a moment, and it goes. Must not end anything itself.

use crate::session::{Description, Doing};
use crate::support::clock::{Duration, Instant, now};

use super::Running;

/// How long new statements are held at a time. What is shorter than this ends within it.
const HOLD: Duration = Duration::from_millis(400);
/// Between two looks at what is under way: while statements are held, and while they are not.
const LOOK: Duration = Duration::from_millis(10);
const REST: Duration = Duration::from_millis(100);
/// Statements are held again so long behind a time in which not all has ended, though one that was late then is still at work: it may have
/// begun anew each time that it was looked at.
const AGAIN: Duration = Duration::from_secs(3);

/// What clients do meanwhile.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// New statements wait until then; an operator's pause ends at the second.
    Held(Instant, Option<Instant>),
    /// They are served as ever, for these sessions were at work at the end of the last hold.
    Served { late: Vec<i32>, again: Instant },
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Handing {
    until: Instant,
    stage: Stage,
}

impl Handing {
    /// Begins it; transactions may take so long.
    pub(super) fn begin(running: &Running, limit: Duration) -> Self {
        Self { until: now() + limit, stage: hold(running) }
    }

    /// When to look again; none: nothing is under way any more, or the time is over. Statements are held then.
    pub(super) fn look(&mut self, running: &Running, sessions: Option<Vec<Description>>) -> Option<Duration> {
        let time = now();
        if time >= self.until {
            // Whatever begins from here on would be cut off.
            hold(running);
            return None;
        }
        // A thread that does not say has something under way.
        let late = sessions.map(|all| all.iter().filter(|one| works(one)).map(|one| one.id).collect::<Vec<_>>());
        match &mut self.stage {
            // Later the pause may have ended by itself, and statements may have begun.
            Stage::Held(until, _) if time < *until + HOLD / 2 && late.as_ref().is_some_and(Vec::is_empty) => None,
            Stage::Held(until, paused) if time >= *until => {
                resume(running, *paused);
                self.stage = Stage::Served { late: late.unwrap_or_default(), again: time + AGAIN };
                Some(REST)
            }
            Stage::Held(..) => Some(LOOK),
            Stage::Served { late: known, again } => {
                if let Some(late) = late {
                    known.retain(|id| late.contains(id));
                    if known.is_empty() || time >= *again {
                        self.stage = hold(running);
                        return Some(LOOK);
                    }
                }
                Some(REST)
            }
        }
    }
}

/// A statement or a transaction is under way at a server.
fn works(session: &Description) -> bool {
    let doing = matches!(session.doing, Doing::Active | Doing::InTransaction | Doing::InFailedTransaction);
    doing && session.server.is_some()
}

fn hold(running: &Running) -> Stage {
    let (pause, until) = (&running.common.global.pause, now() + HOLD);
    let paused = pause.until().filter(|paused| *paused > until);
    // The end of the hold is ours to tell: by itself it comes a little later.
    pause.begin(paused.unwrap_or(until + HOLD));
    Stage::Held(until, paused)
}

fn resume(running: &Running, paused: Option<Instant>) {
    // An operator's own pause goes on.
    if paused.is_none() {
        running.common.global.pause.end();
    }
}
