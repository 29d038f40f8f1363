//! The cases.

use super::*;

#[test]
fn h01_writes_are_held_as_long_as_the_primary_is_suspect_and_refused_after_a_while() {
    let mut play = Play::ready(settings(3));
    play.node(P).life = Life::Suspect(play.now);
    play.look();
    assert!(play.holds(Hold::Suspect));
    play.node(P).life = Life::Well;
    play.look();
    assert_eq!(play.ruling.writes, Writes::Open);
    play.node(P).life = Life::Busy(play.now);
    play.look();
    play.pass(Duration::from_secs(29));
    assert!(play.holds(Hold::Suspect), "a crash recovery is waited for");
    play.pass(Duration::from_secs(2));
    assert!(matches!(play.ruling.writes, Writes::Refused { .. }));
    assert_eq!((play.jobs.len(), play.noted("failover_begins")), (0, 0), "and is no reason to promote");
}

#[test]
fn h04_the_steps_come_in_their_order() {
    let mut play = Play::ready(settings(3));
    play.dies();
    assert!(play.holds(Hold::Failover));
    play.prepared();
    play.recruited();
    assert_eq!(play.answer("Fence", Outcome::Ok), Job::Fence(P));
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    let intent = journal.intent.expect("what is about to happen");
    assert_eq!((intent.step, intent.candidate, intent.old), (IntentStep::Promoting, Some(1), 0));
    assert_eq!(play.ruling.mandate, Mandate::Only(A, Epoch(2)));
    let promote = play.answer("Promote", Outcome::Promoted(Timeline(2)));
    assert_eq!(promote, Job::Promote { node: A, recruits: vec![A, B], again: None });
    assert!(play.holds(Hold::Failover), "until the view says so");
    play.promoted(2);
    assert_eq!(play.answer("Follow", Outcome::Ok), Job::Follow { node: B, primary: A, old: P });
    assert_eq!((play.ruling.writes, play.noted("failover_done")), (Writes::Open, 1));
    play.chores();
    assert_eq!(play.engine.journal().recruited, [0; 0]);
    assert_eq!((play.engine.journal().primary, play.engine.journal().intent.as_ref()), (Some(1), None));
}

#[test]
fn h02_a_primary_that_a_standby_hears_of_is_not_replaced() {
    let mut play = Play::ready(settings(3));
    play.dies();
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    let heard = |sender: &str, age| {
        Outcome::Opinions(vec![(B, Opinion { sender: (sender.to_owned(), 5432), age: Duration::from_millis(age) })])
    };
    play.answer("Opinions", heard("10.0.0.0", 100));
    assert_eq!((play.noted("primary_gray"), play.jobs.len()), (1, 0));
    assert!(play.holds(Hold::NoPrimary));
    // Once more, with something that was heard before the first lost probe, and from somebody else.
    for (sender, age) in [("10.0.0.0", 1700), ("10.0.0.1", 10)] {
        let mut play = Play::ready(settings(3));
        play.dies();
        play.answer("Barrier", Outcome::Ok);
        play.answer("Consent", Outcome::Ok);
        play.answer("Opinions", heard(sender, age));
        assert!(matches!(play.jobs[..], [(_, Job::Record(_))]), "{sender} {age}: {:?}", play.jobs);
    }
}

#[test]
fn with_never_nobody_is_promoted_and_it_is_told_once() {
    let mut play = Play::ready(Settings { mode: Mode::Never, ..settings(3) });
    play.dies();
    for _ in 0..20 {
        play.pass(Duration::from_secs(1));
        play.look();
    }
    assert_eq!((play.jobs.len(), play.noted("primary_lost")), (0, 1));
    assert!(play.holds(Hold::NoPrimary));
    play.node(P).life = Life::Well;
    play.look();
    assert_eq!((play.ruling.writes, play.noted("outage_over")), (Writes::Open, 1));
}

#[test]
fn h04_whatever_stops_a_run_before_the_promotion_takes_it_back() {
    type Stop = fn(&mut Play);
    let stops: [(&str, Stop); 3] = [
        ("the primary answers", |play| {
            play.node(P).life = Life::Well;
            play.look();
        }),
        ("an operator takes a recruit out", |play| play.give(Event::Order(Ticket(99), Order::Detach(B)))),
        ("the fence fails", |play| drop(play.answer("Fence", Outcome::Failed("no".to_owned())))),
    ];
    for (name, stop) in stops {
        let mut play = Play::ready(settings(3));
        play.dies();
        play.prepared();
        play.recruited();
        stop(&mut play);
        let restored = |node| play.jobs.iter().any(|(_, job)| *job == Job::Restore(node));
        assert!(restored(A) && restored(B), "{name}: {:?}", play.jobs);
        assert!(!play.jobs.iter().any(|(_, job)| matches!(job, Job::Promote { .. })), "{name}");
        play.jobs.retain(|(_, job)| *job != Job::Fence(P));
        play.chores();
        assert!(play.engine.journal().recruited.is_empty() && play.engine.journal().intent.is_none(), "{name}");
    }
}

#[test]
fn h07_a_late_promotion_is_asked_of_the_same_node_again_and_of_no_other() {
    let mut play = Play::closed(settings(3));
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Late("still in recovery".to_owned()));
    // The old primary is back, and the candidate is gone for a while: neither changes anything.
    play.node(P).life = Life::Well;
    play.node(A).life = Life::Dead(play.now);
    for _ in 0..10 {
        play.look();
        play.pass(Duration::from_secs(1));
    }
    assert_eq!((play.jobs.len(), play.ruling.mandate), (0, Mandate::Only(A, Epoch(2))), "{:?}", play.jobs);
    assert!(play.holds(Hold::Failover));
    play.node(A).life = Life::Well;
    play.look();
    play.pass(Duration::from_secs(1));
    let again = play.answer("Promote", Outcome::Restarted);
    assert_eq!(again, Job::Promote { node: A, recruits: vec![A, B], again: Some(7) });
    play.look();
    assert_eq!(play.ruling.writes, Writes::Open, "it has forgotten what it was told: the old one stays");
}

#[test]
fn h09_writes_wait_for_synchronous_standbys_or_they_are_relaxed() {
    for relax_sync in [false, true] {
        let mut play = Play::ready(Settings { relax_sync, ..settings(3) });
        play.view.synchronous = "ANY 2 (node0, node1, node2)".into();
        play.look();
        play.chores();
        play.close();
        play.answer("Record", Outcome::Ok);
        play.answer("Promote", Outcome::Promoted(Timeline(2)));
        play.promoted(2);
        play.answer("Follow", Outcome::Ok);
        play.position(B, 2, true);
        play.look();
        assert!(play.holds(Hold::SyncShortage), "one of two streams: {:?}", play.ruling);
        if relax_sync {
            assert_eq!(play.answer("Relax", Outcome::Ok), Job::Relax(A));
            play.view.synchronous = "".into();
        } else {
            play.pass(Duration::from_secs(60));
            assert!(play.holds(Hold::SyncShortage));
            play.view.synchronous = "ANY 1 (node0, node2)".into();
        }
        play.look();
        assert_eq!(play.ruling.writes, Writes::Open);
    }
}

#[test]
fn h13_a_new_process_undoes_what_was_not_promoted_and_ends_what_was() {
    let mut play = Play::ready(settings(3));
    play.dies();
    play.prepared();
    let early = play.engine.journal().clone();
    play.recruited();
    play.answer("Fence", Outcome::Ok);
    let Job::Record(late) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };

    let mut next = Play::new(settings(3), early);
    assert_eq!(next.ruling.mandate, Mandate::Free);
    next.look();
    assert_eq!(next.noted("failover_undone"), 1);
    next.chores();
    assert!(next.engine.journal().recruited.is_empty() && next.engine.journal().intent.is_none());

    let mut next = Play::new(settings(3), *late);
    assert_eq!(next.ruling.mandate, Mandate::Only(A, Epoch(2)));
    assert!(next.holds(Hold::Failover), "from the first view on");
    next.look();
    let again = next.answer("Promote", Outcome::Promoted(Timeline(2)));
    assert_eq!(again, Job::Promote { node: A, recruits: Vec::new(), again: Some(7) });
    next.promoted(3);
    assert_eq!(next.engine.journal().primary, Some(1));
}

#[test]
fn h12_a_switch_over_stops_the_primary_before_it_promotes() {
    let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
    play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
    assert_eq!(play.ruling.writes, Writes::Open, "until most is on disk");
    assert_eq!(play.answer("Ready", Outcome::Ok), Job::Ready(P));
    assert!(play.holds(Hold::SwitchOver));
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    assert_eq!(play.answer("Drain", Outcome::Ok), Job::Drain(P));
    assert_eq!(play.answer("Checkpoint", Outcome::Position(Lsn(150))), Job::Checkpoint { node: P, follow: A });
    play.answer("Fence", Outcome::Ok);
    let Job::Record(journal) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!(journal.intent.map(|intent| (intent.step, intent.stopped_at)), Some((IntentStep::Demoting, 150)));
    play.answer("Hook { hook: Demote", Outcome::Ok);
    assert_eq!(play.answer("CatchUp", Outcome::Ok), Job::CatchUp { node: A, old: P, lsn: Lsn(150) });
    play.answer("Record", Outcome::Ok);
    play.recruited();
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Promoted(Timeline(2)));
    play.promoted(2);
    play.answer("Follow", Outcome::Ok);
    assert_eq!((play.replies.len(), play.ruling.writes), (1, Writes::Open));
    assert!(play.replies[0].is_ok(), "{:?}", play.replies);
}

/// A switch-over is given up while `demote_command` works; P answers yet.
fn given_up() -> Play {
    let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
    play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
    play.answer("Ready", Outcome::Ok);
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    play.answer("Drain", Outcome::Ok);
    play.answer("Checkpoint", Outcome::Position(Lsn(150)));
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    // It seems to be dead, and an operator does not wait.
    play.node(P).life = Life::Dead(play.now);
    play.look();
    play.give(Event::Order(Ticket(97), Order::Promote(A)));
    play.jobs.retain(|(_, job)| *job != Job::Barrier);
    play.node(P).life = Life::Well;
    play.position(P, 1, false);
    play.look();
    assert!(play.replies.len() == 2 && play.replies.drain(..).all(|said| said.is_err()));
    play.chores();
    assert_eq!(play.ruling.writes, Writes::Open);
    play
}

#[test]
fn h12_a_primary_that_is_stopped_when_its_switch_over_is_given_up_already_is_replaced() {
    let mut play = given_up();
    assert_eq!(play.engine.journal().demoted, Some(P.0), "it may still be stopped");
    play.give(Event::Order(Ticket(98), Order::SwitchOver(Some(A))));
    let said = play.replies.pop().expect("an answer").expect_err("one at a time");
    assert!(said.contains("demote_command may still run"), "{said}");
    play.answer("Hook { hook: Demote", Outcome::Ok);
    play.chores();
    // It is back as a standby before anybody has noticed that it was gone.
    play.node(P).role = Role::Standby;
    play.position(P, 1, false);
    play.view.primary = None;
    play.look();
    play.pass(Duration::from_secs(2));
    play.answer("Barrier", Outcome::Ok);
    let asked = play.answer("Consent", Outcome::Ok);
    assert_eq!(asked, Job::Consent { node: P, planned: true });
    play.answer("Opinions", Outcome::Opinions(Vec::new()));
    play.answer("Record", Outcome::Ok);
    let standing = Standing { timeline: Timeline(1), lsn: Lsn(100), replayed: Lsn(100), started: 7, slow: false };
    play.answer("Recruit { node: NodeId(0)", Outcome::Recruited(standing));
    play.recruited();
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    let promote = play.answer("Promote", Outcome::Promoted(Timeline(2)));
    assert_eq!(promote, Job::Promote { node: A, recruits: vec![P, A, B], again: None });
}

#[test]
fn h12_a_primary_that_was_not_stopped_stays_whatever_becomes_of_it_later() {
    let mut play = given_up();
    play.answer("Hook { hook: Demote", Outcome::Failed("exit status: 1".to_owned()));
    play.look();
    assert_eq!(play.engine.journal().demoted, Some(P.0), "what was read before says nothing");
    play.now += MS;
    play.position(P, 1, false);
    play.look();
    play.chores();
    assert_eq!(play.engine.journal().demoted, None);
    // An operator starts it as a standby, and knows why.
    play.node(P).role = Role::Standby;
    play.view.primary = None;
    play.look();
    play.pass(Duration::from_secs(20));
    assert_eq!(play.jobs, []);
}

#[test]
fn h13_a_new_process_does_not_know_when_the_demote_command_of_the_one_before_ends() {
    let journal = given_up().engine.journal().clone();
    assert_eq!((journal.demoted, &journal.intent), (Some(P.0), &None));
    let mut next = Play::new(settings(3), journal);
    for (pause, demoted) in [(0, Some(P.0)), (59, Some(P.0)), (2, None)] {
        next.pass(Duration::from_secs(pause));
        next.position(P, 1, false);
        next.look();
        assert_eq!(next.engine.journal().demoted, demoted, "{pause} seconds later");
        next.chores();
    }
}

#[test]
fn h25_what_must_not_be_done_by_hand_is_refused_with_what_to_do_instead() {
    let mut play = Play::ready(settings(3));
    for (order, text) in [
        (Order::Detach(P), "--switchover"),
        (Order::Promote(A), "--switchover 1"),
        (Order::SwitchOver(Some(A)), "demote_command"),
        (Order::Attach(NodeId(9)), "no node 9"),
    ] {
        play.give(Event::Order(Ticket(99), order));
        let said = play.replies.pop().expect("an answer").expect_err("refused");
        assert!(said.contains(text), "{order:?}: {said}");
    }
    play.give(Event::Order(Ticket(99), Order::Detach(B)));
    assert_eq!((play.ruling.detached.clone(), play.replies.len()), (vec![B], 1));
    play.give(Event::Order(Ticket(99), Order::Attach(B)));
    assert!(play.ruling.detached.is_empty());
}

#[test]
fn h12_a_detached_standby_is_no_successor() {
    let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
    play.give(Event::Order(Ticket(98), Order::Detach(A)));
    play.chores();
    play.replies.clear();
    play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
    let said = play.replies.pop().expect("an answer").expect_err("refused before anything is stopped");
    assert!(said.contains("attach it first"), "{said}");
    assert_eq!(play.ruling.writes, Writes::Open);
}

#[test]
fn h12_nothing_is_stopped_while_failover_command_may_still_promote_somebody() {
    let settings =
        Settings { mode: Mode::Command, hooks: BTreeSet::from([Hook::Demote, Hook::Failover]), ..settings(3) };
    let journal = Journal { promised: Some((B.0, 7)), primary: Some(P.0), timeline: 1, ..Journal::default() };
    let mut play = Play::new(settings, journal);
    play.look();
    play.chores();
    play.moves_without_b_alone("may still promote node 2");
}

#[test]
fn h07_standbys_follow_a_candidate_of_ours_that_was_fenced_and_let_back() {
    // Without promotions by itself this one was an operator's order.
    let journal =
        Journal { primary: Some(P.0), timeline: 1, condemned: vec![A.0], fenced: Some((A.0, 1)), ..Journal::default() };
    for mode in [Mode::Never, Mode::Builtin] {
        let mut play = Play::new(Settings { mode, ..settings(3) }, journal.clone());
        play.node(P).life = Life::Dead(play.now);
        play.view.primary = None;
        play.node(A).role = Role::Primary;
        play.position(A, 2, false);
        play.look();
        assert_eq!((play.noted("fence_lifted"), play.ruling.detached.len()), (1, 0));
        play.promoted(2);
        assert_eq!((play.noted("primary_adopted"), play.engine.journal().primary), (1, Some(A.0)));
        assert_eq!(play.engine.journal().following, [P.0, B.0], "{mode:?}");
    }
}

#[test]
fn h07_a_promise_to_a_node_that_is_configured_no_more_binds_nobody() {
    let journal = Journal { promised: Some((B.0, 7)), ..Journal::default() };
    let mut play = Play::new(settings(3), journal);
    play.look();
    play.chores();
    play.give(Event::Configure(settings(2)));
    assert_eq!(play.engine.journal().promised, None);
    let Job::Record(kept) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!(kept.promised, None);
}

#[test]
fn h07_a_candidate_that_is_configured_no_more_is_waited_for_no_more() {
    let mut play = Play::closed(settings(3));
    play.answer("Record", Outcome::Ok);
    play.answer("Promote", Outcome::Late("still in recovery".to_owned()));
    let kept =
        Settings { members: settings(3).members.into_iter().filter(|member| member.id != A).collect(), ..settings(3) };
    play.view.nodes.retain(|node| node.id != A);
    play.give(Event::Configure(kept));
    assert_eq!((play.noted("candidate_removed"), &play.engine.journal().intent), (1, &None));
    assert_eq!(play.ruling.mandate, Mandate::Free);
    play.look();
    play.chores();
    play.pass(Duration::from_secs(2));
    play.prepared();
    let standing = Standing { timeline: Timeline(1), lsn: Lsn(100), replayed: Lsn(100), started: 7, slow: false };
    play.answer("Recruit", Outcome::Recruited(standing));
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    let promote = play.answer("Promote", Outcome::Promoted(Timeline(2)));
    assert_eq!(promote, Job::Promote { node: B, recruits: vec![B], again: None });
}

#[test]
fn h14_what_the_new_primary_certainly_lacks_is_told_only_if_its_history_and_what_it_had_say_so() {
    let left = |timeline, lsn| vec![(Timeline(timeline), Lsn(lsn))];
    // Of timeline 1 it has gone along up to 200, and 200 was there by then.
    for (ancestors, timeline, lsn, told) in [
        (left(1, 200), 1, 200, true),
        (left(1, 150), 1, 200, true),
        // More of it than was there when it was last asked.
        (left(1, 201), 1, 200, false),
        // Of another timeline.
        (left(1, 200), 2, 200, false),
        // It does not come from the old primary's timeline, or nobody knows.
        (vec![], 1, 200, false),
    ] {
        let mut play = Play::ready(settings(3));
        let by = play.now;
        play.close();
        play.answer("Record", Outcome::Ok);
        play.answer("Promote", Outcome::Promoted(Timeline(2)));
        play.position(A, 2, false);
        play.view.primary = Some(A);
        play.view.epoch = Epoch(2);
        let node = play.node(A);
        node.role = Role::Primary;
        let position = node.position.as_mut().expect("read");
        position.written = Some(Written { timeline: Timeline(timeline), lsn: Lsn(lsn), by });
        position.history = Some(Arc::new(History::new(Timeline(2), ancestors.clone())));
        play.look();
        assert_eq!(
            play.ruling.succession,
            told.then_some(Succession { old: P, before: Epoch(1), after: Epoch(2), until: by })
        );
        if let Some(succession) = play.ruling.succession {
            assert!(succession.lacks(P, Epoch(1), by + MS));
            assert!(!succession.lacks(P, Epoch(1), by), "at that moment it may have been written");
            assert!(!succession.lacks(P, Epoch(2), by + MS) && !succession.lacks(B, Epoch(1), by + MS));
        }
    }
}

#[test]
fn h13_what_became_of_a_hook_that_outlived_its_process_is_said_not_to_be_known() {
    let mut play = Play::closed(Settings { hooks: BTreeSet::from([Hook::Fence]), ..settings(3) });
    // On disk before it is started.
    let Job::Record(before) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    let mut next = Play::new(settings(3), *before.clone());
    next.look();
    assert_eq!(next.noted("hook_unknown"), 1, "{:?}", next.notes);
    assert!(next.engine.journal().begun.is_empty(), "told once");
    play.answer("Hook { hook: Fence", Outcome::Ok);
    let Job::Record(after) = play.answer("Record", Outcome::Ok) else { panic!("a journal") };
    assert_eq!((before.begun.len(), after.begun.len()), (1, 0), "what is known is written down, too");
}

#[test]
fn h13_a_hook_that_was_not_started_is_not_unknown() {
    let mut play = Play::closed(Settings { hooks: BTreeSet::from([Hook::Fence]), ..settings(3) });
    play.answer("Record", Outcome::Failed("disk full".to_owned()));
    assert!(
        play.engine.journal().begun.is_empty() && !play.jobs.iter().any(|(_, job)| matches!(job, Job::Hook { .. }))
    );
}
