//! Who may write under which epoch, and consent.

use super::*;

/// Three of which the first leads, all with what is agreed.
fn three(on_quorum_loss: OnQuorumLoss) -> Play {
    let mut play = Play::new((0..3).map(|me| Settings { on_quorum_loss, ..settings(me, 3) }).collect());
    play.wait(Duration::from_secs(9));
    assert_eq!(play.leaders(), [0]);
    let until = |writes| matches!(writes, Writes::Until(_));
    assert!(play.engines.iter().all(|engine| until(engine.standing().writes)));
    play
}

impl Play {
    fn writes(&self, one: usize) -> Writes {
        self.engines[one].standing().writes
    }

    /// Nobody hears that one any more, and it hears nobody.
    fn cut_off(&mut self, one: usize) {
        self.mute.push(one);
        self.wait(Duration::from_secs(5));
    }

    /// Consent to replace that node, planned; the answer, if there is one.
    fn ask(&mut self, one: usize, node: u16) -> Option<Result<u64, String>> {
        self.replies.clear();
        self.tell(one, Event::Consent { ticket: Ticket(1), node: NodeId(node), planned: true });
        self.wait(Duration::from_millis(400));
        self.replies.iter().find(|(ticket, _)| ticket.0 == 1).map(|(_, answer)| answer.clone())
    }
}

#[test]
fn h17_course_is_held_under_what_is_agreed_and_not_under_less() {
    let mut play = three(OnQuorumLoss::HoldCourse);
    play.cut_off(2);
    assert_eq!(play.writes(2), Writes::Course);
    // One that has heard of the next epoch has stopped for it, and begins nothing anew when the leader is out of its sight.
    let mut play = three(OnQuorumLoss::HoldCourse);
    assert!(matches!(play.ask(0, 0), Some(Ok(1))));
    assert!((0..3).all(|one| play.writes(one) == Writes::Stop));
    play.cut_off(2);
    assert_eq!(play.writes(2), Writes::Stop);
    // Nor does a leader that has lost its majority while it prepares.
    play.cut_off(0);
    assert_eq!((play.leaders(), play.writes(0)), (vec![], Writes::Stop));
}

#[test]
fn h17_course_is_held_again_once_what_was_prepared_was_given_up() {
    for late in [0, 2] {
        let mut play = three(OnQuorumLoss::HoldCourse);
        assert!(matches!(play.ask(0, 0), Some(Ok(1))));
        play.tell(0, Event::Resume);
        play.wait(Duration::from_secs(1));
        assert!((0..3).all(|one| matches!(play.writes(one), Writes::Until(_))));
        play.cut_off(late);
        assert_eq!(play.writes(late), Writes::Course, "{late}");
    }
}

#[test]
fn h23_what_differs_later_is_told_and_consent_is_withheld_for_that_node_alone() {
    let mut play = three(OnQuorumLoss::Stop);
    let with = |me, port: &str| {
        let mut new = settings(me, 3);
        new.agreed.insert("node.2.port".to_owned(), port.to_owned());
        Event::Configure(Box::new(new))
    };
    (0..3).for_each(|one| play.tell(usize::from(one), with(one, "5432")));
    play.wait(Duration::from_secs(1));
    play.notes.clear();
    play.tell(1, with(1, "5433"));
    play.wait(Duration::from_secs(1));
    for (side, other) in [(0, 1), (2, 1), (1, 0)] {
        let told = |(at, note): &&(usize, Note)| {
            *at == side && note.event == "settings_differ" && note.member == Some(MemberId(other))
        };
        let why = &play.notes.iter().find(told).expect("each side says so").1.why;
        assert!(why.contains("node.2.port") && why.contains("5432") && why.contains("5433"), "{why}");
    }
    assert!(!play.noted("member_refused") && play.leaders() == [0], "nobody is thrown out for it");
    let refused = play.ask(0, 2).expect("at once");
    assert!(refused.is_err_and(|why| why == "p1 has another node.2.port"));
    assert_eq!(play.ask(0, 0), Some(Ok(1)), "another node is another matter");
    play.tell(0, Event::Resume);
    play.tell(1, with(1, "5432"));
    play.wait(Duration::from_secs(1));
    assert!(matches!(play.ask(0, 2), Some(Ok(_))), "they agree again");
}
