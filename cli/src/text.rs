//! Sizes, times and untrusted text as people read them.

/// A size with its unit and, where that is rounded, the exact bytes: `1.5 GiB (1610612736)`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} ({bytes})", short_size(bytes)) }
}

/// A size with its unit: `1.5 GiB`.
pub(crate) fn short_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = u128::from(bytes).saturating_mul(10) / 1024;
    let mut unit = 0_usize;
    while scaled >= 10_240 && unit < 5 {
        scaled /= 1024;
        unit = unit.saturating_add(1);
    }
    format!("{}.{} {}", scaled / 10, scaled % 10, UNITS[unit])
}

/// Parses `64M`, `4GiB`, `512`, in powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("{unit:?} is no unit of size: K, M, G and T are (powers of 1024)")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// Untrusted text without control characters, so that a name inside an image cannot drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Aligns the columns of a table; the first row is the head. Columns listed in `right` are aligned to the right.
pub(crate) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let gap = if column > 0 { "  " } else { "" };
            line += gap;
            if right.contains(&column) {
                line += &pad;
                line += cell;
            } else {
                line += cell;
                line += &pad;
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_in_powers_of_1024() {
        assert_eq!(size(1_610_612_736), "1.5 GiB (1610612736)");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(short_size(u64::MAX), "15.9 EiB");
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("17"), Ok(17));
        assert!(parse_size("4X").is_err());
        assert!(parse_size("99999999999T").is_err());
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
