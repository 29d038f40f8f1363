//! With partner proxies: who acts, what is obeyed, what waits (HA H13, H17).

use super::*;
use crate::cluster::Accord;
use crate::failover::engine::words::HookState;

pub(super) fn partners() -> Settings {
    Settings { company: Company::Partners, ..settings(3) }
}

pub(super) fn accord(leads: Option<u64>, version: (u64, u64), epoch: u64, journal: &Journal) -> Event {
    let body = serde_json::to_string(journal).expect("a journal");
    Event::Accord(Accord {
        leads,
        version,
        epoch: Epoch(epoch),
        writes: true,
        body: body.into(),
        blind: BTreeSet::new(),
    })
}

pub(super) fn known(epoch: u64) -> Journal {
    Journal { epoch, primary: Some(0), timeline: 1, ..Journal::default() }
}

/// Leads in term 5, epoch 3 is agreed, P is its primary, nothing is left to do.
pub(super) fn leader() -> Play {
    let mut play = Play::new(partners(), Journal::default());
    play.view.epoch = Epoch(3);
    play.give(accord(Some(5), (5, 1), 3, &known(3)));
    play.look();
    play.chores();
    assert_eq!((play.jobs.len(), play.ruling.writes), (0, Writes::Open));
    play
}

#[test]
fn h17_nothing_is_written_or_done_before_partners_have_agreed() {
    let mut play = Play::new(partners(), Journal { epoch: 9, primary: Some(0), ..Journal::default() });
    play.look();
    assert!(play.holds(Hold::Partners) && play.ruling.agreed);
    assert_eq!((play.jobs.len(), play.ruling.epoch), (0, Epoch(0)), "what it counted alone does not count");
    play.dies();
    play.pass(Duration::from_secs(5));
    assert!(play.holds(Hold::Failover) && play.jobs.is_empty(), "somebody who leads will see to it");
}

#[test]
fn h13_the_first_leader_agrees_on_the_primary_that_it_finds() {
    let mut play = Play::new(partners(), Journal::default());
    let first = Accord { leads: Some(5), version: (5, 1), writes: true, ..Accord::default() };
    play.give(Event::Accord(first.clone()));
    play.view.epoch = Epoch(0);
    play.look();
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!((journal.epoch, journal.primary, journal.timeline), (1, Some(0), 1));
    assert!(play.holds(Hold::Partners), "until it is agreed");
    play.give(Event::Accord(Accord { version: (5, 2), epoch: Epoch(1), ..first }));
    assert_eq!((play.ruling.epoch, play.ruling.mandate), (Epoch(1), Mandate::Only(P, Epoch(1))));
    play.view.epoch = Epoch(1);
    play.look();
    assert_eq!(play.ruling.writes, Writes::Open);
}

#[test]
fn h13_a_new_leader_does_not_know_when_the_demote_command_of_the_one_before_ends() {
    let mut play = Play::new(partners(), Journal::default());
    play.view.epoch = Epoch(3);
    play.give(accord(Some(5), (5, 1), 3, &Journal { demoted: Some(P.0), ..known(3) }));
    for (pause, demoted) in [(0, Some(P.0)), (59, Some(P.0)), (2, None)] {
        play.pass(Duration::from_secs(pause));
        play.position(P, 1, false);
        play.look();
        assert_eq!(play.engine.journal().demoted, demoted, "{pause} seconds later");
        play.chores();
    }
}

#[test]
fn h12_partners_are_asked_about_a_demoted_primary_that_is_only_lost() {
    for (stands_by, planned) in [(false, false), (true, true)] {
        let mut play = Play::new(partners(), Journal::default());
        play.view.epoch = Epoch(3);
        play.give(accord(Some(5), (5, 1), 3, &Journal { demoted: Some(P.0), ..known(3) }));
        if stands_by {
            play.view.primary = None;
            play.node(P).role = Role::Standby;
            play.look();
        } else {
            play.dies();
        }
        play.answer("Barrier", Outcome::Ok);
        assert_eq!(play.answer("Consent", Outcome::Granted(Epoch(4))), Job::Consent { node: P, planned });
    }
}

#[test]
fn h13_a_leader_promotes_in_the_epoch_that_all_have_stopped_for() {
    let mut play = leader();
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    assert_eq!(play.answer("Consent", Outcome::Granted(Epoch(7))), Job::Consent { node: P, planned: false });
    play.answer("Opinions", Outcome::Opinions(Vec::new()));
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!(journal.epoch, 3, "intents belong to the epoch before");
    play.recruited();
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Promoted(Timeline(2)));
    assert_eq!(play.ruling.mandate, Mandate::Only(A, Epoch(7)));
    play.promoted(7);
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!((journal.epoch, journal.primary), (7, Some(1)));
    play.answer("Follow", Outcome::Ok);
    play.chores();
    assert!(!play.ruling.writes.open(), "until that is agreed");
    play.give(accord(Some(5), (5, 9), 7, &journal_of(&play)));
    assert_eq!(play.ruling.writes, Writes::Open);
}

#[test]
fn h14_who_follows_finds_by_its_own_probes_what_the_new_primary_lacks() {
    for (lsn, told) in [(200, true), (201, false)] {
        let mut play = Play::new(partners(), Journal::default());
        play.view.epoch = Epoch(3);
        play.give(accord(None, (5, 1), 3, &known(3)));
        play.look();
        let by = play.now;
        play.now += MS;
        play.give(accord(None, (5, 2), 7, &Journal { epoch: 7, primary: Some(A.0), timeline: 2, ..known(7) }));
        play.look();
        assert_eq!(play.ruling.succession, None, "the view is of the epoch before");
        assert_eq!(play.answer("Fence", Outcome::Ok), Job::Fence(P));
        // This proxy has heard of the epoch and not seen its primary yet; the one before still answers it.
        play.view.epoch = Epoch(7);
        play.position(P, 1, false);
        play.look();
        assert_eq!((play.view.primary, play.ruling.writes.open()), (Some(P), false), "HA H8, H17");
        (play.view.primary, play.view.epoch) = (Some(A), Epoch(7));
        play.position(A, 2, false);
        let node = play.node(A);
        node.role = Role::Primary;
        let position = node.position.as_mut().expect("read");
        position.written = Some(Written { timeline: Timeline(1), lsn: Lsn(200), by });
        position.history = Some(Arc::new(History::new(Timeline(2), vec![(Timeline(1), Lsn(lsn))])));
        play.look();
        assert_eq!(play.ruling.writes, Writes::Open);
        let known = Succession { old: P, before: Epoch(3), after: Epoch(7), until: by };
        assert_eq!(play.ruling.succession, told.then_some(known), "it went along up to {lsn}");
    }
}

#[test]
fn h17_who_leads_no_more_drops_everything_and_the_next_one_takes_it_up() {
    let mut play = leader();
    play.dies();
    play.prepared_with(Outcome::Granted(Epoch(4)));
    let journal = play.engine.journal().clone();
    play.give(accord(None, (5, 2), 3, &journal));
    assert!(play.jobs.is_empty() && play.engine.run.is_none(), "{:?}", play.jobs);
    play.pass(Duration::from_secs(30));
    assert!(play.jobs.is_empty());
    // The intent was not carried out: undone, and begun again from the start.
    let mut next = Play::new(partners(), Journal::default());
    next.view.epoch = Epoch(3);
    next.give(accord(None, (5, 2), 3, &journal));
    next.dies();
    assert!(next.jobs.is_empty() && next.holds(Hold::Failover));
    next.give(accord(Some(6), (6, 1), 3, &journal));
    assert_eq!(next.noted("failover_undone"), 1);
    assert!(next.jobs.iter().any(|(_, job)| matches!(job, Job::Restore(A))) || next.engine.run.is_some());
    next.answer("Barrier", Outcome::Ok);
    next.answer("Consent", Outcome::Granted(Epoch(5)));
}

#[test]
fn h17_who_leads_no_more_answers_whoever_waits_for_a_switch_over() {
    let mut play = leader();
    play.give(Event::Configure(Settings { hooks: BTreeSet::from([Hook::Demote]), ..partners() }));
    play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
    assert!(play.jobs.iter().any(|(_, job)| *job == Job::Ready(P)) && play.replies.is_empty());
    play.give(accord(None, (5, 2), 3, &known(3)));
    assert!(play.replies.pop().is_some_and(|said| said.is_err()) && play.jobs.is_empty());
}

#[test]
fn s37_a_promotion_that_was_begun_is_finished_in_an_epoch_that_all_have_stopped_for() {
    let intent = Intent {
        id: 3,
        epoch: 4,
        old: 0,
        timeline: 1,
        step: IntentStep::Promoting,
        candidate: Some(1),
        stopped_at: 0,
        started: 7,
        hooks: HookState::default(),
    };
    let journal = Journal { intent: Some(intent), recruited: vec![1, 2], ..known(3) };
    let mut play = Play::new(partners(), Journal::default());
    play.view.epoch = Epoch(3);
    play.give(accord(None, (5, 2), 3, &journal));
    play.look();
    assert!(play.holds(Hold::Failover), "the old primary answers, and is not written to");
    play.dies();
    play.give(accord(Some(6), (6, 1), 3, &journal));
    play.promoted(4);
    let asked = play.answer("Consent", Outcome::Granted(Epoch(5)));
    assert_eq!(asked, Job::Consent { node: P, planned: true });
    let mut records =
        play.jobs.iter().filter_map(|(_, job)| if let Job::Record(journal) = job { Some(journal) } else { None });
    let last = records.next_back().expect("it is written down");
    assert_eq!((last.epoch, last.primary), (5, Some(1)));
}

#[test]
fn h13_who_follows_obeys_what_is_agreed_and_closes_what_it_has_left() {
    let mut play = Play::new(partners(), Journal::default());
    play.view.epoch = Epoch(3);
    play.give(accord(None, (5, 1), 3, &known(3)));
    play.look();
    assert_eq!((play.ruling.writes, play.jobs.len()), (Writes::Open, 0), "no chores");
    let next = Journal { epoch: 4, primary: Some(1), timeline: 2, detached: vec![2], fallen: vec![0], ..known(4) };
    play.give(accord(None, (5, 2), 4, &next));
    assert_eq!(play.ruling.mandate, Mandate::Only(A, Epoch(4)));
    assert_eq!((play.ruling.detached.clone(), play.ruling.fallen.clone()), (vec![B], vec![P]));
    assert!(!play.ruling.writes.open());
    assert_eq!(play.answer("Fence", Outcome::Ok), Job::Fence(P));
    play.promoted(4);
    assert_eq!((play.ruling.writes, play.jobs.len()), (Writes::Open, 0));
}

#[test]
fn h03_a_standby_that_this_proxy_alone_has_lost_stays() {
    let mut play = leader();
    let since = play.now;
    play.node(B).life = Life::Dead(since);
    play.node(B).status = Status::Down;
    let blind = BTreeSet::from([B]);
    let seen = Accord { leads: Some(5), version: (5, 1), epoch: Epoch(3), writes: true, blind, ..Accord::default() };
    play.give(Event::Accord(seen.clone()));
    play.now += Duration::from_secs(5);
    play.look();
    assert!(play.ruling.fallen.is_empty(), "others see it");
    play.give(Event::Accord(Accord { blind: BTreeSet::new(), ..seen }));
    play.look();
    assert_eq!(play.ruling.fallen, [B], "nobody does");
    let kept = |(_, job): &(Ticket, Job)| matches!(job, Job::Record(journal) if journal.fallen == [2]);
    assert!(play.jobs.iter().any(kept), "whoever leads next must know");
}

#[test]
fn h04_a_primary_that_partners_see_again_is_not_replaced() {
    let mut play = leader();
    let seen = |blind: &[NodeId]| {
        let blind = blind.iter().copied().collect();
        Accord { leads: Some(5), version: (5, 1), epoch: Epoch(3), writes: true, blind, ..Accord::default() }
    };
    play.dies();
    // Partners notice it a moment later: that is waited for.
    play.give(Event::Accord(seen(&[P])));
    play.answer("Barrier", Outcome::Ok);
    play.give(Event::Accord(seen(&[])));
    assert_eq!(play.answer("Consent", Outcome::Granted(Epoch(4))), Job::Consent { node: P, planned: false });
    play.answer("Opinions", Outcome::Opinions(Vec::new()));
    play.answer("Record", Outcome::Ok);
    play.give(Event::Accord(seen(&[P])));
    let given = |job: &Job| play.jobs.iter().any(|(_, given)| given == job);
    assert!(given(&Job::Resume) && given(&Job::Restore(A)) && given(&Job::Restore(B)), "{:?}", play.jobs);
    assert!(play.engine.journal().intent.is_none() && play.noted("failover_waits") == 1);
}

#[test]
fn h17_a_primary_that_somebody_else_promoted_is_agreed_on_before_it_is_written_to() {
    let mut play = leader();
    let since = play.now;
    play.node(P).life = Life::Dead(since);
    play.node(A).role = Role::Primary;
    play.position(A, 2, false);
    play.now += Duration::from_secs(2);
    play.look();
    assert!(!play.ruling.writes.open() && play.ruling.mandate == Mandate::Only(P, Epoch(3)));
    assert_eq!(play.answer("Consent", Outcome::Granted(Epoch(4))), Job::Consent { node: P, planned: false });
    let mut records =
        play.jobs.iter().filter_map(|(_, job)| if let Job::Record(journal) = job { Some(journal) } else { None });
    assert_eq!(records.next_back().map(|journal| (journal.epoch, journal.primary)), Some((4, Some(1))));
}

pub(super) fn journal_of(play: &Play) -> Journal {
    play.engine.journal().clone()
}
