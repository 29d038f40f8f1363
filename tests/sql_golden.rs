//! Golden cases of the classifier: each file of `tests/data/sql` holds texts and the facts read from them. Run with `BLESS=1`
//! to write the present answers into the files, then read the difference. Must not know servers.

use std::fmt::Write as _;
use std::path::Path;

use pgherd::sql::{Effect, Facts, Flags, LexMode, analyze, analyze_lexer_only};

const FLAGS: &[(Flags, &str)] = &[
    (Flags::READ, "READ"),
    (Flags::OPAQUE, "OPAQUE"),
    (Flags::OPAQUE_BY_NAME, "BY_NAME"),
    (Flags::PRIMARY_ONLY, "PRIMARY_ONLY"),
    (Flags::NO_LOAD_BALANCE, "NO_LOAD_BALANCE"),
    (Flags::DDL, "DDL"),
    (Flags::TEMP, "TEMP"),
    (Flags::SEQUENCE_VALUE, "SEQUENCE_VALUE"),
    (Flags::SETSEED, "SETSEED"),
    (Flags::ADVISORY_LOCK, "ADVISORY_LOCK"),
    (Flags::ADVISORY_UNLOCK, "ADVISORY_UNLOCK"),
    (Flags::NOW_LIKE, "NOW_LIKE"),
    (Flags::LOCKS_OR_WRITES, "LOCKS_OR_WRITES"),
    (Flags::WRITES, "WRITES"),
    (Flags::COPY_IN, "COPY_IN"),
    (Flags::CHANGES_LEXING, "CHANGES_LEXING"),
    (Flags::SEQUENCE_WRITE, "SEQUENCE_WRITE"),
    (Flags::MAY_UNPIN, "MAY_UNPIN"),
    (Flags::NO_BLOCK, "NO_BLOCK"),
    (Flags::LOGIN_DEFAULTS, "LOGIN_DEFAULTS"),
];

fn effect(effect: &Effect) -> String {
    format!("{effect:?}").replace("name: ", "").replace("Some(", "").replace("\")", "\"")
}

/// The facts on one line, empty parts left out.
fn line(facts: &Facts) -> String {
    let mut line = format!("{:?}", facts.kind);
    for (flag, name) in FLAGS {
        if facts.flags.has(*flag) {
            write!(line, " {name}").expect("a string takes everything");
        }
    }
    if facts.statements > 1 {
        write!(line, " statements={}", facts.statements).expect("a string takes everything");
    }
    let names = |names: &[pgherd::sql::Name]| {
        let one = |name: &pgherd::sql::Name| match &*name.schema {
            "" => name.name.to_string(),
            schema => format!("{schema}.{}", name.name),
        };
        names.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let parts = [
        ("does", facts.effects.iter().map(effect).collect::<Vec<_>>().join(", ")),
        ("calls", names(&facts.functions)),
        ("on", names(&facts.relations)),
        ("builtins", facts.builtins.join(",")),
    ];
    for (what, part) in parts {
        if !part.is_empty() {
            write!(line, "; {what} {part}").expect("a string takes everything");
        }
    }
    line
}

fn run(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql").join(file);
    let golden = std::fs::read_to_string(&path).expect("the file of cases is there");
    let mode = LexMode {
        standard_conforming_strings: !file.contains("escapes"),
        client_only_encoding: file.contains("client_only"),
    };
    let mut written = String::new();
    let mut wrong = Vec::new();
    let (head, cases) = golden.split_once("\n\n").expect("a file begins with a line that says what it is about");
    writeln!(written, "{head}").expect("a string takes everything");
    for case in cases.split("\n\n").map(str::trim).filter(|case| !case.is_empty()) {
        let (text, expected) = case.split_once("\n----").unwrap_or((case, ""));
        let facts = if file.contains("lexer") {
            analyze_lexer_only(text.as_bytes(), mode)
        } else {
            analyze(text.as_bytes(), mode)
        };
        let found = line(&facts);
        if found != expected.trim() {
            wrong.push(format!("{text}\n  expected: {}\n  found:    {found}", expected.trim()));
        }
        write!(written, "\n{text}\n----\n{found}\n").expect("a string takes everything");
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, written).expect("the file of cases can be written");
    } else {
        assert!(wrong.is_empty(), "{} cases differ in {file}:\n{}", wrong.len(), wrong.join("\n"));
    }
}

macro_rules! golden {
    ($($name:ident => $file:literal,)*) => {
        $(#[test]
        fn $name() {
            run($file);
        })*

        #[test]
        fn every_file_of_cases_is_run() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .expect("the folder of cases is there")
                .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".txt"))
                .collect();
            files.sort();
            let mut known = vec![$($file.to_owned()),*];
            known.sort();
            assert_eq!(files, known);
        }
    };
}

golden! {
    r08_reads => "reads.txt",
    r08_not_for_a_standby => "not_for_a_standby.txt",
    r01_functions_and_opaque_texts => "opaque.txt",
    writes => "writes.txt",
    utilities => "utility.txt",
    settings => "settings.txt",
    transactions => "transaction.txt",
    sessions => "session.txt",
    admin => "admin.txt",
    several_statements => "several.txt",
    r10_escapes_in_plain_literals => "escapes.txt",
    r10_client_only_encodings => "client_only.txt",
    r14_the_lexer_alone => "lexer_only.txt",
}
