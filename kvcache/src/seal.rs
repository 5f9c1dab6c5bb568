//! Sealing: pages are put into the forms that the next queries see.

use crate::arena::{Arena, BlockId, Part, Transfer, numbers};
use crate::layout::{Cells, LayerCells, Place, Store};
use crate::{Error, Half, KvCache, PAGE, SequenceId};
use quant_kernels::codecs::{Codec, CodecScratch};
use quant_kernels::store_f16::load_f16;
use quant_kernels::{Isa, Parallel};
use std::sync::{Mutex, PoisonError};

/// Buffers of sealing, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Sealer {
    /// What the sequences of a call miss.
    missing: Vec<Missing>,
    jobs: Vec<Transfer>,
    about: Vec<About>,
    workers: Vec<Mutex<Scratch>>,
}

#[derive(Debug, Default)]
struct Scratch {
    codec: CodecScratch,
    /// A head's page as numbers.
    numbers: Vec<f32>,
}

/// A block that a layer is missing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Missing {
    form: usize,
    to: BlockId,
    from: BlockId,
    /// The page's place in the sequence, for messages.
    page: usize,
}

/// What a job encodes.
#[derive(Debug, Clone, Copy)]
struct About {
    half: Half,
    head: usize,
    page: usize,
}

impl KvCache {
    /// Puts a layer of every page into the forms that queries at the reserved positions of these sequences see: to be
    /// called when the layer's rows are written, before its attention. Pages, heads, keys and values are encoded in
    /// parallel; most calls find nothing to do.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if a page holds NaN or an infinity, [`Error::Encode`] if a codec can't hold a value;
    /// [`Error::NoSuchHead`], [`Error::UnknownSequence`].
    pub fn seal(
        &mut self,
        isa: Isa,
        parallel: &dyn Parallel,
        layer: usize,
        sequences: impl IntoIterator<Item = SequenceId>,
    ) -> Result<(), Error> {
        let place = self.place(layer, 0)?;
        if place.shared {
            return Ok(());
        }
        let mut sealer = std::mem::take(&mut self.sealer);
        sealer.missing.clear();
        let mut result = Ok(());
        for id in sequences {
            result = result.and_then(|()| self.list(id, place, &mut sealer.missing));
        }
        result = result.and_then(|()| self.fill(isa, parallel, layer, place, &mut sealer));
        self.sealer = sealer;
        result
    }

    /// Lists what a sequence misses of a layer.
    fn list(&self, id: SequenceId, place: Place, missing: &mut Vec<Missing>) -> Result<(), Error> {
        let (rule, pages) = (&self.layout.groups[place.group].schedule, &self.pages[place.group]);
        let table = &self.sequence(id)?.tables[place.group];
        for open in &table.unfilled {
            let Some(page) = table.held.get(open.page).and_then(|held| held.page) else { continue };
            let blocks = pages.block(page, open.form).zip(pages.block(page, rule.made_from(open.form)));
            if let Some((to, from)) = blocks.filter(|_| !pages.is_filled(page, open.form, place.slot)) {
                missing.push(Missing { form: open.form, to, from, page: open.page });
            }
        }
        Ok(())
    }

    fn fill(
        &mut self,
        isa: Isa,
        parallel: &dyn Parallel,
        layer: usize,
        place: Place,
        sealer: &mut Sealer,
    ) -> Result<(), Error> {
        let Sealer { missing, jobs, about, workers } = sealer;
        if missing.is_empty() {
            return Ok(());
        }
        // Sequences that share a page miss the same blocks. Forms ascend, so that each finds what it is made from.
        missing.sort_unstable();
        missing.dedup_by_key(|missing| missing.to);
        workers.resize_with(workers.len().max(parallel.threads()), Mutex::default);
        let Self { layout, arena, pages, .. } = self;
        let group = &layout.groups[place.group];
        let heads = group.shapes[place.slot].kv_heads;
        for of_form in missing.chunk_by(|a, b| a.form == b.form) {
            let form = of_form[0].form;
            let to = &group.forms[form].layers[place.slot];
            let from = &group.forms[group.schedule.made_from(form)].layers[place.slot];
            jobs.clear();
            about.clear();
            for missing in of_form {
                for half in [Half::Key, Half::Value] {
                    for head in 0..heads {
                        about.push(About { half, head, page: missing.page });
                        jobs.push(Transfer {
                            to: Part { block: missing.to, bytes: bytes_of(to, half, head) },
                            from: Part { block: missing.from, bytes: bytes_of(from, half, head) },
                        });
                    }
                }
            }
            encode_all(isa, parallel, layer, arena, jobs, about, workers, from, to)?;
            for missing in of_form {
                pages[place.group].set_filled(form, missing.to, place.slot);
            }
        }
        Ok(())
    }
}

fn bytes_of(cells: &LayerCells, half: Half, head: usize) -> std::ops::Range<usize> {
    match half {
        Half::Key => cells.keys.of(head),
        Half::Value => cells.values.of(head),
    }
}

/// Runs the jobs of one form; of several errors that of the first job is told.
#[allow(clippy::too_many_arguments, reason = "borrowed one by one from a cache and its buffers")]
fn encode_all(
    isa: Isa,
    parallel: &dyn Parallel,
    layer: usize,
    arena: &mut Arena,
    jobs: &[Transfer],
    about: &[About],
    workers: &[Mutex<Scratch>],
    from: &LayerCells,
    to: &LayerCells,
) -> Result<(), Error> {
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    arena.transfer(parallel, jobs, &|worker, job, source, target| {
        let mut scratch = lock(&workers[worker]);
        let About { half, head, page } = about[job];
        let result = match half {
            Half::Key => encode(isa, &from.keys, &to.keys, head, source, target, &mut scratch),
            Half::Value => encode(isa, &from.values, &to.values, head, source, target, &mut scratch),
        };
        if let Err(source) = result {
            let error = match source {
                quant_kernels::Error::NotFinite { token } => {
                    Error::NotFinite { layer, half, position: page * PAGE + token }
                }
                source => Error::Encode { layer, half, first: page * PAGE, source },
            };
            let mut failed = lock(&failed);
            if failed.as_ref().is_none_or(|(first, _)| job < *first) {
                *failed = Some((job, error));
            }
        }
    });
    let failed = lock(&failed).take();
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

/// One head's page from one form into another.
fn encode<C: ?Sized + Codec>(
    isa: Isa,
    from: &Cells<C>,
    to: &Cells<C>,
    head: usize,
    source: &[u8],
    target: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), quant_kernels::Error> {
    let Some(codec) = to.codec(head).filter(|_| !to.prefix) else {
        target.copy_from_slice(&source[..target.len()]);
        return Ok(());
    };
    let Scratch { codec: buffers, numbers: x } = scratch;
    x.resize(PAGE * codec.dim(), 0.0);
    match (&from.store, from.codec(head)) {
        (_, Some(before)) => before.decode(isa, source, buffers, x),
        (Store::F32, None) => x.copy_from_slice(numbers(source)),
        (_, None) => load_f16(isa, numbers(source), x),
    }
    codec.encode(isa, x, buffers, target)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
