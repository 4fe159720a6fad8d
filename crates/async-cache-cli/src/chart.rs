//! Histograms.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::human::{self, DIM};

const BAR_CHARS: u64 = 32;

/// Counts by class, the classes in ascending order of their upper limits.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    /// Upper limit (inclusive) and count. Values above the last limit are in `beyond`.
    classes: Vec<(u64, u64)>,
    beyond: u64,
}

impl Histogram {
    pub(crate) fn new(limits: impl IntoIterator<Item = u64>) -> Self {
        Self { classes: limits.into_iter().map(|limit| (limit, 0)).collect(), beyond: 0 }
    }

    pub(crate) fn add(&mut self, value: u64) {
        let class = self.classes.partition_point(|(limit, _)| *limit < value);
        match self.classes.get_mut(class) {
            Some((_, count)) => *count += 1,
            None => self.beyond += 1,
        }
    }

    /// The classes from the first to the last with a count above 0: name and count.
    pub(crate) fn rows(&self, name: impl Fn(u64) -> String) -> Vec<(String, u64)> {
        let more = self.classes.last().map_or_else(String::new, |(limit, _)| format!("> {}", name(*limit)));
        let named = self.classes.iter().map(|(limit, count)| (format!("≤ {}", name(*limit)), *count));
        let rows: Vec<(String, u64)> = named.chain([(more, self.beyond)]).collect();
        let first = rows.iter().position(|(_, count)| *count > 0).unwrap_or(rows.len());
        let last = rows.iter().rposition(|(_, count)| *count > 0).map_or(first, |last| last + 1);
        rows.get(first..last).unwrap_or_default().to_vec()
    }

    pub(crate) fn to_json(&self) -> Value {
        let limited = self.classes.iter().map(|(limit, count)| json!({ "up_to": limit, "count": count }));
        limited.chain([json!({ "up_to": null, "count": self.beyond })]).collect()
    }
}

/// Rows with bars.
pub(crate) fn draw(out: &mut dyn Write, rows: &[(String, u64)]) -> io::Result<()> {
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    for (name, count) in rows {
        // A count above 0 is always visible.
        let length = (u128::from(*count) * u128::from(BAR_CHARS)).div_ceil(u128::from(most));
        let bar = "█".repeat(usize::try_from(length).unwrap_or(0));
        let count = human::count(*count);
        write!(out, "  {name:>16}  {count:>13}")?;
        if !bar.is_empty() {
            write!(out, "  {DIM}{bar}{DIM:#}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}
