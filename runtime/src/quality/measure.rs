//! Running reference and candidates side by side.

use super::statistics::{Gathered, divergence, normalizer};
use super::{Chunks, Divergence, LogitsReader, LogitsWriter, Perplexity};
use crate::{Engine, Error, KvStats, LogitsWanted, SessionId};
use std::ops::{ControlFlow, Range};

/// Bytes of logits that an engine holds at once, about: more positions at once are faster, up to a point.
const BLOCK_BYTES: usize = 32 << 20;
/// Positions at once, at the least and at the most.
const BLOCK: Range<usize> = 16..512;

/// Where the reference's logits come from.
#[derive(Debug)]
pub enum Reference<'a> {
    /// An engine that runs beside.
    Engine(&'a mut Engine),
    /// An earlier run.
    File(&'a mut LogitsReader),
}

/// What was found about one engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// On the text.
    pub perplexity: Perplexity,
    /// From the reference, if there is one.
    pub divergence: Option<Divergence>,
    /// The KV cache when the last chunk was full; empty if the logits came from a file.
    pub kv: KvStats,
}

/// The results of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Of the reference.
    pub reference: Option<Quality>,
    /// Of each candidate.
    pub candidates: Vec<Quality>,
}

/// Evaluates the chunks with every candidate and, if there is one, the reference. `save` gets the first candidate's
/// logits. `progress` is told tokens that are done, of how many, and may end the run: the result is then `None`.
///
/// All engines need a context of at least one chunk and must be of models with one vocabulary.
///
/// # Errors
/// [`Error::LogitsFile`] if the reference does not fit the chunks, [`Error::Io`], and as [`Engine::evaluate`].
pub fn measure(
    chunks: &Chunks,
    vocabulary: usize,
    mut reference: Option<Reference<'_>>,
    candidates: &mut [Engine],
    mut save: Option<&mut LogitsWriter>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<Measured>, Error> {
    if let Some(Reference::File(file)) = &reference {
        file.check(chunks, vocabulary)?;
    }
    let block = (BLOCK_BYTES / (4 * vocabulary.max(1))).clamp(BLOCK.start, BLOCK.end);
    let mut rows = Rows { vocabulary, logits: Vec::new(), heads: Vec::new() };
    let mut of_reference = Gathered::default();
    let mut reference_kv = KvStats::default();
    let mut of_candidates = vec![(Gathered::default(), KvStats::default()); candidates.len()];
    let total = chunks.ids().len();
    for (i, (input, given)) in chunks.iter().enumerate() {
        let reference_session = match &mut reference {
            Some(Reference::Engine(engine)) => Some(engine.open()),
            _ => None,
        };
        let sessions: Vec<SessionId> = candidates.iter_mut().map(Engine::open).collect();
        for span in blocks(chunks.context(), chunks.scored(), block) {
            let tokens = input.get(span.clone()).unwrap_or_default();
            let next = given.get(span.start + 1..).unwrap_or_default();
            let scored = chunks.scored().contains(&span.start);
            let wanted = if scored { LogitsWanted::All } else { LogitsWanted::None };
            rows.clear();
            match (&mut reference, reference_session) {
                (Some(Reference::Engine(engine)), Some(session)) => {
                    rows.evaluate(engine, session, tokens, wanted)?;
                }
                (Some(Reference::File(file)), _) if scored => rows.read(file, span.len())?,
                _ => {}
            }
            rows.losses(next, &mut of_reference);
            let engines = candidates.iter_mut().zip(&sessions).zip(&mut of_candidates);
            for (c, ((engine, session), (gathered, _))) in engines.enumerate() {
                let mut saved = Ok(());
                engine.evaluate(*session, tokens, wanted, &mut |position, row| {
                    let at = position - span.start;
                    if let Some(&next) = next.get(at) {
                        rows.compare(at, row, next, gathered);
                    }
                    if let (0, Some(save)) = (c, &mut save) {
                        saved = save.row(row);
                    }
                    if saved.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                saved?;
            }
            if progress(i * chunks.context() + span.end, total).is_break() {
                return Ok(None);
            }
        }
        if let (Some(Reference::Engine(engine)), Some(session)) = (&mut reference, reference_session) {
            reference_kv = engine.memory();
            engine.close(session);
        }
        for ((engine, session), (_, kv)) in candidates.iter_mut().zip(sessions).zip(&mut of_candidates) {
            *kv = engine.memory();
            engine.close(session);
        }
    }
    let quality = |(gathered, kv): (Gathered, KvStats)| {
        let (perplexity, divergence) = gathered.finish();
        Quality { perplexity, divergence, kv }
    };
    Ok(Some(Measured {
        reference: reference.map(|_| quality((of_reference, reference_kv))),
        candidates: of_candidates.into_iter().map(quality).collect(),
    }))
}

/// The same for two runs that were saved, by whatever engine: how far `candidate` is from `reference`. Neither has a
/// KV cache to tell of.
///
/// # Errors
/// [`Error::LogitsFile`] if they are not of the same text in the same chunks, or damaged; [`Error::Io`].
pub fn compare_saved(reference: &mut LogitsReader, candidate: &mut LogitsReader) -> Result<Measured, Error> {
    candidate.matches(reference)?;
    let vocabulary = reference.vocabulary();
    let mut rows = Rows { vocabulary, logits: Vec::new(), heads: Vec::new() };
    let mut of_reference = Gathered::default();
    let mut of_candidate = Gathered::default();
    let mut row = vec![0.0; vocabulary];
    for chunk in reference.ids().to_vec().chunks_exact(reference.context()) {
        for &next in chunk.get(chunk.len() / 2 + 1..).unwrap_or_default() {
            rows.clear();
            rows.read(reference, 1)?;
            rows.losses(&[next], &mut of_reference);
            candidate.row(&mut row)?;
            rows.compare(0, &row, next, &mut of_candidate);
        }
    }
    let quality = |gathered: Gathered| {
        let (perplexity, divergence) = gathered.finish();
        Quality { perplexity, divergence, kv: KvStats::default() }
    };
    Ok(Measured { reference: Some(quality(of_reference)), candidates: vec![quality(of_candidate)] })
}

/// A chunk in pieces: first what is not scored, then what is, `block` positions at a time, then the rest (the last
/// token, so that the cache is as full as the chunk is long).
fn blocks(context: usize, scored: Range<usize>, block: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    for part in [0..scored.start, scored.clone(), scored.end..context] {
        pieces.extend(part.clone().step_by(block).map(|start| start..(start + block).min(part.end)));
    }
    pieces
}

/// Rows of the reference for some positions; none if there is no reference.
struct Rows {
    vocabulary: usize,
    logits: Vec<f32>,
    /// Each row's normalizer and likeliest token.
    heads: Vec<(f64, usize)>,
}

impl Rows {
    fn clear(&mut self) {
        self.logits.clear();
        self.heads.clear();
    }

    fn push(&mut self, row: &[f32]) {
        self.heads.push(normalizer(row));
        self.logits.extend_from_slice(row);
    }

    fn evaluate(
        &mut self,
        engine: &mut Engine,
        session: SessionId,
        tokens: &[u32],
        wanted: LogitsWanted,
    ) -> Result<(), Error> {
        engine.evaluate(session, tokens, wanted, &mut |_, row| {
            self.push(row);
            ControlFlow::Continue(())
        })
    }

    fn read(&mut self, file: &mut LogitsReader, count: usize) -> Result<(), Error> {
        let mut row = vec![0.0; self.vocabulary];
        (0..count).try_for_each(|_| {
            file.row(&mut row)?;
            self.push(&row);
            Ok(())
        })
    }

    fn iter(&self) -> impl Iterator<Item = (&[f32], f64, usize)> {
        let rows = self.logits.chunks_exact(self.vocabulary.max(1));
        rows.zip(&self.heads).map(|(row, &(normalizer, top))| (row, normalizer, top))
    }

    /// Gathers the losses of all rows.
    fn losses(&self, next: &[u32], gathered: &mut Gathered) {
        for ((row, normalizer, _), &next) in self.iter().zip(next) {
            gathered.loss(loss(row, normalizer, next));
        }
    }

    /// Gathers a candidate's row beside the one at the same position.
    fn compare(&self, at: usize, row: &[f32], next: u32, gathered: &mut Gathered) {
        let (own, top) = normalizer(row);
        let own_loss = loss(row, own, next);
        gathered.loss(own_loss);
        if let Some((reference, normalizer, reference_top)) = self.iter().nth(at) {
            let apart = divergence(reference, normalizer, row, own);
            gathered.divergence(apart, own_loss - loss(reference, normalizer, next), top == reference_top);
        }
    }
}

/// Negative log-likelihood of a token.
fn loss(row: &[f32], normalizer: f64, token: u32) -> f64 {
    row.get(token as usize).map_or(f64::NAN, |&x| normalizer - f64::from(x))
}
