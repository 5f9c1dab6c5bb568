//! How an engine is set up, and what is chosen where nothing is asked for.

use crate::{Error, Model, memory, threads};
use quant_kernels::{Activations, Isa};
use quant_kvcache::{KvCache, PAGE, Policy, SpillFile};
use std::fs::File;
use std::path::PathBuf;

/// How an engine computes and how much memory it may take. Only [`Self::kv`] and [`Self::activations`] change
/// results.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// SIMD tier; the best of this CPU by default.
    pub isa: Isa,
    /// Threads that compute; `None` is one for each physical core this process may use.
    pub threads: Option<usize>,
    /// How keys and values are stored.
    pub kv: Policy,
    /// How activations are treated.
    pub activations: Activations,
    /// Tokens that a sequence can have; `None` is what the model declares, as far as half of the free memory holds
    /// it.
    pub context: Option<usize>,
    /// Bytes of the KV cache, all sequences together; `None` is half of the free memory, or what one sequence of
    /// the context asked for takes. Pages are allocated as they fill.
    pub kv_budget: Option<usize>,
    /// Prompt tokens that a step reads at the most.
    pub chunk: usize,
    /// A file that must not exist yet, for planes that pages lose if [`Policy::drop`] lets them: they come back when memory
    /// is free again. `None` forgets them. It is unlinked at once where the system allows that.
    pub kv_spill: Option<PathBuf>,
    /// Keep what is computed for prompts when their sessions are closed, as far as the budget allows, for later ones that
    /// begin alike. Results are the same bits; memory is given up when other sequences need it.
    pub prefix_cache: bool,
    /// Where a prompt comes to a page of 128 tokens that an earlier one had elsewhere, take what was computed for it there:
    /// documents that several prompts have in common, in whatever order, are read once. Pages begin at multiples of 128
    /// tokens in either prompt. What a model makes of a text depends on what stands before it, so the reply is no longer
    /// the one that this prompt alone would get: [`Stats::moved_tokens`](crate::Stats::moved_tokens) tells of how many
    /// tokens. Includes [`Self::prefix_cache`].
    pub reuse_pages: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            isa: Isa::detect(),
            threads: None,
            kv: Policy::F16,
            activations: Activations::Auto,
            context: None,
            kv_budget: None,
            chunk: 512,
            kv_spill: None,
            prefix_cache: false,
            reuse_pages: false,
        }
    }
}

/// The choices for one model on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub threads: usize,
    pub context: usize,
    pub budget: usize,
}

impl EngineOptions {
    /// The cache, with a store for lost planes if one is asked for.
    pub(super) fn with_spill(&self, cache: KvCache) -> Result<KvCache, Error> {
        let Some(path) = self.kv_spill.as_ref().filter(|_| self.kv.drop.is_some()) else { return Ok(cache) };
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|source| Error::Io { path: path.clone(), source })?;
        // Where an open file can't be unlinked, it stays.
        let _ = std::fs::remove_file(path);
        Ok(cache.with_spill(Box::new(SpillFile::new(file, usize::MAX))))
    }

    pub(super) fn plan(&self, model: &Model) -> Result<Plan, Error> {
        let cache = KvCache::new(model.decoder().kv_layout(), &self.kv, 0)?;
        let free = usize::try_from(memory::available_bytes()).unwrap_or(usize::MAX);
        let threads = self.threads.unwrap_or_else(threads::physical_cores).max(1);
        let declared = model.info().context_length.max(1);
        if let Some(context) = self.context.filter(|&context| context > declared) {
            tracing::warn!(context, declared, "the context is longer than the model was trained for");
        }
        let (context, budget) = self.share(&cache, declared, free)?;
        Ok(Plan { threads, context, budget })
    }

    /// The context in tokens and the budget in bytes.
    fn share(&self, cache: &KvCache, declared: usize, free: usize) -> Result<(usize, usize), Error> {
        let needs = |context: usize| cache.bytes_for(context, self.chunk.min(context));
        // A budget that is given may ask for planes to be dropped.
        let least = |context: usize| cache.least_bytes_for(context, self.chunk.min(context));
        let budget = self.kv_budget.unwrap_or_else(|| (free / 2).max(needs(self.context.unwrap_or(PAGE))));
        let holds = cache.positions_in(budget, self.chunk);
        match self.context {
            Some(0) => Err(Error::ContextBudget { context: 0, needed: 0, budget }),
            Some(context) if least(context) > budget => {
                Err(Error::ContextBudget { context, needed: least(context), budget })
            }
            Some(context) => Ok((context, budget)),
            None if holds == 0 => Err(Error::ContextBudget { context: PAGE, needed: needs(PAGE), budget }),
            None => Ok((declared.min(holds), budget)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EngineOptions, KvCache, Policy};
    use quant_kvcache::LayerShape;

    #[test]
    fn context_and_budget() {
        let share = |context, kv_budget, free| {
            let options = EngineOptions { context, kv_budget, ..EngineOptions::default() };
            // A position takes 8 bytes, a page 1024.
            let shape = LayerShape { kv_heads: 1, key_dim: 2, value_dim: 2 };
            let cache = KvCache::new(vec![shape], Policy::F16, 0).unwrap();
            options.share(&cache, 1024, free).ok()
        };
        // As much as declared; as half of the free memory holds; at least a page.
        assert_eq!(share(None, None, 1 << 20), Some((1024, 1 << 19)));
        assert_eq!(share(None, None, 6_500), Some((384, 3_250)));
        assert_eq!(share(None, None, 0), Some((128, 1024)));
        // What is asked for is given, whatever is free.
        assert_eq!(share(Some(300), None, 0), Some((300, 3 << 10)));
        assert_eq!(share(Some(4096), None, 0), Some((4096, 32 << 10)));
        // A budget is kept.
        assert_eq!(share(None, Some(3_071), 1 << 20), Some((256, 3_071)));
        assert_eq!(share(Some(300), Some(3_071), 1 << 20), None);
        assert_eq!(share(None, Some(1_023), 1 << 20), None);
        assert_eq!(share(Some(0), None, 1 << 20), None);
    }
}
