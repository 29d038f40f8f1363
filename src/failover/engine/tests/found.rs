//! What histories of the simulation have shown, one by one.

use super::together::{accord, journal_of, known, leader, partners};
use super::*;

fn asks(play: &Play, wanted: &Job) -> bool {
    play.jobs.iter().any(|(_, job)| job == wanted)
}

/// P answers again.
fn revives(play: &mut Play) {
    play.now += MS;
    play.node(P).life = Life::Well;
    play.position(P, 1, false);
    play.look();
}

#[test]
fn h02_a_standby_that_comes_while_others_are_asked_is_asked_before_it_is_recruited() {
    let mut play = Play::ready(settings(3));
    let since = play.now;
    play.node(B).life = Life::Dead(since);
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    play.node(B).life = Life::Well;
    play.look();
    assert_eq!(play.answer("Opinions", Outcome::Opinions(Vec::new())), Job::Opinions(vec![A]));
    let heard = Opinion { sender: ("10.0.0.0".to_owned(), 5432), age: Duration::ZERO };
    assert_eq!(play.answer("Opinions", Outcome::Opinions(vec![(B, heard)])), Job::Opinions(vec![A, B]));
    assert_eq!((play.noted("primary_gray"), play.noted("recruit_failed")), (1, 0));
    assert!(!play.jobs.iter().any(|(_, job)| matches!(job, Job::Recruit { .. })));
}

#[test]
fn h13_that_failover_command_was_started_is_written_down_before_it_is() {
    let mut play =
        Play::closed(Settings { mode: Mode::Command, hooks: BTreeSet::from([Hook::Failover]), ..settings(3) });
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!(journal.spent, Some(P.0));
    // Whoever takes it up waits for what it does, and does not start it again.
    let mut next = Play::new(play.engine.settings.clone(), *journal);
    next.node(P).life = Life::Dead(next.now);
    next.view.primary = None;
    next.look();
    next.answer("Await", Outcome::Late("it is a standby".to_owned()));
    next.chores();
    next.pass(Duration::from_secs(20));
    assert!(!next.jobs.iter().any(|(_, job)| matches!(job, Job::Barrier | Job::Hook { .. })), "{:?}", next.jobs);
}

#[test]
fn h03_a_leader_that_has_not_seen_the_agreed_primary_asks_about_that_one() {
    let mut play = Play::new(partners(), Journal::default());
    play.view.epoch = Epoch(3);
    play.give(accord(None, (5, 1), 3, &known(3)));
    play.look();
    // The others have replaced P by A, which this proxy has lost as well.
    let since = play.now;
    let next = Journal { primary: Some(A.0), timeline: 2, ..known(4) };
    play.give(accord(None, (5, 2), 4, &next));
    play.answer("Fence", Outcome::Ok);
    play.node(A).life = Life::Dead(since);
    play.view.epoch = Epoch(4);
    play.dies();
    play.give(accord(Some(6), (6, 1), 4, &next));
    play.answer("Barrier", Outcome::Ok);
    assert!(asks(&play, &Job::Consent { node: A, planned: false }), "{:?}", play.jobs);
}

#[test]
fn h17_partners_go_on_once_nothing_comes_of_what_they_were_asked_for() {
    // Refused, perhaps since not all have stopped in time: the next attempt lives on those that have.
    let mut play = leader();
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Failed("not every proxy has stopped".to_owned()));
    assert!(!asks(&play, &Job::Resume));
    revives(&mut play);
    assert!(asks(&play, &Job::Resume));
    // The primary is back before the answer is: what was asked for is prepared until then.
    let mut play = leader();
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    revives(&mut play);
    assert!(!asks(&play, &Job::Resume));
    play.answer("Consent", Outcome::Granted(Epoch(4)));
    assert!(asks(&play, &Job::Resume));
}

#[test]
fn h05_what_a_run_that_was_given_up_has_begun_ends_with_the_lead() {
    let mut play = leader();
    play.dies();
    play.prepared_with(Outcome::Granted(Epoch(4)));
    revives(&mut play);
    assert!(play.jobs.iter().any(|(_, job)| matches!(job, Job::Recruit { .. })), "they go on");
    play.give(accord(None, (5, 2), 3, &known(3)));
    assert_eq!(play.jobs, []);
}

/// A was promoted by somebody else while P is dead: partners are asked for an epoch.
fn adopting() -> Play {
    let mut play = leader();
    let since = play.now;
    play.node(P).life = Life::Dead(since);
    play.node(A).role = Role::Primary;
    play.position(A, 2, false);
    play.now += Duration::from_secs(2);
    play.look();
    play
}

#[test]
fn h17_nothing_is_written_before_the_new_primary_is_agreed_on() {
    let mut play = adopting();
    play.answer("Consent", Outcome::Granted(Epoch(4)));
    play.answer("Fence", Outcome::Ok);
    play.view.primary = Some(A);
    play.look();
    assert!(play.holds(Hold::Partners) && !asks(&play, &Job::Resume), "{:?}", play.ruling);
    play.give(accord(Some(5), (5, 2), 4, &journal_of(&play)));
    play.view.epoch = Epoch(4);
    play.look();
    assert_eq!(play.ruling.writes, Writes::Open);
}

#[test]
fn h17_an_epoch_that_is_not_wanted_any_more_is_given_back() {
    let mut play = adopting();
    revives(&mut play);
    play.answer("Consent", Outcome::Granted(Epoch(4)));
    assert!(asks(&play, &Job::Resume));
    assert_eq!((play.engine.journal().epoch, play.engine.journal().primary), (3, Some(P.0)));
    // It has died meanwhile: the next answer counts.
    let mut play = adopting();
    let since = play.now;
    play.node(A).life = Life::Dead(since);
    play.look();
    play.answer("Consent", Outcome::Granted(Epoch(4)));
    assert!(asks(&play, &Job::Resume));
    assert_eq!(play.engine.journal().primary, Some(P.0));
}

#[test]
fn h14_nothing_is_said_to_be_missing_before_the_new_primary_is_agreed_on() {
    let mut play = leader();
    play.dies();
    play.prepared_with(Outcome::Granted(Epoch(4)));
    play.recruited();
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Promoted(Timeline(2)));
    play.position(A, 2, false);
    let by = play.now;
    (play.view.primary, play.view.epoch) = (Some(A), Epoch(4));
    let node = play.node(A);
    node.role = Role::Primary;
    let position = node.position.as_mut().expect("read");
    position.written = Some(Written { timeline: Timeline(1), lsn: Lsn(200), by });
    position.history = Some(Arc::new(History::new(Timeline(2), vec![(Timeline(1), Lsn(200))])));
    play.look();
    assert_eq!((play.noted("promoted"), play.ruling.succession), (1, None));
    let last = journal_of(&play);
    play.give(accord(Some(5), (5, 9), 4, &last));
    assert!(play.ruling.succession.is_some_and(|succession| succession.after == Epoch(4)));
}
