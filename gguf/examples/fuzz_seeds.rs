//! Writes the seed corpus of the fuzz target `parse` into a folder: `fuzz_seeds gguf/fuzz/corpus/parse`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: fuzz_seeds FOLDER")?;
    fs::create_dir_all(&folder)?;
    for (name, bytes) in common::seeds() {
        fs::write(Path::new(&folder).join(name).with_extension("gguf"), bytes)?;
    }
    Ok(())
}
