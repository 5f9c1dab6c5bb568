//! Sessions on disk: saved as GGUF files that load by mapping.
//!
//! ```text
//! general.architecture      "quant-kv"
//! quant-kv.model            which model computed it, see Fingerprint::of
//! quant-kv.model_bytes      the same of all bytes of its file, if saving was asked to verify
//! quant-kv.cache            hash of what the bytes of a page depend on, KvCache::describe
//! quant-kv.policy           the KV policy, for messages
//! quant-kv.length           positions in the cache
//! quant-kv.reduced          true if its pages lost planes when memory was short; absent otherwise
//! quant-kv.checksum         of all tensors
//! tokens                    I32, all tokens of the session
//! turns                     I32, first page and offset of each run of pages that were moved; absent if none were
//! pages.G.F                 I32, which pages of the sequence are in
//! blocks.G.F                I8, the blocks of form F of the layer group G
//! ```
//!
//! A model's sealed pages are read where they lie in the mapping: a long context is there at once, and processes that load
//! one snapshot share its memory.

use super::session::Session;
use super::{Engine, SessionId};
use crate::{Error, Fingerprint};
use quant_gguf::{Gguf, Writer};
use quant_kernels::GgmlType;
use quant_kvcache::{Bytes, Export, ImportPart, KvCache, Past, Turn};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

const ARCHITECTURE: &str = "quant-kv";
/// Blocks begin at pages of memory.
const ALIGNMENT: u32 = 4096;

/// How a snapshot is bound to its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// By metadata, tensor table, size and samples of the data.
    #[default]
    Sampled,
    /// By every byte of the file, which takes as long as reading it.
    Verified,
}

impl Engine {
    /// Saves a session: its tokens, and what the cache remembers of them. The file is complete or not there.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::EmptyPrompt`] for a session of which nothing was evaluated; [`Error::UnknownSession`].
    pub fn save(&self, id: SessionId, path: impl AsRef<Path>, binding: Binding) -> Result<(), Error> {
        let path = path.as_ref();
        let session = self.sessions.get(&id).ok_or(Error::UnknownSession)?;
        let export = self.cache.export(session.sequence)?;
        let past = &export.past;
        if past.len == 0 {
            return Err(Error::EmptyPrompt);
        }
        let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
        let tokens = words(&session.tokens);
        let tables: Vec<Vec<u8>> = export.parts.iter().map(|part| words(&part.pages)).collect();
        let turns = turns_to_words(&past.turns).ok_or(Error::TooFarShifted)?;
        let turns = words(&turns);
        let mut checksum = Xxh3::new();
        checksum.update(&tokens);
        checksum.update(&turns);
        checksum.update(if past.reduced { b"reduced" } else { b"" });
        for (part, table) in export.parts.iter().zip(&tables) {
            checksum.update(table);
            part.blocks.iter().for_each(|block| checksum.update(block));
        }
        let mut writer = Writer::new();
        writer.set("general.architecture", ARCHITECTURE)?;
        writer.alignment(ALIGNMENT)?;
        writer.set("quant-kv.model", self.fingerprint(Binding::Sampled).to_string().as_str())?;
        if binding == Binding::Verified {
            writer.set("quant-kv.model_bytes", self.fingerprint(binding).to_string().as_str())?;
        }
        writer.set("quant-kv.cache", described(&self.cache).as_str())?;
        writer.set("quant-kv.policy", self.cache.policy().to_string().as_str())?;
        writer.set("quant-kv.length", past.len as u64)?;
        if past.reduced {
            writer.set("quant-kv.reduced", true)?;
        }
        writer.set("quant-kv.checksum", format!("{:032x}", checksum.digest128()).as_str())?;
        if !turns.is_empty() {
            writer.tensor("turns", GgmlType::I32, &[turns.len() as u64 / 4], &turns[..])?;
        }
        add_tensors(&mut writer, &tokens, &export, &tables)?;
        write_whole(path, writer)
    }

    /// Opens a session from a file that [`Engine::save`] wrote. It goes on with the bits of the one that was saved.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if the file is damaged, of another model, or of a cache with another policy;
    /// [`Error::Gguf`] if it is no GGUF file; [`Error::PromptTooLong`] if the context does not hold it;
    /// [`Error::Cache`] if the budget does not.
    pub fn load(&mut self, path: impl AsRef<Path>, binding: Binding) -> Result<SessionId, Error> {
        let path = path.as_ref();
        let file = Gguf::open(path)?;
        let snapshot = Snapshot { path, file: &file };
        snapshot.check(self, binding)?;
        let (tokens, past, parts) = snapshot.read()?;
        let done = past.len;
        let vocabulary = self.backend.vocabulary();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        if tokens.len() > self.context {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context: self.context });
        }
        if done > tokens.len() {
            return Err(snapshot.bad("it has fewer tokens than positions"));
        }
        let sequence = self.cache.import(&past, &parts)?;
        Ok(self.insert(Session { sequence, tokens, done, job: None }))
    }

    fn fingerprint(&self, binding: Binding) -> Fingerprint {
        let file = self.backend.file();
        match (file, binding) {
            (None, _) => Fingerprint::default(),
            (Some(file), Binding::Sampled) => Fingerprint::of(file),
            (Some(file), Binding::Verified) => Fingerprint::of_all_bytes(file, &mut |_, _| {}),
        }
    }
}

/// The hash of what a cache's pages depend on.
fn described(cache: &KvCache) -> String {
    struct Hashed(Xxh3);
    impl fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Hashed(Xxh3::new());
    // Hashing does not fail.
    let _ = cache.describe(&mut hashed);
    format!("{:032x}", hashed.0.digest128())
}

fn add_tensors<'a>(
    writer: &mut Writer<'a>,
    tokens: &'a [u8],
    export: &'a Export<'_>,
    tables: &'a [Vec<u8>],
) -> Result<(), Error> {
    writer.tensor("tokens", GgmlType::I32, &[tokens.len() as u64 / 4], tokens)?;
    for (part, table) in export.parts.iter().zip(tables) {
        let name = format!("{}.{}", part.group, part.form);
        writer.tensor(&format!("pages.{name}"), GgmlType::I32, &[part.pages.len() as u64], &table[..])?;
        let bytes: usize = part.blocks.iter().map(|block| block.len()).sum();
        let blocks =
            quant_gguf::Data::from_fn(|out| part.blocks.iter().try_for_each(|block| out.write_all(block)));
        writer.tensor(&format!("blocks.{name}"), GgmlType::I8, &[bytes as u64], blocks)?;
    }
    Ok(())
}

/// Beside its place first, then renamed.
fn write_whole(path: &Path, writer: Writer<'_>) -> Result<(), Error> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let result =
        File::create(&part).map_err(|source| Error::Io { path: part.clone(), source }).and_then(|file| {
            let mut out = BufWriter::new(file);
            writer.write_to(&mut out)?;
            let flushed = out.flush().and_then(|()| out.get_ref().sync_all());
            flushed
                .and_then(|()| std::fs::rename(&part, path))
                .map_err(|source| Error::Io { path: path.to_owned(), source })
        });
    if result.is_err() {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&part);
    }
    result
}

/// A file that may be a snapshot.
struct Snapshot<'a> {
    path: &'a Path,
    file: &'a Gguf,
}

impl Snapshot<'_> {
    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::Snapshot { path: self.path.to_owned(), problem: problem.into() }
    }

    fn text(&self, key: &str) -> Result<&str, Error> {
        Ok(self.file.require_str(key)?)
    }

    fn length(&self) -> Result<usize, Error> {
        let length = self.file.require_u64("quant-kv.length")?;
        usize::try_from(length).map_err(|_| self.bad("it has more positions than memory can hold"))
    }

    /// Whether it is of this model and a cache like this one.
    fn check(&self, engine: &Engine, binding: Binding) -> Result<(), Error> {
        if self.file.str("general.architecture")? != Some(ARCHITECTURE) {
            return Err(self.bad("it is not a snapshot of a session"));
        }
        if self.text("quant-kv.model")? != engine.fingerprint(Binding::Sampled).to_string() {
            return Err(self.bad("it was made with another model"));
        }
        if binding == Binding::Verified {
            let Some(all) = self.file.str("quant-kv.model_bytes")? else {
                return Err(self.bad("its model can't be verified: it was saved without that"));
            };
            if all != engine.fingerprint(binding).to_string() {
                return Err(self.bad("the model's file has other bytes than the one it was made with"));
            }
        }
        if self.text("quant-kv.cache")? != described(&engine.cache) {
            let (policy, own) = (self.text("quant-kv.policy")?, engine.cache.policy().to_string());
            return Err(self.bad(if policy == own {
                format!("its KV cache ({own}) is of another version or machine")
            } else {
                format!("its KV cache is {policy}, this one is {own}")
            }));
        }
        Ok(())
    }

    /// The tokens, the past and its parts, once the checksum agrees.
    fn read(&self) -> Result<(Vec<u32>, Past, Vec<ImportPart>), Error> {
        let mut checksum = Xxh3::new();
        let tokens = self.tensor("tokens", GgmlType::I32)?;
        checksum.update(&tokens);
        let moved = self.file.tensors().any(|info| info.name == "turns");
        let turns = if moved { words(&self.tensor("turns", GgmlType::I32)?) } else { Vec::new() };
        let reduced = self.file.bool("quant-kv.reduced")?.unwrap_or(false);
        turns.iter().for_each(|word| checksum.update(&word.to_le_bytes()));
        checksum.update(if reduced { b"reduced" } else { b"" });
        let mut parts = Vec::new();
        // In the file's order, which is that of saving.
        for info in self.file.tensors().filter(|info| info.name.starts_with("pages.")) {
            let name = info.name.trim_start_matches("pages.");
            let numbers = name.split_once('.').and_then(|(g, f)| Some((g.parse().ok()?, f.parse().ok()?)));
            let (group, form) = numbers.ok_or_else(|| self.bad("it has a tensor that no snapshot has"))?;
            let pages = self.tensor(info.name, GgmlType::I32)?;
            let blocks = self.tensor(&format!("blocks.{name}"), GgmlType::I8)?;
            checksum.update(&pages);
            checksum.update(&blocks);
            let len = blocks.len();
            let bytes = Bytes::new(Arc::new(blocks), 0..len).ok_or_else(|| self.bad("its bytes are gone"))?;
            parts.push(ImportPart { group, form, pages: words(&pages), bytes });
        }
        if self.text("quant-kv.checksum")? != format!("{:032x}", checksum.digest128()) {
            return Err(self.bad("it is damaged: its checksum is another"));
        }
        let turns = turns.as_chunks::<2>().0.iter().map(|&[first_page, offset]| Turn {
            first_page: first_page as usize,
            offset: offset as i32 as isize,
        });
        let past = Past { len: self.length()?, turns: turns.collect(), reduced };
        Ok((words(&tokens), past, parts))
    }

    fn tensor(&self, name: &str, ty: GgmlType) -> Result<quant_gguf::Bytes, Error> {
        let tensor = self.file.tensor(name)?;
        if tensor.ty == ty {
            Ok(tensor.bytes)
        } else {
            Err(self.bad(format!("its tensor {name} is of another type")))
        }
    }
}

/// First page and offset of each; `None` for positions that no text has.
fn turns_to_words(turns: &[Turn]) -> Option<Vec<u32>> {
    let mut out = Vec::with_capacity(2 * turns.len());
    for turn in turns {
        out.push(u32::try_from(turn.first_page).ok()?);
        out.push(i32::try_from(turn.offset).ok()? as u32);
    }
    Some(out)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}
