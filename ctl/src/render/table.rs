//! Aligned columns.

use std::fmt::Write as _;

/// The widest a column gets before its text is cut, in characters; the last one is never cut.
const WIDTH_MAX: usize = 60;

/// Rows of text under a header.
#[derive(Debug, Clone)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Empty cells show as `-`, so that columns can be told apart by programs as well.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| {
            let clean: String = cell
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            if clean.is_empty() {
                "-".to_owned()
            } else {
                clean
            }
        });
        self.rows.push(cells.collect());
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole of it, a newline at the end of each line.
    pub fn render(&self) -> String {
        let header: Vec<String> = self.header.iter().map(|&name| name.to_owned()).collect();
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .chain([&header])
                .filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .min(WIDTH_MAX)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut text = String::new();
        for row in [&header].into_iter().chain(&self.rows) {
            text.push_str(line(row, &widths).trim_end());
            text.push('\n');
        }
        text
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, cell) in row.iter().enumerate() {
        let last = index + 1 == row.len();
        match widths.get(index) {
            Some(width) if !last && cell.chars().count() > *width => {
                let cut: String = cell.chars().take(width - 1).collect();
                let _ = write!(text, "{cut}…  ");
            }
            Some(width) if !last => {
                let _ = write!(text, "{cell:width$}  ");
            }
            Some(_) | None => text.push_str(cell),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned_and_clean() {
        let mut table = Table::new(&["NODE", "PHASE", "WHY"]);
        table.row(["n1".into(), "steady".into(), String::new()]);
        table.row(["till-10".into(), "ünd".into(), "a\u{1b}[31m\nb".into()]);
        assert_eq!(
            table.render(),
            "NODE     PHASE   WHY\nn1       steady  -\ntill-10  ünd     a [31m b\n"
        );
    }

    #[test]
    fn long_cells_are_cut_but_the_last() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x".repeat(100), "y".repeat(100)]);
        let text = table.render();
        assert!(text.contains(&format!("{}…  {}", "x".repeat(59), "y".repeat(100))));
    }
}
