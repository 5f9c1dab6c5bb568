//! `cargo xtask compare A B`: two saved runs, row by row.

use super::{cell, head, table};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Differences below this are never called more than noise.
const LEAST_NOISE: f64 = 0.02;

/// A figure of one row in both runs.
struct Pair {
    row: String,
    figure: String,
    before: f64,
    after: f64,
    /// Relative change that repeated runs of the same code would show.
    noise: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.after / self.before
    }

    /// `+` faster, `-` slower, beyond the noise of both runs.
    fn mark(&self) -> &'static str {
        match self.ratio() {
            ratio if ratio > 1.0 + self.noise => "+",
            ratio if ratio < 1.0 - self.noise => "-",
            _ => "",
        }
    }

    /// Only our own figures can fail a comparison: the peer's and the machine's are told for orientation.
    fn fails(&self, below: f64) -> bool {
        self.figure.starts_with("quant") && self.ratio() < below && self.mark() == "-"
    }
}

/// Prints the ratios B / A; fails if one of ours is below `--fail-below` and beyond the noise.
pub fn run(args: Vec<String>) -> Result<()> {
    use lexopt::prelude::{Long, Value as Word, ValueExt as _};
    let (mut files, mut below, mut all) = (Vec::new(), None, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Word(file) => files.push(file),
            Long("fail-below") => below = Some(parser.value()?.parse::<f64>()?),
            Long("all") => all = true,
            _ => bail!(arg.unexpected()),
        }
    }
    let [a, b] = files.as_slice() else {
        bail!("usage: cargo xtask compare A.json B.json [--all] [--fail-below 0.95]");
    };
    let (a, b) = (read(Path::new(a))?, read(Path::new(b))?);
    for (name, run) in [("A", &a), ("B", &b)] {
        println!("{name}: {} on {}", run["task"].as_str().unwrap_or("?"), run["cpu"].as_str().unwrap_or("?"));
    }
    let (pairs, alone) = pairs(&figures(&a)?, &figures(&b)?);
    let mut rows = vec![head(&["row", "figure", "A", "B", "B / A", "noise", ""])];
    for pair in pairs.iter().filter(|pair| all || !pair.mark().is_empty()) {
        rows.push(vec![
            pair.row.clone(),
            pair.figure.clone(),
            cell(Some(pair.before), 2),
            cell(Some(pair.after), 2),
            cell(Some(pair.ratio()), 3),
            cell(Some(pair.noise), 3),
            pair.mark().to_owned(),
        ]);
    }
    table(&rows);
    let count = |mark| pairs.iter().filter(|pair| pair.mark() == mark).count();
    println!(
        "{} figures: {} faster, {} slower, {} within noise",
        pairs.len(),
        count("+"),
        count("-"),
        count("")
    );
    if alone > 0 {
        println!("{alone} figures are in one run only");
    }
    let failed = pairs.iter().filter(|pair| below.is_some_and(|below| pair.fails(below))).count();
    ensure!(failed == 0, "{failed} of our figures fell below {}", below.unwrap_or_default());
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

/// Median and spread by row and figure.
type Figures = BTreeMap<(String, String), (f64, f64)>;

fn figures(report: &Value) -> Result<Figures> {
    let mut all = Figures::new();
    for result in report["results"].as_array().context("a report has results")? {
        let what = result["what"].as_object().context("a row says what it is")?;
        let name: Vec<String> = what
            .values()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        for (figure, value) in result["figures"].as_object().into_iter().flatten() {
            let median = value["median"].as_f64().context("a figure has a median")?;
            let spread = value["spread"].as_f64().unwrap_or_default();
            all.insert((name.join(" "), figure.clone()), (median, spread));
        }
    }
    Ok(all)
}

/// What both runs have, and how many figures only one has.
fn pairs(a: &Figures, b: &Figures) -> (Vec<Pair>, usize) {
    let both: Vec<Pair> = a
        .iter()
        .filter_map(|(key, &(before, spread))| {
            let &(after, other) = b.get(key)?;
            let noise = (spread + other).max(LEAST_NOISE);
            Some(Pair { row: key.0.clone(), figure: key.1.clone(), before, after, noise })
        })
        .collect();
    let alone = a.len() + b.len() - 2 * both.len();
    (both, alone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(figures: &[(&str, &str, f64, f64)]) -> Value {
        let results: Vec<Value> = figures
            .iter()
            .map(|&(row, figure, median, spread)| {
                json!({ "what": { "type": row, "threads": 1 },
                        "figures": { figure: { "median": median, "spread": spread } } })
            })
            .collect();
        json!({ "task": "kernels", "cpu": "test", "results": results })
    }

    #[test]
    fn changes_beyond_noise_are_marked_and_only_ours_fail() {
        let a = report(&[
            ("calm", "quant_gops", 100.0, 0.01),
            ("noisy", "quant_gops", 100.0, 0.1),
            ("peer", "plain_gops", 100.0, 0.0),
            ("gone", "quant_gops", 1.0, 0.0),
        ]);
        let b = report(&[
            ("calm", "quant_gops", 90.0, 0.01),
            ("noisy", "quant_gops", 90.0, 0.1),
            ("peer", "plain_gops", 50.0, 0.0),
        ]);
        let (pairs, alone) = pairs(&figures(&a).unwrap(), &figures(&b).unwrap());
        let found: Vec<(&str, &str, bool, bool)> =
            pairs.iter().map(|p| (p.row.as_str(), p.mark(), p.fails(0.95), p.fails(0.85))).collect();
        assert_eq!(
            found,
            [("calm 1", "-", true, false), ("noisy 1", "", false, false), ("peer 1", "-", false, false)]
        );
        assert_eq!(alone, 1);
        assert!(figures(&json!({ "results": [{ "what": 3 }] })).is_err());
    }

    #[test]
    fn saved_reports_exit_with_an_error_when_ours_fell() {
        let folder = std::env::temp_dir().join(format!("quant-compare-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        for (name, gops) in [("a", 100.0), ("b", 80.0)] {
            let report = report(&[("q4_K", "quant_gops", gops, 0.01)]);
            std::fs::write(path(name), report.to_string()).unwrap();
        }
        let run = |words: &[String]| run(words.to_vec());
        assert!(run(&[path("a"), path("b")]).is_ok());
        assert!(run(&[path("a"), path("b"), "--fail-below".into(), "0.95".into()]).is_err());
        assert!(run(&[path("b"), path("a"), "--fail-below".into(), "0.95".into()]).is_ok());
        assert!(run(&[path("a")]).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
