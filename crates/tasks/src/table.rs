//! Plain-text tables for the terminal.

/// A table of text with aligned columns.
///
/// A column in which every filled cell starts like a number is aligned to the right, others to the
/// left. Widths count characters, which is right for Latin, Greek and Cyrillic text.
///
/// ```
/// use vlm_tasks::table::Table;
/// let mut table = Table::new(["type", "n", "accuracy"]);
/// table.row(["count", "1200", "97.1 %"]);
/// table.row(["existence", "80", "100.0 %"]);
/// assert_eq!(
///     table.render(false),
///     "type          n  accuracy\n\
///      ---------  ----  --------\n\
///      count      1200    97.1 %\n\
///      existence    80   100.0 %\n"
/// );
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these column titles and no rows.
    pub fn new<S: AsRef<str>>(header: impl IntoIterator<Item = S>) -> Self {
        Self {
            header: header.into_iter().map(clean).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty; cells beyond the last column get one without a title.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.rows.push(cells.into_iter().map(clean).collect());
        self
    }

    /// The table as lines, each ending in a newline and without trailing spaces. `colour` makes
    /// the titles bold with ANSI codes; pass whether the output is a terminal.
    pub fn render(&self, colour: bool) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let columns = self.columns();
        let widths: Vec<usize> = (0..columns)
            .map(|column| all().map(|row| width(cell(row, column))).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let line = |row: &[String]| {
            let mut line = String::new();
            for column in 0..columns {
                let text = cell(row, column);
                let padding = " ".repeat(widths[column] - width(text));
                let gap = if column == 0 { "" } else { GAP };
                if numeric[column] {
                    line.extend([gap, &padding, text]);
                } else {
                    line.extend([gap, text, &padding]);
                }
            }
            line.truncate(line.trim_end().len());
            line
        };

        let mut text = String::new();
        if columns == 0 {
            return text;
        }
        let titles = line(&self.header);
        if colour {
            text.extend(["\x1b[1m", &titles, "\x1b[0m\n"]);
        } else {
            text.extend([&titles, "\n"]);
        }
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        text.extend([&rules.join(GAP), "\n"]);
        for row in &self.rows {
            text.extend([&line(row), "\n"]);
        }
        text
    }
}

impl Table {
    /// The same table in Markdown, as GitHub reads it; a column of numbers is aligned to the right.
    ///
    /// ```
    /// use vlm_tasks::table::Table;
    /// let mut table = Table::new(["model", "accuracy"]);
    /// table.row(["a|b", "97.1 %"]);
    /// assert_eq!(table.markdown(), "| model | accuracy |\n|---|---:|\n| a\\|b | 97.1 % |\n");
    /// ```
    pub fn markdown(&self) -> String {
        let columns = self.columns();
        let line = |row: &[String]| {
            let cells = (0..columns).map(|c| cell(row, c).replace('|', "\\|"));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = (0..columns).map(|c| if self.is_numeric(c) { "---:" } else { "---" });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        match columns {
            0 => String::new(),
            _ => line(&self.header) + &rule + &rows,
        }
    }

    fn columns(&self) -> usize {
        let all = std::iter::once(&self.header).chain(&self.rows);
        all.map(Vec::len).max().unwrap_or(0)
    }

    /// Whether every filled cell of a column starts like a number.
    fn is_numeric(&self, column: usize) -> bool {
        let mut filled = self.rows.iter().map(|row| cell(row, column));
        let numbers = filled.clone().any(starts_like_a_number);
        numbers && filled.all(|text| is_blank(text) || starts_like_a_number(text))
    }
}

/// Cell text comes from data files: a control character in it must not move the cursor.
fn clean(text: impl AsRef<str>) -> String {
    let text = text.as_ref().trim();
    text.replace(|c: char| c.is_control(), " ")
}

fn cell(row: &[String], column: usize) -> &str {
    row.get(column).map_or("", String::as_str)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn is_blank(text: &str) -> bool {
    text.is_empty() || text == "-" || text == "\u{2013}"
}

fn starts_like_a_number(text: &str) -> bool {
    let rest = text.trim_start_matches(['+', '-', '\u{2212}', '.', '[', '(']);
    rest.starts_with(|c: char| c.is_ascii_digit()) || matches!(rest, "NaN" | "inf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_aligned_and_blanks_do_not_change_that() {
        let mut table = Table::new(["metric", "score", "note"]);
        table.row(["été", "-0.5", "1st"]);
        table.row(["loss", "-", "none"]);
        table.row(["x", "12"]);
        let expected = "\
metric  score  note
------  -----  ----
été      -0.5  1st
loss        -  none
x          12
";
        assert_eq!(table.render(false), expected);
    }

    #[test]
    fn control_characters_of_the_data_do_not_reach_the_terminal() {
        let mut table = Table::new(["a\nb"]);
        table.row(["\x1b[31mred\r"]);
        assert_eq!(
            table.render(false),
            "a b\n-----\n [31mred\n".replace("-----", "--------")
        );
    }

    #[test]
    fn codes_appear_only_on_a_terminal_and_only_around_the_titles() {
        let mut table = Table::new(["a"]);
        table.row(["1"]);
        assert_eq!(table.render(true), "\x1b[1ma\x1b[0m\n-\n1\n");
        assert!(!table.render(false).contains('\x1b'));
    }

    #[test]
    fn rows_of_uneven_length_and_empty_tables_are_drawn() {
        assert_eq!(Table::new([""; 0]).render(false), "");
        assert_eq!(Table::new(["a"]).render(false), "a\n-\n");
        let mut table = Table::new(["a"]);
        table.row(["x", "3"]).row([""; 0]);
        assert_eq!(table.render(false), "a\n-  -\nx  3\n\n");
    }
}
