//! Durations and sizes as texts with units. Pure.

use std::time::Duration;

/// Reads `10s`, `300ms`, `1.5h`; the error says what would be right.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "a duration is a number with a unit: us, ms, s, min, h or d, as in \"10s\" or \"300ms\"";
    let (number, unit) = split(text).ok_or(RIGHT)?;
    let micros = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "min" | "m" => 60e6,
        "h" => 3_600e6,
        "d" => 86_400e6,
        _ => return Err(RIGHT.to_owned()),
    };
    let total = (number * micros).round();
    // Beyond some centuries the product is no longer exact, and no range of the table reaches that far.
    if total > 1e16 {
        return Err("far too long".to_owned());
    }
    Ok(Duration::from_micros(total as u64))
}

/// Reads `64kB`, `10MB`, `0B`; units are powers of 1024, as in postgresql.conf.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const RIGHT: &str = "a size is a number with a unit: B, kB, MB, GB or TB, as in \"64kB\"";
    let (number, unit) = split(text).ok_or(RIGHT)?;
    let power = ["B", "kB", "MB", "GB", "TB"].iter().position(|known| *known == unit).ok_or(RIGHT)?;
    let total = (number * 1024_f64.powi(power as i32)).round();
    if total > (1_u64 << 53) as f64 {
        return Err("far too large".to_owned());
    }
    Ok(total as u64)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// The shortest exact spelling.
pub(super) fn show_duration(value: Duration) -> String {
    let micros = value.as_micros();
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    let fit = units.iter().find(|(unit, _)| micros >= *unit && micros.is_multiple_of(*unit));
    match fit {
        Some((unit, name)) => format!("{}{name}", micros / unit),
        None if micros == 0 => "0s".to_owned(),
        None => format!("{micros}us"),
    }
}

/// The shortest exact spelling.
pub(super) fn show_size(value: u64) -> String {
    let names = ["B", "kB", "MB", "GB", "TB"];
    let mut power = 0;
    let mut rest = value;
    while rest != 0 && rest.is_multiple_of(1024) && power + 1 < names.len() {
        rest /= 1024;
        power += 1;
    }
    format!("{rest}{}", names[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, shown) in
            [("10s", "10s"), ("10000ms", "10s"), ("0s", "0s"), ("1.5h", "90min"), ("250us", "250us"), ("2 min", "2min")]
        {
            assert_eq!(duration(text).map(show_duration).as_deref(), Ok(shown), "{text}");
        }
        for bad in ["", "10", "s", "ten", "-1s", "1e3s", "10 parsecs", "1.2.3s", ".s", "99999999999999d", "10S"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, shown) in [
            ("64kB", "64kB"),
            ("65536B", "64kB"),
            ("1.5MB", "1536kB"),
            ("0B", "0B"),
            ("1TB", "1TB"),
            ("1023B", "1023B"),
        ] {
            assert_eq!(size(text).map(show_size).as_deref(), Ok(shown), "{text}");
        }
        for bad in ["", "10", "kB", "10KB", "10mb", "-1kB", "99999999TB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
