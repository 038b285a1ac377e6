//! A table of text cells, as aligned columns or as markdown.

/// Header and rows of as many cells each.
pub struct Table {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns as wide as their widest cell; the first and last from the left, the others from the right.
    pub fn aligned(&self) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let last = widths.len() - 1;
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&widths)
                .enumerate()
                .map(
                    |(i, (cell, width))| {
                        if i == 0 || i == last { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        let mut out = line(&mut self.header.iter().copied());
        self.rows.iter().for_each(|row| out += &line(&mut row.iter().map(String::as_str)));
        out
    }

    /// A markdown table: two lines of header and one line for each row.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = line(self.header.iter().map(|name| (*name).to_owned()).collect());
        out += &format!("|{}\n", "---|".repeat(self.header.len()));
        for row in &self.rows {
            out += &line(row.iter().map(|cell| cell.replace('|', "\\|")).collect());
        }
        out
    }
}
