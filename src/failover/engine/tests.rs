//! Single cases by hand, job by job; whole histories are in `tests/sim`.

use super::*;
use crate::cluster::{History, Lsn, Position, Sample, Status, Written};

mod cases;
mod decisions;
mod found;
mod orders;
mod together;

const MS: Duration = Duration::from_millis(1);
const P: NodeId = NodeId(0);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Nodes 0 to `count` − 1, any of which may be primary.
pub(in crate::failover) fn settings(count: u16) -> Settings {
    let member = |id| Member {
        id: NodeId(id),
        duty: Duty::Any,
        application_name: format!("node{id}"),
        addresses: vec![(format!("10.0.0.{id}"), 5432)],
    };
    Settings {
        mode: Mode::Builtin,
        members: (0..count).map(member).collect(),
        hold_timeout: Duration::from_secs(30),
        max_lag: None,
        allow_data_loss: false,
        relax_sync: false,
        fence: FenceRule::Required,
        hooks: BTreeSet::new(),
        hook_timeout: Duration::from_secs(60),
        auto_failback: None,
        company: Company::Alone,
        drain: Duration::from_secs(15),
    }
}

/// Three nodes as the probes see them, an engine, and the jobs that it waits for.
struct Play {
    engine: Engine,
    now: Instant,
    view: ClusterView,
    jobs: Vec<(Ticket, Job)>,
    notes: Vec<Note>,
    replies: Vec<Result<String, String>>,
    ruling: Ruling,
}

impl Play {
    /// A well cluster that has been looked through; P is its primary.
    fn new(settings: Settings, journal: Journal) -> Self {
        let now = crate::support::clock::now();
        let node = |id: NodeId| NodeView {
            id,
            name: format!("node{id}"),
            role: if id == P { Role::Primary } else { Role::Standby },
            status: Status::Up,
            life: Life::Well,
            weight: 1.0,
            position: None,
            version: 150_000,
            lag: None,
            delay: None,
            replication: crate::cluster::Replication::default(),
            reason: "",
        };
        let view = ClusterView {
            epoch: Epoch(1),
            primary: Some(P),
            nodes: vec![node(P), node(A), node(B)],
            ..ClusterView::empty()
        };
        let engine = Engine::new(settings, journal, now);
        let ruling = engine.ruling().clone();
        let mut play = Self { engine, now, view, jobs: Vec::new(), notes: Vec::new(), replies: Vec::new(), ruling };
        for id in [P, A, B] {
            play.position(id, 1, id != P);
        }
        play
    }

    fn ready(settings: Settings) -> Self {
        let mut play = Self::new(settings, Journal::default());
        play.look();
        play.chores();
        assert_eq!((play.jobs.len(), play.ruling.writes), (0, Writes::Open));
        play
    }

    fn position(&mut self, id: NodeId, timeline: u32, streaming: bool) {
        let sample = Sample { asked: self.now, lsn: Lsn(100), epoch: self.view.epoch };
        let timeline = Timeline(timeline);
        let position =
            Position { sample, received: None, timeline, system: 7, streaming, history: None, written: None };
        self.node(id).position = Some(position);
    }

    fn node(&mut self, id: NodeId) -> &mut NodeView {
        self.view.nodes.iter_mut().find(|node| node.id == id).expect("one of three")
    }

    fn give(&mut self, event: Event) {
        for action in self.engine.step(event, self.now) {
            match action {
                Action::Do(ticket, job) => self.jobs.push((ticket, job)),
                Action::Rule(ruling) => self.ruling = ruling,
                Action::Note(note) => self.notes.push(note),
                Action::Drop(tickets) => self.jobs.retain(|(ticket, _)| !tickets.contains(ticket)),
                Action::Reply(_, answer) => self.replies.push(answer),
            }
        }
    }

    fn look(&mut self) {
        self.give(Event::View(Arc::new(self.view.clone())));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.give(Event::Tick);
    }

    /// The first job of a kind, answered.
    fn answer(&mut self, kind: &str, outcome: Outcome) -> Job {
        let is = |(_, job): &(Ticket, Job)| format!("{job:?}").starts_with(kind);
        let at = self.jobs.iter().position(is).unwrap_or_else(|| panic!("no {kind} in {:?}", self.jobs));
        let (ticket, job) = self.jobs.remove(at);
        self.now += MS;
        self.give(Event::Done(ticket, outcome));
        job
    }

    /// Everything that is beside a run succeeds.
    fn chores(&mut self) {
        while let Some((_, job)) = self.jobs.iter().find(|(_, job)| matches!(job, Job::Restore(_) | Job::Record(_))) {
            let kind = if matches!(job, Job::Restore(_)) { "Restore" } else { "Record" };
            self.answer(kind, Outcome::Ok);
        }
    }

    /// The primary died a moment ago.
    fn dies(&mut self) {
        let since = self.now;
        self.now += 600 * MS;
        self.node(P).life = Life::Dead(since);
        self.look();
    }

    /// Up to the point where the standbys are to be recruited.
    fn prepared(&mut self) {
        self.prepared_with(Outcome::Ok);
    }

    /// The same, and what the partners say.
    fn prepared_with(&mut self, consent: Outcome) {
        self.answer("Barrier", Outcome::Ok);
        self.answer("Consent", consent);
        self.answer("Opinions", Outcome::Opinions(Vec::new()));
        self.answer("Record", Outcome::Ok);
    }

    /// P is dead, both are recruited, and no connection to P is open.
    fn closed(settings: Settings) -> Self {
        let mut play = Self::ready(settings);
        play.close();
        play
    }

    /// From a well cluster to the same.
    fn close(&mut self) {
        self.dies();
        self.prepared();
        self.recruited();
        self.answer("Fence", Outcome::Ok);
    }

    /// A switch-over to A is refused for this reason, before anything is stopped, until B is taken out.
    fn moves_without_b_alone(&mut self, reason: &str) {
        self.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
        let said = self.replies.pop().expect("an answer").expect_err("refused");
        assert!(said.contains(reason), "{said}");
        self.give(Event::Order(Ticket(98), Order::Detach(B)));
        self.replies.clear();
        self.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
        self.answer("Ready", Outcome::Ok);
        assert!(self.replies.is_empty() && self.holds(Hold::SwitchOver), "{:?}", self.replies);
    }

    /// Both are recruited, A is ahead.
    fn recruited(&mut self) {
        for (node, lsn) in [(A, 200), (B, 100)] {
            let standing =
                Standing { timeline: Timeline(1), lsn: Lsn(lsn), replayed: Lsn(lsn), started: 7, slow: false };
            self.answer(&format!("Recruit {{ node: {node:?}"), Outcome::Recruited(standing));
        }
    }

    /// A has become primary and the view says so.
    fn promoted(&mut self, epoch: u64) {
        self.view.primary = Some(A);
        self.view.epoch = Epoch(epoch);
        self.node(A).role = Role::Primary;
        self.position(A, 2, false);
        self.look();
    }

    fn noted(&self, event: &str) -> usize {
        self.notes.iter().filter(|note| note.event == event).count()
    }

    fn holds(&self, hold: Hold) -> bool {
        matches!(self.ruling.writes, Writes::Held { why, .. } if why == hold)
    }
}
