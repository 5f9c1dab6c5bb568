//! Where a model comes from: a file, or the bundled demo.

use crate::progress::Progress;
use anyhow::Context;
use quant_runtime::Gguf;
use std::path::{Path, PathBuf};

/// The demo model: about 6 MB, trained for this project.
#[cfg(feature = "demo")]
static DEMO: &[u8] = include_bytes!("../demo/demo-q8_0.gguf");

/// Opens a model file; without a path, the bundled one.
pub fn open(path: Option<&PathBuf>) -> anyhow::Result<Gguf> {
    match path {
        Some(path) => open_file(path),
        None => bundled(),
    }
}

/// What the model is called in reports.
pub fn name(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "bundled demo".to_owned(), |path| path.display().to_string())
}

fn open_file(path: &Path) -> anyhow::Result<Gguf> {
    let mut progress = Progress::of_bytes("checking");
    let file = Gguf::open_with(path, &mut |done, total| progress.at(done, total));
    // An error that names the file needs no second mention of it.
    let names = |error: &quant_gguf::Error| error.to_string().contains(&*path.to_string_lossy());
    match file {
        Err(error) if names(&error) => Err(error.into()),
        other => other.with_context(|| path.display().to_string()),
    }
}

#[cfg(feature = "demo")]
fn bundled() -> anyhow::Result<Gguf> {
    Gguf::from_bytes(vec![DEMO.into()]).context("the bundled model")
}

#[cfg(not(feature = "demo"))]
fn bundled() -> anyhow::Result<Gguf> {
    Err(crate::failure::usage("this build has no bundled model: give a model file"))
}
