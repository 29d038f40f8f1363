//! The queue of expected replies, told what was sent and what came. Must not need a server.

use super::*;

fn run(sent: Vec<Expect>, replies: &[u8]) -> (Expected, Vec<Fate>) {
    let mut expected = Expected::default();
    for expect in sent {
        assert!(expected.push(expect).is_none());
    }
    let fates = replies.iter().map(|&tag| expected.on(tag, &mut Vec::new()).expect("expected")).collect();
    (expected, fates)
}

fn parse(hide: bool) -> Expect {
    Expect::Parse { hide, undo: None }
}

#[test]
fn r06_what_is_injected_behind_a_request_is_done_before_the_client_goes_on() {
    use Fate::{Forward, Hide};
    let (expected, fates) = run(vec![Expect::Query { hide: false }, Expect::After], b"CZTDCAZ");
    assert_eq!(fates, [Forward, Hide, Hide, Hide, Hide, Forward, Forward]);
    assert!(expected.is_empty());
    let (expected, fates) = run(vec![Expect::Sync, Expect::After], b"ZEZ");
    assert_eq!((fates, expected.owed()), (vec![Hide, Hide, Forward], (0, false)));
    let (expected, _) = run(vec![Expect::Query { hide: false }, Expect::After], b"CZ");
    assert_eq!(expected.owed(), (1, false));
}

#[test]
fn injected_messages_are_hidden_and_the_rest_is_not() {
    use Fate::{Forward, Hide};
    let sent = vec![
        Expect::Query { hide: true },
        parse(true),
        Expect::Bind,
        Expect::DescribePortal,
        Expect::Execute,
        Expect::Sync,
    ];
    let (expected, fates) = run(sent, b"CZ12TDDCZ");
    assert_eq!(fates, [Hide, Hide, Hide, Forward, Forward, Forward, Forward, Forward, Forward]);
    assert!(expected.is_empty());
}

#[test]
fn an_error_skips_to_sync_and_simple_queries_with_it() {
    let sent =
        vec![parse(false), Expect::Bind, Expect::Query { hide: false }, Expect::Sync, parse(false), Expect::Sync];
    let (expected, _) = run(sent, b"EZ1Z");
    assert!(expected.is_empty());
}

#[test]
fn after_an_error_without_sync_nothing_is_owed_until_it_is_sent() {
    let (mut expected, _) = run(vec![parse(false), Expect::Bind], b"E");
    assert!(expected.skipping() && !expected.is_empty());
    expected.push(Expect::Execute);
    expected.push(Expect::Query { hide: false });
    expected.push(Expect::Sync);
    assert_eq!(expected.on(b'Z', &mut Vec::new()), Ok(Fate::Forward));
    assert!(expected.is_empty());
}

#[test]
fn a_sync_sent_ahead_of_copy_data_is_ignored_by_the_server() {
    let (mut expected, _) = run(vec![parse(false), Expect::Bind, Expect::Execute, Expect::Sync], b"12G");
    assert!(expected.copy_in());
    expected.push(Expect::CopyEnd);
    expected.push(Expect::Sync);
    for tag in *b"CZ" {
        expected.on(tag, &mut Vec::new()).expect("expected");
    }
    assert!(expected.is_empty());
}

#[test]
fn made_replies_keep_their_place() {
    let mut expected = Expected::default();
    for expect in [Expect::Bind, Expect::Made { frames: Made::Tag(b'1'), undo: None }, Expect::Sync] {
        expected.push(expect);
    }
    assert!(expected.pop_made().is_none());
    expected.on(b'2', &mut Vec::new()).expect("expected");
    assert!(matches!(expected.pop_made(), Some(Made::Tag(b'1'))));
    assert!(expected.pop_made().is_none());
    expected.on(b'Z', &mut Vec::new()).expect("expected");
}

#[test]
fn r13_a_series_stays_open_until_its_sync_though_all_of_it_is_answered() {
    let (mut expected, _) = run(vec![parse(false), Expect::Bind, Expect::Execute], b"12C");
    assert!(expected.in_series() && !expected.is_empty());
    expected.push(Expect::Sync);
    assert!(!expected.in_series());
    expected.on(b'Z', &mut Vec::new()).expect("expected");
    assert!(expected.is_empty());
    let (expected, _) = run(vec![parse(false), Expect::Query { hide: false }], b"1CZ");
    assert!(expected.is_empty());
}

#[test]
fn copy_data_sent_ahead_of_the_servers_word_ends_before_its_sync() {
    let sent = vec![parse(false), Expect::Bind, Expect::Execute, Expect::CopyEnd, Expect::Sync];
    let (expected, _) = run(sent, b"12GCZ");
    assert!(expected.is_empty());
    let (mut expected, _) = run(vec![Expect::Query { hide: false }, Expect::CopyEnd], b"G");
    assert_eq!(expected.owed(), (1, false));
    expected.on(b'C', &mut Vec::new()).expect("expected");
    expected.on(b'Z', &mut Vec::new()).expect("expected");
    assert!(expected.push(Expect::CopyEnd).is_none());
    assert!(expected.is_empty());
}

#[test]
fn r03_names_are_undecided_while_an_earlier_series_may_fail() {
    let change = || Expect::Parse { hide: false, undo: Some(Box::new(())) };
    let mut expected = Expected::default();
    for expect in [change(), Expect::Unnamed { hide: false, undo: Box::new(()) }] {
        assert!(expected.push(expect).is_none());
        assert!(!expected.undecided());
    }
    expected.push(Expect::Sync);
    assert!(expected.undecided());
    expected.push(change());
    let mut undone = Vec::new();
    expected.on(b'E', &mut undone).expect("expected");
    assert_eq!((undone.len(), expected.undecided()), (2, false));
    for tag in *b"Z1" {
        expected.on(tag, &mut undone).expect("expected");
    }
    expected.push(Expect::Sync);
    assert!(!expected.undecided());
}

#[test]
fn r20_a_refused_query_is_owed_its_answer() {
    let mut expected = Expected::default();
    expected.push(Expect::Query { hide: false });
    expected.push(Expect::Made { frames: Made::Frames(Box::default()), undo: None });
    assert_eq!(expected.owed(), (2, false));
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let mut expected = Expected::default();
    assert_eq!(expected.on(b'D', &mut Vec::new()), Err(Unexpected(b'D')));
    expected.push(Expect::Bind);
    assert_eq!(expected.on(b'1', &mut Vec::new()), Err(Unexpected(b'1')));
    assert_eq!(expected.on(b'N', &mut Vec::new()), Ok(Fate::Forward));
}

#[test]
fn a_query_in_the_middle_of_copy_data_is_answered_by_the_error_of_the_copy() {
    // Sent before the server asked for data, and after.
    let two = || vec![Expect::Query { hide: false }, Expect::Query { hide: false }];
    let (expected, _) = run(two(), b"GEZ");
    assert!(expected.is_empty() && !expected.copy_in());
    let (mut expected, _) = run(vec![Expect::Query { hide: false }], b"G");
    for expect in two() {
        expected.push(expect);
    }
    for tag in *b"EZCZ" {
        expected.on(tag, &mut Vec::new()).expect("expected");
    }
    assert!(expected.is_empty() && !expected.unsettled());
}
