//! One value of the file against its row: right type, unit and range, or a text that says what would be right.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::table::Kind;
use super::units;

/// A value that fits its row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Duration(Duration),
    Size(u64),
    Text(String),
    List(Vec<Item>),
}

/// An element of a list.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Why a value does not fit; the place if it is narrower than the value.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) span: Option<Range<usize>>,
    pub(super) right: String,
}

impl From<String> for Misfit {
    fn from(right: String) -> Self {
        Self { span: None, right }
    }
}

impl From<&str> for Misfit {
    fn from(right: &str) -> Self {
        right.to_owned().into()
    }
}

impl Value {
    /// One spelling per value, so that equal values look equal.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Duration(value) => format!("{:?}", units::show_duration(*value)),
            Self::Size(value) => format!("{:?}", units::show_size(*value)),
            Self::Text(value) => format!("{value:?}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| format!("{:?}", item.text)).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

impl Kind {
    /// In words, with range and unit.
    pub fn describe(self) -> String {
        let words = |words: &[&str]| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let show = |millis| units::show_duration(Duration::from_millis(millis));
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int(from, to) => format!("a whole number from {from} to {to}"),
            Self::Float(from, to) => format!("a number from {from} to {to}"),
            Self::Duration(from, to) => format!("a duration from \"{}\" to \"{}\"", show(from), show(to)),
            Self::Size(to) => format!("a size up to \"{}\"", units::show_size(to)),
            Self::Text => "a text in quotes".to_owned(),
            Self::Path => "a path in quotes".to_owned(),
            Self::Choice(list) => format!("one of {}", words(list)),
            Self::Address => "an IP address in quotes".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Paths => "a list of paths".to_owned(),
            Self::Words(list) => format!("a list of {}", words(list)),
            Self::Patterns => "a list of regular expressions".to_owned(),
            Self::Redirects => "a list of \"pattern:target\" or \"pattern:target(share)\"".to_owned(),
        }
    }

    /// Checks a value of the file.
    pub(super) fn check(self, value: &DeValue<'_>) -> Result<Value, Misfit> {
        let expected = || Misfit::from(format!("expected {}", self.describe()));
        match self {
            Self::Bool => value.as_bool().map(Value::Bool).ok_or_else(expected),
            Self::Int(from, to) => {
                let number = value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
                number.filter(|n| (from..=to).contains(n)).map(Value::Int).ok_or_else(expected)
            }
            Self::Float(from, to) => {
                let text = value.as_float().map(|n| n.as_str()).or(value.as_integer().map(|n| n.as_str()));
                let number = text.and_then(|text| text.parse::<f64>().ok());
                number.filter(|n| (from..=to).contains(n)).map(Value::Float).ok_or_else(expected)
            }
            Self::Duration(from, to) => {
                let time = units::duration(value.as_str().ok_or_else(expected)?)?;
                let fits = (Duration::from_millis(from)..=Duration::from_millis(to)).contains(&time);
                if fits { Ok(Value::Duration(time)) } else { Err(expected()) }
            }
            Self::Size(to) => {
                let bytes = units::size(value.as_str().ok_or_else(expected)?)?;
                if bytes <= to { Ok(Value::Size(bytes)) } else { Err(expected()) }
            }
            Self::Text | Self::Path | Self::Choice(_) | Self::Address => {
                let text = value.as_str().ok_or_else(expected)?;
                self.check_text(text)?;
                Ok(Value::Text(text.to_owned()))
            }
            Self::Texts | Self::Paths | Self::Words(_) | Self::Patterns | Self::Redirects => {
                let items = value.as_array().ok_or_else(expected)?;
                items.iter().map(|item| self.check_item(item)).collect::<Result<_, _>>().map(Value::List)
            }
        }
    }

    fn check_item(self, item: &Spanned<DeValue<'_>>) -> Result<Item, Misfit> {
        let here = |misfit: Misfit| Misfit { span: Some(item.span()), ..misfit };
        let text = item.get_ref().as_str().ok_or_else(|| here("a text in quotes belongs here".into()))?;
        self.check_text(text).map_err(here)?;
        Ok(Item { text: text.to_owned(), span: item.span() })
    }

    fn check_text(self, text: &str) -> Result<(), Misfit> {
        if text.is_empty() {
            return Err("must not be empty".into());
        }
        if text.contains(|c: char| c.is_control()) {
            return Err("must not contain control characters".into());
        }
        match self {
            Self::Choice(words) | Self::Words(words) if !words.contains(&text) => {
                Err(format!("expected {}", self.describe()).into())
            }
            Self::Address if text.parse::<IpAddr>().is_err() => Err("expected an IP address, without a netmask".into()),
            Self::Patterns => regex::Regex::new(text).map(drop).map_err(|error| explain(&error).into()),
            _ => Ok(()),
        }
    }
}

/// The last line of a regular expression's error says why; those before draw it.
pub(super) fn explain(error: &regex::Error) -> String {
    let text = error.to_string();
    let why = text.lines().last().unwrap_or_default();
    format!("not a regular expression: {}", why.trim_start_matches("error: "))
}
