//! Aligned text for people.
//!
//! Owns: columns and their widths. Must not: know what is in them. Control characters in a cell are escaped, so that a tag
//! cannot play tricks on a terminal.

use std::fmt;

/// On which side a column is padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Figures.
    Right,
}

/// A table with a heading.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        Self {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![
                columns
                    .iter()
                    .map(|(heading, _)| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    /// Names and values without a heading.
    pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self {
            columns: vec![Align::Left, Align::Left],
            rows: pairs
                .into_iter()
                .map(|(name, value)| vec![name.to_owned(), escape(&value)])
                .collect(),
        }
    }

    /// Adds a row; cells that are missing are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| escape(&cell)).collect());
    }

    fn width(&self, column: usize) -> usize {
        self.rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| self.width(column))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn escape(cell: &str) -> String {
    cell.chars()
        .fold(String::with_capacity(cell.len()), |mut text, c| {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[
            ("POINT", Align::Left),
            ("SIZE", Align::Right),
            ("TAGS", Align::Left),
        ]);
        table.row(["a".to_owned(), "1.50 GiB".to_owned(), "k=v".to_owned()]);
        table.row(["longer".to_owned(), "9 B".to_owned(), String::new()]);
        assert_eq!(
            table.to_string(),
            "POINT       SIZE  TAGS\na       1.50 GiB  k=v\nlonger       9 B\n"
        );
    }

    #[test]
    fn pairs_are_aligned() {
        let table = Table::pairs([("point", "ab".to_owned()), ("id", "cd".to_owned())]);
        assert_eq!(table.to_string(), "point  ab\nid     cd\n");
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        let table = Table::pairs([("tag", "\u{1b}[2Jé\n".to_owned())]);
        assert_eq!(table.to_string(), "tag  \\u{1b}[2Jé\\n\n");
    }
}
