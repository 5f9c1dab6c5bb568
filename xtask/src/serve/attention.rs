//! Our attention behind the benchmark protocol: `attention KEYS VALUES DIM GROUP HEADS CONTEXT TOKENS THREADS` answers
//! with the seconds that `TOKENS` query tokens of `GROUP * HEADS` query heads need after `CONTEXT` positions of `HEADS` KV
//! heads. `KEYS` and `VALUES` name codecs of the registry, or `f16`. Heads are spread over the threads.

use anyhow::{Context as _, Result, ensure};
use half::f16;
use memmap2::MmapMut;
use quant_kernels::attention::{
    AttentionScratch, AttentionTask, KeyPage, PAGE, QueryVariants, ValueDomains, ValuePage, attend,
};
use quant_kernels::codecs::{CodecParams, CodecScratch, KeyCodec, ValueCodec, entry};
use quant_kernels::{Isa, Parallel};
use std::sync::{Arc, Mutex, PoisonError};

/// Pages that differ; the others are copies, but have memory of their own.
const DISTINCT: usize = 16;

/// What to measure.
pub struct Job<'a> {
    pub keys: &'a str,
    pub values: &'a str,
    pub dim: usize,
    pub group: usize,
    pub heads: usize,
    pub context: usize,
    pub tokens: usize,
}

/// The keys or the values of all heads, `[head][page]`.
enum Side<C> {
    Plain(Vec<f16>),
    /// In huge pages.
    Coded {
        codec: C,
        arena: MmapMut,
        page_bytes: usize,
    },
}

/// The keys and the values of a head.
pub type HeadPages<'a> = (Vec<KeyPage<'a>>, Vec<ValuePage<'a>>);

/// What a thread keeps from call to call.
#[derive(Default)]
pub struct Worker {
    scratch: AttentionScratch,
    out: Vec<f32>,
}

/// A KV cache filled with random pages.
pub struct Cache {
    dim: usize,
    group: usize,
    heads: usize,
    context: usize,
    tokens: usize,
    keys: Side<Box<dyn KeyCodec>>,
    values: Side<Arc<dyn ValueCodec>>,
    domains: ValueDomains,
    /// The page of the queries' own tokens, not compressed.
    open: Vec<f16>,
    q: Vec<f32>,
}

impl Cache {
    pub fn new(isa: Isa, job: &Job<'_>) -> Result<Self> {
        let &Job { keys, values, dim, group, heads, context, tokens } = job;
        ensure!(context.is_multiple_of(PAGE) && tokens <= PAGE, "whole pages, and tokens of one more");
        let params = CodecParams::new(dim, 1);
        let codec = |name: &str| entry(name).with_context(|| format!("no codec {name}"));
        let pages = context / PAGE * heads;
        let keys = match keys {
            "f16" => Side::Plain(halves(pages * PAGE * dim, 1)),
            name => {
                let codec = (codec(name)?.key)(&params)?;
                let page_bytes = codec.page_bytes();
                let encode =
                    |x: &[f32], page: &mut [u8]| codec.encode(isa, x, &mut CodecScratch::default(), page);
                Side::Coded { arena: arena(pages, page_bytes, dim, encode)?, codec, page_bytes }
            }
        };
        let values = match values {
            "f16" => Side::Plain(halves(pages * PAGE * dim, 2)),
            name => {
                let codec: Arc<dyn ValueCodec> = (codec(name)?.value)(&params)?.into();
                let page_bytes = codec.page_bytes();
                let encode =
                    |x: &[f32], page: &mut [u8]| codec.encode(isa, x, &mut CodecScratch::default(), page);
                Side::Coded { arena: arena(pages, page_bytes, dim, encode)?, codec, page_bytes }
            }
        };
        let domains = match &values {
            Side::Coded { codec, .. } => ValueDomains::new([codec.clone()]),
            Side::Plain(_) => ValueDomains::default(),
        };
        let (open, q) = (halves(PAGE * dim, 77), numbers(heads * tokens * group * dim, 5));
        Ok(Self { dim, group, heads, context, tokens, keys, values, domains, open, q })
    }

    /// The pages of every head: what attention is given.
    pub fn pages(&self) -> Vec<HeadPages<'_>> {
        (0..self.heads).map(|head| self.of_head(head)).collect()
    }

    fn of_head(&self, head: usize) -> HeadPages<'_> {
        let pages = self.context / PAGE;
        let mut k: Vec<KeyPage<'_>> = match &self.keys {
            Side::Plain(x) => of_head(x, head, pages, PAGE * self.dim).map(KeyPage::F16).collect(),
            Side::Coded { codec, arena, page_bytes } => of_head(arena, head, pages, *page_bytes)
                .map(|bytes| KeyPage::Coded { codec: &**codec, bytes })
                .collect(),
        };
        let mut v: Vec<ValuePage<'_>> = match &self.values {
            Side::Plain(x) => of_head(x, head, pages, PAGE * self.dim).map(ValuePage::F16).collect(),
            Side::Coded { codec, arena, page_bytes } => of_head(arena, head, pages, *page_bytes)
                .map(|bytes| ValuePage::Coded { codec: &**codec, bytes })
                .collect(),
        };
        k.push(KeyPage::F16(&self.open));
        v.push(ValuePage::F16(&self.open));
        (k, v)
    }

    /// Attends once.
    pub fn attend(
        &self,
        isa: Isa,
        parallel: &dyn Parallel,
        pages: &[HeadPages<'_>],
        workers: &mut Vec<Mutex<Worker>>,
    ) {
        workers.resize_with(workers.len().max(parallel.threads()), Mutex::default);
        let workers = &*workers;
        parallel.run(self.heads, &|worker, head| {
            let mut worker = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            self.head(isa, head, &pages[head], &mut worker);
        });
    }

    fn head(&self, isa: Isa, head: usize, (k, v): &HeadPages<'_>, worker: &mut Worker) {
        let width = self.group * self.dim;
        let task = AttentionTask {
            q: &self.q[head * self.tokens * width..][..self.tokens * width],
            q_stride: width,
            q_offset: 0,
            group: self.group,
            dk: self.dim,
            dv: self.dim,
            tokens: self.tokens,
            first_position: self.context,
            window: None,
            k,
            v,
            domains: &self.domains,
            variants: QueryVariants::default(),
            scale: 1.0 / (self.dim as f32).sqrt(),
        };
        worker.out.resize(task.out_len(), 0.0);
        attend(isa, &task, &mut worker.scratch, &mut worker.out);
        std::hint::black_box(&worker.out);
    }
}

/// A head's page of keys and one of values, to be encoded.
pub struct Encoder {
    key: Box<dyn KeyCodec>,
    value: Box<dyn ValueCodec>,
    numbers: [Vec<f32>; 2],
    pages: [Vec<u8>; 2],
    scratch: CodecScratch,
}

impl Encoder {
    pub fn new(keys: &str, values: &str, dim: usize) -> Result<Self> {
        let params = CodecParams::new(dim, 1);
        let codec = |name: &str| entry(name).with_context(|| format!("no codec {name}"));
        let (key, value) = ((codec(keys)?.key)(&params)?, (codec(values)?.value)(&params)?);
        let pages = [vec![0; key.page_bytes()], vec![0; value.page_bytes()]];
        let numbers = [numbers(PAGE * dim, 1), numbers(PAGE * dim, 2)];
        Ok(Self { key, value, numbers, pages, scratch: CodecScratch::default() })
    }

    pub fn encode(&mut self, isa: Isa) -> Result<()> {
        let [keys, values] = &mut self.pages;
        self.key.encode(isa, &self.numbers[0], &mut self.scratch, keys)?;
        self.value.encode(isa, &self.numbers[1], &mut self.scratch, values)?;
        std::hint::black_box(&self.pages);
        Ok(())
    }
}

/// The pages of a head.
fn of_head<T>(all: &[T], head: usize, pages: usize, page: usize) -> impl Iterator<Item = &[T]> {
    all[head * pages * page..][..pages * page].chunks_exact(page)
}

/// Pages of random numbers.
fn arena(
    pages: usize,
    page_bytes: usize,
    dim: usize,
    encode: impl Fn(&[f32], &mut [u8]) -> Result<(), quant_kernels::Error>,
) -> Result<MmapMut> {
    let mut arena = MmapMut::map_anon(pages * page_bytes)?;
    #[cfg(target_os = "linux")]
    arena.advise(memmap2::Advice::HugePage)?;
    let distinct = DISTINCT.min(pages) * page_bytes;
    for (page, bytes) in arena[..distinct].chunks_exact_mut(page_bytes).enumerate() {
        encode(&numbers(PAGE * dim, page as u32), bytes)?;
    }
    for page in DISTINCT..pages {
        let from = page % DISTINCT * page_bytes;
        arena.copy_within(from..from + page_bytes, page * page_bytes);
    }
    Ok(arena)
}

fn halves(len: usize, seed: u32) -> Vec<f16> {
    numbers(len, seed).into_iter().map(f16::from_f32).collect()
}

/// About normally distributed.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next() + next() + next()).collect()
}
