//! The statements of PostgreSQL's regression scripts, cut as psql cuts them. Must not judge them.

use std::path::PathBuf;

use pgherd::sql::lexer::{Lexer, Token};
use pgherd::sql::{Flags, LexMode, analyze_lexer_only};

/// A script: its name without `.sql`, and its statements in order, psql's own commands left out.
pub(crate) struct Script {
    /// File name without its ending.
    pub(crate) name: String,
    /// Each with its closing semicolon; data of COPY left out.
    pub(crate) statements: Vec<String>,
}

/// All scripts of `tests/data/pg_regress`, `test_setup` first, then by name.
pub(crate) fn scripts() -> Vec<Script> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pg_regress");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the scripts are part of the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sql"))
        .collect();
    files.sort_by_key(|path| (!path.ends_with("test_setup.sql"), path.clone()));
    files
        .iter()
        .map(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(path).expect("the script can be read")).into_owned();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Script { name, statements: cut(&text) }
        })
        .collect()
}

/// Cuts a script at semicolons that end a statement; lines that begin with a backslash outside of one are psql's.
pub(crate) fn cut(script: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut open = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        if line.starts_with('\\') && Lexer::new(open.as_bytes(), LexMode::default()).next().is_none() {
            continue;
        }
        // \gset, \gexec, \; and the like end or join statements in ways of psql's own.
        let line = match line.find('\\').filter(|at| line[..*at].ends_with(' ') && !line.contains('\'')) {
            Some(at) => format!("{};", &line[..at]),
            None => line.to_owned(),
        };
        open.push_str(&line);
        open.push('\n');
        if !ends(&open) {
            continue;
        }
        let statement = std::mem::take(&mut open);
        if analyze_lexer_only(statement.as_bytes(), LexMode::default()).flags.has(Flags::COPY_IN) {
            lines.by_ref().find(|line| *line == "\\.");
        }
        statements.push(statement.trim().to_owned());
    }
    statements
}

/// Is the text whole, and its last token a semicolon outside of parentheses and function bodies?
fn ends(text: &str) -> bool {
    let mut last = false;
    let (mut depth, mut atomic) = (0_i32, 0_i32);
    for lexeme in Lexer::new(text.as_bytes(), LexMode::default()) {
        let bytes = lexeme.bytes(text.as_bytes());
        last = lexeme.token == Token::Punctuation && bytes == b";";
        match lexeme.token {
            Token::Bad => return false,
            Token::Punctuation => depth += i32::from(bytes == b"(") - i32::from(bytes == b")"),
            Token::Word if bytes.eq_ignore_ascii_case(b"atomic") => atomic = 1,
            Token::Word if atomic > 0 && bytes.eq_ignore_ascii_case(b"case") => atomic += 1,
            Token::Word if atomic > 0 && bytes.eq_ignore_ascii_case(b"end") => atomic -= 1,
            _ => {}
        }
    }
    last && depth <= 0 && atomic <= 0
}
