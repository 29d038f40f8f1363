//! Decisions that are taken back, primaries that come back otherwise than they went, hooks that are tried again.

use super::*;

/// Up to the record of the decision to promote A, which is not answered yet.
fn deciding() -> Play {
    Play::closed(settings(3))
}

#[test]
fn h07_a_decision_that_may_be_on_disk_is_taken_back_there_before_anybody_writes() {
    let failed = || Outcome::Failed("disk full".to_owned());
    // The primary answers again while it is written down; and it cannot be written down.
    for outcome in [Outcome::Ok, failed()] {
        let mut play = deciding();
        if outcome == Outcome::Ok {
            play.node(P).life = Life::Well;
            play.look();
        }
        play.answer("Record", outcome);
        assert!(play.holds(Hold::Failover), "{:?}", play.ruling);
        assert!(
            play.jobs.iter().all(|(_, job)| !matches!(job, Job::Promote { .. } | Job::Restore(_))),
            "{:?}",
            play.jobs
        );
        // As often as it takes.
        play.answer("Record", failed());
        assert!(play.jobs.is_empty() && play.holds(Hold::Failover), "{:?}", play.jobs);
        play.pass(PAUSE);
        let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
        assert_eq!(journal.intent, None);
        assert_eq!(play.noted("failover_waits"), 1);
        assert!(play.jobs.iter().any(|(_, job)| *job == Job::Restore(A)), "{:?}", play.jobs);
    }
}

#[test]
fn h07_a_decision_that_cannot_be_taken_back_is_let_go_when_statements_are_held_no_longer() {
    let mut play = deciding();
    play.node(P).life = Life::Well;
    play.look();
    play.answer("Record", Outcome::Ok);
    let held = play.now + settings(3).hold_timeout;
    while play.noted("failover_waits") == 0 {
        assert!(play.now < held + PAUSE * 2);
        play.answer("Record", Outcome::Failed("disk full".to_owned()));
        play.pass(PAUSE);
    }
    assert!(play.now >= held);
}

#[test]
fn h04_a_primary_that_comes_back_as_a_standby_is_replaced() {
    let mut play = Play::ready(settings(3));
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Failed("1 of 2 proxies see node 0 dead".to_owned()));
    play.node(P).life = Life::Well;
    play.node(P).role = Role::Standby;
    play.view.primary = None;
    play.pass(PAUSE * 2);
    play.look();
    play.answer("Barrier", Outcome::Ok);
    assert_eq!(play.answer("Consent", Outcome::Ok), Job::Consent { node: P, planned: true });
}

#[test]
fn h13_a_fence_that_was_not_started_is_tried_again() {
    let mut play = Play::closed(Settings { hooks: BTreeSet::from([Hook::Fence]), ..settings(3) });
    play.answer("Record", Outcome::Ok);
    play.answer("Hook { hook: Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Late("no answer".to_owned()));
    play.node(A).life = Life::Dead(play.now);
    play.look();
    play.pass(PAUSE * 2);
    play.answer("Record", Outcome::Failed("disk full".to_owned()));
    assert!(play.engine.journal().begun.is_empty(), "{:?}", play.engine.journal().begun);
    play.pass(Duration::from_secs(11));
    play.answer("Record", Outcome::Ok);
    assert!(
        play.jobs.iter().any(|(_, job)| matches!(job, Job::Hook { hook: Hook::Fence, node: A, .. })),
        "{:?}",
        play.jobs
    );
}

#[test]
fn h02_a_standby_that_is_taken_out_hears_of_the_primary_as_well() {
    let mut play = Play::ready(settings(3));
    play.give(Event::Order(Ticket(99), Order::Detach(B)));
    play.chores();
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    assert!(matches!(&play.jobs[..], [(_, Job::Opinions(asked))] if *asked == [A, B]), "{:?}", play.jobs);
}

#[test]
fn h05_a_failover_command_is_not_started_without_the_locks_and_another_one_may_be() {
    let mut play =
        Play::closed(Settings { mode: Mode::Command, hooks: BTreeSet::from([Hook::Failover]), ..settings(3) });
    play.answer("Record", Outcome::Ok);
    let Job::Hook { locks, .. } = play.answer("Hook", Outcome::LockLost(B)) else { panic!("a hook") };
    assert_eq!(locks, [A, B]);
    // The decision is taken back on disk before anything else.
    let Job::Record(kept) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!((kept.intent, kept.promised, kept.spent, kept.begun), (None, None, None, Vec::new()));
    let told = play.notes.iter().find(|note| note.event == "failover_waits").expect("told");
    assert_eq!(told.why, "nothing was promoted: the lock of node 2 was lost");
    play.chores();
    play.pass(Duration::from_secs(3));
    play.prepared();
}

#[test]
fn h07_a_lost_lock_does_not_take_back_what_an_earlier_failover_command_was_told() {
    let journal = Journal { promised: Some((A.0, 7)), ..Journal::default() };
    let command = Settings { mode: Mode::Command, hooks: BTreeSet::from([Hook::Failover]), ..settings(3) };
    let mut play = Play::new(command, journal);
    play.look();
    play.chores();
    play.close();
    play.answer("Record", Outcome::Ok);
    play.answer("Hook", Outcome::LockLost(B));
    let Job::Record(kept) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!((kept.promised, kept.spent), (Some((A.0, 7)), None));
}

#[test]
fn h05_a_promotion_that_was_not_sent_is_taken_back_on_disk_before_anything_is_let_go() {
    for unsent in [Outcome::LockLost(B), Outcome::NotSent("it does not answer".to_owned())] {
        let mut play = Play::closed(settings(3));
        play.answer("Record", Outcome::Ok);
        play.answer("Promote", unsent);
        assert_eq!((play.jobs.len(), play.noted("failover_waits")), (1, 0), "{:?}", play.jobs);
        let Job::Record(kept) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
        assert_eq!((kept.intent, play.noted("failover_waits")), (None, 1));
    }
}
