//! What stands where: folders, file names, words that do not belong into a source tree.

use std::collections::HashSet;
use std::path::Path;

use crate::{Breach, Source, code};

const FOLDERS: &[&str] = &["benches", "conf", "docker", "src", "tests"];
const TOOL_FOLDERS: &[&str] = &[".ci", ".git", ".github", ".config", ".cargo", "target"];
const FILES: &[&str] = &[
    ".clippy.toml",
    ".dockerignore",
    ".git",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "manager", "helper", "helpers", "misc"];
const SUPPORT_FILES: usize = 5;

/// Spelled in two parts, or this file would breach its own rule.
const WORDS: &[(&str, &str)] =
    &[("/wo", "rk/"), ("cla", "ude"), ("anthr", "opic"), ("chat", "gpt"), ("language ", "model"), ("sub", "agent")];

/// All sources in `src`, `tests` and `benches`.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let mut sources: Vec<_> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|folder| files(root, folder))
        .filter(|path| path.ends_with(".rs"))
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).expect("a source can be read");
            let test = !path.starts_with("src/");
            Source { path, text, test }
        })
        .collect();
    let tests: HashSet<_> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.test |= tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/")));
    }
    sources
}

/// Modules that a file declares for tests only, as paths without `.rs`.
fn test_modules(source: &Source) -> Vec<String> {
    let Ok(file) = syn::parse_file(&source.text) else { return Vec::new() };
    let (folder, name) = source.path.rsplit_once('/').expect("a source lies in a folder");
    let own = match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let test_mod = |item: &syn::Item| match item {
        syn::Item::Mod(item) if item.content.is_none() && code::for_tests(&item.attrs) => {
            Some(place(item, folder, &own))
        }
        _ => None,
    };
    file.items.iter().filter_map(test_mod).collect()
}

/// Where a declared module lies: beside its parent's file if `#[path]` says so, else below it.
fn place(item: &syn::ItemMod, folder: &str, own: &str) -> String {
    let named = item.attrs.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    match named {
        Some(file) => format!("{folder}/{}", file.trim_end_matches(".rs")),
        None => format!("{own}/{}", item.ident),
    }
}

/// Files below a folder, paths from the root.
fn files(root: &Path, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root.join(folder)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.expect("a folder of ours can be read");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("an entry has a kind");
        if kind.is_dir() {
            if !path.ends_with("/target") && !path.ends_with("/node_modules") {
                found.extend(files(root, &path));
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn check(root: &Path) -> Vec<Breach> {
    let mut breaches = top_level(root);
    let support = files(root, "src/support").len();
    if support > SUPPORT_FILES {
        breaches.push(Breach::new("support", "src/support", format!("{support} files, at most {SUPPORT_FILES}")));
    }
    for path in files(root, "src") {
        let empty = path.split(['/', '.']).find(|part| EMPTY_NAMES.contains(part));
        breaches.extend(empty.map(|name| Breach::new("name", &path, format!("`{name}` says nothing"))));
    }
    let folders = FOLDERS.iter().chain(&[".ci"]).flat_map(|folder| files(root, folder));
    // In a worktree `.git` is a file, of the tool and not of ours; this file has to say what it looks for.
    let skipped = ["Cargo.lock", ".git", "tests/tidy/tree.rs"];
    for path in folders.chain(FILES.iter().map(|file| (*file).to_owned())) {
        // Texts only; what cannot be read as text has no words.
        if let Ok(text) = std::fs::read_to_string(root.join(&path))
            && !skipped.contains(&path.as_str())
            && !path.starts_with("tests/data/")
        {
            breaches.extend(words(&path, &text));
        }
    }
    breaches
}

fn top_level(root: &Path) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for entry in std::fs::read_dir(root).expect("the root can be read") {
        let entry = entry.expect("an entry of the root");
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = if entry.path().is_dir() {
            FOLDERS.contains(&name.as_str()) || TOOL_FOLDERS.contains(&name.as_str())
        } else {
            FILES.contains(&name.as_str())
        };
        if !known && !ignored(&name) {
            breaches.push(Breach::new("top level", &name, "has no place beside Cargo.toml"));
        }
    }
    breaches
}

/// As `.gitignore` has it.
fn ignored(name: &str) -> bool {
    name.ends_with(".log") || name == "__pycache__" || name == "node_modules"
}

fn words(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let word = WORDS.iter().map(|(a, b)| format!("{a}{b}")).find(|word| lower.contains(word));
        if let Some(word) = word {
            breaches.push(Breach::new("words", path, format!("line {}: `{word}`", number + 1)));
        }
        if issue(line) {
            breaches.push(Breach::new("words", path, format!("line {}: the number of an issue", number + 1)));
        }
    }
    breaches
}

/// `see #12`, `(#3)`: a hash with a number behind a space or a bracket, in running text.
fn issue(line: &str) -> bool {
    line.match_indices('#').any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let digits = line[at + 1..].chars().take_while(char::is_ascii_digit).count();
        let after = line[at + 1 + digits..].chars().next();
        let ends = after.is_none_or(|c| matches!(c, ' ' | '.' | ',' | ';' | ')' | ':'));
        before.is_some_and(|c| c == '(' || c == ' ') && (1..=4).contains(&digits) && ends
    })
}

#[test]
fn numbers_of_issues_are_told_from_other_hashes() {
    for line in ["fixes #12", "see (#3)", "as in #7, which"] {
        assert!(issue(line), "{line}");
    }
    for line in ["#[test]", "r#\"1\"#", "#port = 9999", "color #123456", "no 5#5", "a #b"] {
        assert!(!issue(line), "{line}");
    }
}
