//! Tables for people and JSON for programs. All reports have one form, so that any two of a kind can be compared:
//! `{"task", "cpu", "results": [{"what": {..}, "figures": {"name": {"median", "spread"}}}]}`. Figures are rates: more is
//! better.

pub mod compare;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Repeated measurements of one figure.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a measurement; what is not a positive number was not measured.
    pub fn push(&mut self, figure: f64) {
        if figure.is_finite() && figure > 0.0 {
            self.0.push(figure);
        }
    }

    /// The median, or `None` of none.
    pub fn median(&self) -> Option<f64> {
        let mut figures = self.0.clone();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    /// How far a median of so many may be off: half the distance between the outer quarters, relative to the median.
    pub fn spread(&self) -> f64 {
        let mut figures = self.0.clone();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        let (low, high) = (at(figures.len() / 4), at(figures.len().saturating_sub(1 + figures.len() / 4)));
        self.median().map_or(0.0, |median| (high - low) / 2.0 / median)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        let mut samples = Self::default();
        figures.into_iter().for_each(|figure| samples.push(figure));
        samples
    }
}

/// One row of a report: what was measured, and the figures.
pub fn row(what: Value, figures: &[(&str, &Samples)]) -> Value {
    let figures: Map<String, Value> = figures
        .iter()
        .filter_map(|(name, samples)| {
            let median = samples.median()?;
            Some(((*name).to_owned(), json!({ "median": median, "spread": samples.spread() })))
        })
        .collect();
    json!({ "what": what, "figures": figures })
}

/// A number for a table, `-` for none.
pub fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Quotient of two figures that may be missing.
pub fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    Some(of? / to?)
}

/// Prints rows as an aligned table; the first row is the head.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        println!("| {} |", cells.join(" | "));
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rule.join(" | "));
        }
    }
}

/// A table's head.
pub fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Writes results as JSON, with the machine they were taken on.
pub fn save(path: &Path, task: &str, results: Vec<Value>) -> Result<()> {
    let document = json!({ "task": task, "cpu": cpu(), "results": results });
    std::fs::write(path, format!("{document:#}\n")).with_context(|| format!("writing {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The CPU as the system names it.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split(':').nth(1))
            .unwrap_or("?")
            .trim()
    };
    format!("{} family {} model {}", field("model name"), field("cpu family"), field("model"))
}

/// The median of some figures.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_a_median_and_a_spread() {
        let samples: Samples = [4.0, 1.0, f64::NAN, 3.0, 2.0, 0.0, 5.0].into_iter().collect();
        assert_eq!(samples.median(), Some(3.0));
        assert!((samples.spread() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((Samples::default().median(), Samples::default().spread()), (None, 0.0));
        let row = row(json!({ "type": "q4_K" }), &[("a", &samples), ("b", &Samples::default())]);
        assert_eq!(row["figures"].as_object().map(Map::len), Some(1));
    }
}
