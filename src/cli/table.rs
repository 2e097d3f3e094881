//! Tables of plain text: aligned columns with two blanks between (contract engine 10.6).

use super::CliError;
use super::output::out;
use super::text;

/// Rows of cells under a heading.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Appends a row. What would break a line or move the cursor is taken out of the cells.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| text::one_line(&cell)).collect());
    }

    /// Writes it to stdout.
    pub(super) fn print(&self) -> Result<(), CliError> {
        self.lines().iter().try_for_each(|line| out!("{line}"))
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| text::width(cell)).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        self.rows.iter().map(|row| line(row, &widths)).collect()
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(text::width(cell)) + 2));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(&["ID", "NAME", "STATUS"]);
        table.row(vec!["1".into(), "wärme".into(), "active".into()]);
        table.row(vec!["22".into(), "温度".into(), "x".into()]);
        table.row(vec!["3".into(), "two\nlines\u{1b}[31m".into(), String::new()]);
        let expected =
            ["ID  NAME           STATUS", "1   wärme          active", "22  温度           x", "3   two lines[31m"];
        assert_eq!(table.lines(), expected);
    }
}
