//! What an operator orders, and what is no server of ours.

use super::*;

#[test]
fn h12_what_holds_no_more_behind_the_first_checkpoint_is_not_begun() {
    for (outcome, system, word) in
        [(Outcome::Failed("disk full".to_owned()), 7, "disk full"), (Outcome::Ok, 8, "another cluster")]
    {
        let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
        play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
        play.give(Event::Order(Ticket(98), Order::SwitchOver(Some(A))));
        let said = play.replies.pop().expect("an answer").expect_err("one at a time");
        assert!(said.contains("under way"), "{said}");
        play.node(A).position.as_mut().expect("read").system = system;
        play.look();
        play.answer("Ready", outcome);
        let said = play.replies.pop().expect("an answer").expect_err("refused");
        assert!(said.contains(word) && play.engine.run.is_none(), "{said}");
        assert_eq!(play.ruling.writes, Writes::Open);
    }
}

#[test]
fn h10_a_server_of_another_cluster_neither_takes_over_nor_stands_in_the_way() {
    for role in [Role::Standby, Role::Primary] {
        let mut play = Play::ready(settings(4));
        let mut fourth = play.node(B).clone();
        (fourth.id, fourth.role) = (NodeId(3), role);
        let position = fourth.position.as_mut().expect("read");
        (position.system, position.timeline, position.sample.lsn) = (8, Timeline(9), Lsn(9_000));
        play.view.nodes.push(fourth);
        play.look();
        play.chores();
        play.dies();
        play.prepared();
        play.recruited();
        assert_eq!(play.engine.run.as_ref().and_then(|run| run.candidate), Some(A), "{role:?}");
        assert!(!play.jobs.iter().any(|(_, job)| matches!(job, Job::Recruit { node: NodeId(3), .. })));
    }
}

#[test]
fn h25_an_operator_replaces_a_primary_that_does_not_answer_as_one_and_none_that_does() {
    let lives = |play: &Play| {
        let since = play.now;
        [
            (Life::Well, Role::Primary, Some("move its role first")),
            (Life::Suspect(since), Role::Primary, Some("try again")),
            (Life::Busy(since), Role::Primary, None),
            (Life::Well, Role::Standby, None),
            (Life::Dead(since), Role::Primary, None),
        ]
    };
    for at in 0..5 {
        for order in [Order::Promote(A), Order::Detach(P)] {
            let mut play = Play::ready(Settings { mode: Mode::Never, ..settings(3) });
            let (life, role, word) = lives(&play)[at];
            (play.node(P).life, play.node(P).role) = (life, role);
            play.look();
            play.give(Event::Order(Ticket(99), order));
            let refused = play.replies.first().and_then(|answer| answer.as_ref().err());
            assert_eq!(refused.is_some(), word.is_some(), "{life:?} {role:?} {order:?}: {refused:?}");
            assert!(word.is_none_or(|word| refused.is_some_and(|said| said.contains(word))), "{refused:?}");
            assert_eq!(play.engine.run.is_some(), word.is_none() && order == Order::Promote(A));
        }
    }
}

#[test]
fn h12_no_primary_is_stopped_for_a_switchover_that_could_not_recruit_a_majority() {
    let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
    play.node(B).life = Life::Dead(play.now);
    play.look();
    play.moves_without_b_alone("1 standbys answer, 2 are needed; not there: 2 (detach");
}

/// B was promoted beside the primary, and is out; then that one was lost: dead, or stopped for a switch-over that came to nothing.
fn beside_a_rival(demoted: bool) -> Play {
    let journal = Journal {
        primary: Some(P.0),
        timeline: 1,
        condemned: vec![B.0],
        demoted: Some(P.0).filter(|_| demoted),
        ..Journal::default()
    };
    let mut play = Play::new(settings(3), journal);
    play.node(B).role = Role::Primary;
    play.position(B, 2, false);
    if demoted {
        play.node(P).role = Role::Standby;
        play.view.primary = None;
    }
    play.look();
    play.chores();
    if !demoted {
        play.dies();
    }
    play
}

#[test]
fn h07_beside_a_rival_nobody_is_promoted_but_whom_an_operator_names() {
    for demoted in [false, true] {
        let mut play = beside_a_rival(demoted);
        assert!(play.engine.run.is_none());
        let told = play.notes.iter().find(|note| note.event == "primary_lost").expect("told");
        assert!(
            told.why.starts_with("node 2 was promoted while the primary lived: promote it by hand"),
            "{}",
            told.why
        );
        play.give(Event::Order(Ticket(99), Order::Promote(A)));
        play.prepared();
        play.look();
        assert_eq!((play.engine.run.as_ref().map(|run| run.old), play.replies.len()), (Some(P), 0));
        // What it was taken out for is forgotten.
        let mut play = beside_a_rival(demoted);
        play.engine.journal.detached.push(B.0);
        play.give(Event::Order(Ticket(99), Order::Promote(B)));
        play.chores();
        assert!(play.ruling.detached.is_empty(), "{:?}", play.ruling);
        assert!(
            matches!(&play.replies[..], [Ok(said)] if said.contains("is the primary from now on")),
            "{:?}",
            play.replies
        );
        assert_eq!(play.ruling.mandate, Mandate::Only(B, Epoch(0)));
    }
}

#[test]
fn h07_what_an_operator_began_beside_a_rival_is_waited_for_by_the_next_process() {
    let intent = Intent {
        id: 3,
        epoch: 2,
        old: P.0,
        timeline: 1,
        step: IntentStep::Promoting,
        candidate: Some(A.0),
        stopped_at: 0,
        started: 7,
        hooks: words::HookState::default(),
    };
    let journal =
        Journal { primary: Some(P.0), timeline: 1, condemned: vec![B.0], intent: Some(intent), ..Journal::default() };
    let mut play = Play::new(settings(3), journal);
    (play.node(B).role, play.node(P).life) = (Role::Primary, Life::Dead(play.now));
    play.position(B, 2, false);
    play.view.primary = None;
    play.look();
    play.chores();
    assert_eq!(play.engine.run.as_ref().and_then(|run| run.candidate), Some(A));
    assert_eq!(play.ruling.mandate, Mandate::Only(A, Epoch(2)));
}

#[test]
fn h12_a_switchover_ends_where_its_stopped_primary_was_promoted_by_somebody_else() {
    let mut play = Play::ready(Settings { hooks: BTreeSet::from([Hook::Demote]), ..settings(3) });
    play.give(Event::Order(Ticket(99), Order::SwitchOver(Some(A))));
    play.answer("Ready", Outcome::Ok);
    play.answer("Barrier", Outcome::Ok);
    play.answer("Consent", Outcome::Ok);
    play.answer("Drain", Outcome::Ok);
    play.answer("Checkpoint", Outcome::Position(Lsn(100)));
    play.answer("Fence", Outcome::Ok);
    play.answer("Record", Outcome::Ok);
    play.answer("Hook", Outcome::Ok);
    play.node(P).life = Life::Dead(play.now);
    play.look();
    play.answer("CatchUp", Outcome::Ok);
    assert!(play.engine.run.is_some(), "it goes on");
    play.node(P).life = Life::Well;
    play.position(P, 2, false);
    play.look();
    assert!(play.engine.run.is_none(), "{:?}", play.jobs);
    let said = play.replies.pop().expect("an answer").expect_err("given up");
    assert_eq!(said, "node 0 says that it is primary");
}
