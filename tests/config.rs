//! The configuration file from outside: what is refused and how it is said (golden files), and the sample.
//!
//! `PGHERD_REWRITE=1 cargo test --test config` rewrites what is compared; look at the difference before keeping it.

use std::path::{Path, PathBuf};

use pgherd::config::{Settings, sample};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The file must say `text`, or is rewritten so that it does.
fn compare(path: &Path, text: &str) {
    if std::env::var_os("PGHERD_REWRITE").is_some() {
        std::fs::write(path, text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    let line = differs.unwrap_or_else(|| kept.lines().count().min(text.lines().count()));
    let show = |text: &str| text.lines().nth(line).unwrap_or("(end)").to_owned();
    let (file, was, is) = (path.display(), show(&kept), show(text));
    let line = line + 1;
    assert!(kept == text, "{file}:{line} differs; see the head of this test\n  kept: {was}\n  now:  {is}");
}

#[test]
fn the_sample_is_what_the_table_says_and_can_be_used() {
    let text = sample();
    let settings = Settings::parse(&text, Path::new("pgherd.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.nodes.len(), 1);
    assert!(text.lines().all(|line| line.chars().count() <= 120), "a line of the sample is too long");
    compare(&root().join("conf/pgherd.toml"), &text);
}

/// Cases stand in `data/config.txt`: a file between `---` and `===`, then all that is said about it.
#[test]
fn what_is_refused_says_where_why_and_what_would_be_right() {
    let path = root().join("tests/data/config.txt");
    let kept = std::fs::read_to_string(&path).expect("the cases");
    let mut now = String::new();
    let mut cases = 0;
    for case in kept.split("--- ").skip(1) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (file, _) = rest.split_once("===\n").expect("a file and an answer");
        let answer = match Settings::parse(file, Path::new("p.toml")) {
            Ok(_) => panic!("accepted: {title}"),
            Err(error) => error.to_string(),
        };
        now.push_str(&format!("--- {title}\n{file}===\n{answer}"));
        now.push('\n');
        cases += 1;
    }
    assert!(cases >= 30, "only {cases} cases were found");
    compare(&path, &now);
}
