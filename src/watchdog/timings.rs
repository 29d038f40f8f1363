//! The times of the watchdog, their arithmetic, and what the chosen arbiter guarantees. Owner: the engine counts with them, `pgherd check`
//! tells them. Pure; must not read a clock.

use std::time::Duration;

/// How wrong a clock may be, in percent of what it counts.
pub const DRIFT: u32 = 2;
/// The kernel counts lifetimes of addresses in whole seconds and ends them up to a second late.
pub const GRAIN: Duration = Duration::from_secs(1);

/// Times that belong together; see [`Timings::problems`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// How long a voter's word lasts.
    pub lease: Duration,
    /// What the next holder of the address waits beyond the lease (HA H19).
    pub margin: Duration,
    /// Between two signs of life, and two renewals of the lease.
    pub beat: Duration,
    /// Between two refreshments of an advisory lock.
    pub refresh: Duration,
    /// `idle_session_timeout` of the sessions that hold advisory locks (HA H16).
    pub session: Duration,
    /// So long must a partner have been fitter before a leader hands over (HA H3).
    pub fitter: Duration,
}

impl Timings {
    /// The defaults for a lease.
    pub fn of(lease: Duration) -> Self {
        Self {
            lease,
            margin: Duration::from_millis(1_250),
            beat: (lease / 10).min(Duration::from_secs(1)),
            refresh: (lease / 6).min(Duration::from_secs(1)),
            session: (lease + Duration::from_secs(1)).max(lease * (100 + DRIFT) / 100),
            fitter: Duration::from_secs(2),
        }
    }

    /// How long the leader counts on a voter's word, from when it asked: its clock may be slow.
    pub fn trust(&self) -> Duration {
        self.lease * (100 - DRIFT) / 100
    }

    /// How long a voter keeps its word, from when it gave it: its clock may be fast.
    pub fn guard(&self) -> Duration {
        self.lease * (100 + DRIFT) / 100
    }

    /// When the address of somebody to whom a voter gave its word is certainly gone.
    pub fn clear(&self) -> Duration {
        (self.lease + self.margin) * (100 + DRIFT) / 100
    }

    /// A duration that another clock has measured, by ours: never shorter.
    pub fn foreign(time: Duration) -> Duration {
        time * (100 + 2 * DRIFT) / 100
    }

    /// Silence after which a member counts as lost.
    pub fn silence(&self) -> Duration {
        self.beat * 3 + Duration::from_millis(100)
    }

    /// From the moment when an active proxy's host vanishes to the moment when another one takes the address, at worst, with links that lose
    /// nothing: the voters' lease and the margin, an attempt, the ARP probe; with `arbiter = "nodes"` the servers let go of its
    /// locks `session` after it refreshed them, are asked every [`LOOK`], and how idle it was then is known but for that time.
    pub fn worst_takeover(&self, nodes: bool) -> Duration {
        let attempt = self.beat + Duration::from_millis(200) + Duration::from_millis(200);
        let idle = self.session.saturating_sub(LOOK) * 100 / (100 + 2 * DRIFT);
        let locks = if nodes { self.session + LOOK + self.clear().saturating_sub(idle) } else { Duration::ZERO };
        (self.clear() + attempt).max(locks + attempt)
    }

    /// Why these times are unsafe or make no sense; each is a sentence. Empty: they are good.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |wrong: bool, text: String| {
            if wrong {
                problems.push(text);
            }
        };
        let (lease, beat) = (self.lease, self.beat);
        say(
            self.trust() < GRAIN + beat * 2,
            format!(
                "lease = {lease:?} is too short: an address lives whole seconds, and of the lease {:?} are left when one renewal every \
                 {beat:?} was lost",
                self.trust().saturating_sub(beat * 2)
            ),
        );
        say(beat.is_zero(), "a heartbeat of 0 s never ends".to_owned());
        say(
            self.trust() < beat * 4,
            format!("heartbeat {beat:?} is too rare for lease = {lease:?}: three lost ones in a row must not end it"),
        );
        say(
            self.margin < GRAIN + Duration::from_millis(200),
            format!(
                "margin {:?} is too short: the kernel ends an address up to {GRAIN:?} late, and deleting it takes time, too",
                self.margin
            ),
        );
        say(
            self.refresh * 2 > self.trust(),
            format!("locks refreshed every {:?} do not outlast lease = {lease:?} if one answer is lost", self.refresh),
        );
        say(
            self.session < self.guard(),
            format!(
                "idle_session_timeout {:?} is shorter than lease = {lease:?} with {DRIFT} % for clocks: a server would let go of a lock that \
                 its holder still counts on",
                self.session
            ),
        );
        say(
            self.session > self.lease * 2 + Duration::from_secs(2),
            format!("idle_session_timeout {:?} keeps the locks of a lost holder for too long", self.session),
        );
        say(
            self.fitter < beat * 2,
            format!("a partner that is fitter for {:?} only may have lost one heartbeat", self.fitter),
        );
        problems
    }
}

/// Between two attempts to take a lock that somebody else has.
pub const LOOK: Duration = Duration::from_millis(250);

/// Who casts the deciding vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arbiter {
    /// The members alone: three and more voters, a witness among them or not.
    Members,
    /// For a pair: advisory locks on so many database servers.
    Nodes(u16),
    /// For a pair: trusted servers.
    Trusted,
}

/// What is guaranteed, in one sentence; `members` counts proxies and witnesses.
pub fn guarantee(members: usize, arbiter: Arbiter) -> String {
    match arbiter {
        Arbiter::Members => {
            let needed = members / 2 + 1;
            format!(
                "at most one of {members} voters leads and holds the address, whatever is cut, as long as clocks are right to {DRIFT} % and no \
                 whole machine is paused; {needed} voters must reach each other for anybody to lead"
            )
        }
        Arbiter::Nodes(nodes) => {
            let tie = if nodes % 2 == 0 {
                ", and half of them together with a trusted server count as a majority: then, and only then, two could lead, if a cut \
                 parts the servers in halves while both proxies see a trusted one"
            } else {
                ""
            };
            format!(
                "at most one of two proxies leads and holds the address, whatever is cut, as long as clocks are right to {DRIFT} % and no whole \
                 machine is paused; a proxy that has lost its partner needs the locks of {} of {nodes} servers{tie}",
                nodes / 2 + 1
            )
        }
        Arbiter::Trusted => {
            "weaker: if the two proxies cannot see each other while both see a trusted server, both lead and both hold \
                             the address, for as long as that lasts"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn h18_leader_and_voter_agree_whatever_their_clocks_do() {
        for lease in [seconds(2), seconds(3), seconds(60)] {
            let timings = Timings::of(lease);
            // The leader's clock is 2 % slow, the voter's 2 % fast: in true time the leader still ends first.
            let leader = timings.trust().as_secs_f64() / 0.98;
            let voter = timings.guard().as_secs_f64() / 1.02;
            assert!(leader <= voter + 1e-9, "{leader} {voter}");
            assert!(timings.clear().as_secs_f64() / 1.02 >= (lease + GRAIN).as_secs_f64());
        }
    }

    #[test]
    fn defaults_are_good_and_unsafe_times_are_refused_with_the_reason() {
        let good = Timings::of(seconds(3));
        assert_eq!(good.problems(), Vec::<String>::new());
        assert_eq!(Timings::of(seconds(3_600)).problems(), Vec::<String>::new());
        let cases: [(Timings, &str); 8] = [
            (Timings::of(seconds(1)), "lease = 1s is too short"),
            (Timings { beat: Duration::ZERO, ..good }, "never ends"),
            (Timings { beat: seconds(1), ..good }, "too rare"),
            (Timings { margin: seconds(1), ..good }, "margin 1s is too short"),
            (Timings { refresh: seconds(2), ..good }, "do not outlast"),
            (Timings { session: seconds(3), ..good }, "let go of a lock"),
            (Timings { session: seconds(30), ..good }, "for too long"),
            (Timings { fitter: Duration::from_millis(400), ..good }, "one heartbeat"),
        ];
        for (timings, word) in cases {
            let problems = timings.problems();
            assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
        }
    }

    #[test]
    fn s29_a_vanished_host_is_replaced_in_time_by_each_arbiter() {
        let timings = Timings::of(seconds(3));
        assert!(timings.worst_takeover(false) <= Duration::from_millis(5_100), "{:?}", timings.worst_takeover(false));
        // The bound of SCENARIOS S29.
        let nodes = timings.worst_takeover(true);
        assert!(nodes > Duration::from_millis(5_600) && nodes <= seconds(6), "{nodes:?}");
    }

    #[test]
    fn h16_each_arbiter_says_what_it_is_worth() {
        assert!(guarantee(3, Arbiter::Members).contains("2 voters"));
        assert!(guarantee(2, Arbiter::Nodes(3)).contains("2 of 3 servers"));
        assert!(
            !guarantee(2, Arbiter::Nodes(3)).contains("halves") && guarantee(2, Arbiter::Nodes(2)).contains("halves")
        );
        assert!(guarantee(2, Arbiter::Trusted).starts_with("weaker"));
    }
}
