//! What is wrong with a file, and where: file, line, column, source line, caret, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Bytes of the file that it is about; none: the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// A second place that disagrees with the first, and what it says.
    pub also: Option<(Range<usize>, String)>,
    /// What would be right.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span: Some(span), message: message.into(), also: None, hint: None }
    }

    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), also: None, hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn also(mut self, span: Range<usize>, message: impl Into<String>) -> Self {
        self.also = Some((span, message.into()));
        self
    }
}

/// A file that is refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    path: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

impl Error {
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        Self { path: path.to_owned(), text: text.to_owned(), problems }
    }

    /// What is wrong, in the order of the file; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        match &problem.span {
            None => writeln!(f, "{}: {}", self.path.display(), problem.message)?,
            Some(span) => {
                let place = Place::of(&self.text, span);
                writeln!(f, "{}:{}:{}: {}", self.path.display(), place.line, place.column, problem.message)?;
                place.show(f, "")?;
            }
        }
        if let Some((span, message)) = &problem.also {
            let place = Place::of(&self.text, span);
            writeln!(f, "  {}:{}:{}:", self.path.display(), place.line, place.column)?;
            place.show(f, message)?;
        }
        match &problem.hint {
            Some(hint) => writeln!(f, "  = {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.show(f, problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A span as a person sees it; line and column count from 1, columns in characters.
struct Place<'a> {
    line: usize,
    column: usize,
    source: &'a str,
    width: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let mut stop = span.end.clamp(start, end);
        while !text.is_char_boundary(stop) {
            stop -= 1;
        }
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[begin..start].chars().count() + 1,
            source: text[begin..end].trim_end_matches('\r'),
            width: text[start..stop].chars().count().max(1),
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands under its text in any terminal.
        let indent: String =
            self.source.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source)?;
        writeln!(f, "{margin} | {indent}{}{}{label}", "^".repeat(self.width), if label.is_empty() { "" } else { " " })
    }
}
