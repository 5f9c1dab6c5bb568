//! The best KV cache that fits in given memory.

use super::EngineOptions;
use crate::{Error, Model};
use quant_kvcache::{KvCache, PAGE, Policy};

/// Presets, from the best to the smallest.
const CANDIDATES: [&str; 7] = ["f16", "8", "near", "auto", "4", "3.4", "2.4"];
/// The first of them that a context which was not asked for may cost.
const LAST_RESORTS: usize = 4;
/// Below so many tokens, what is left of the context counts more than bits.
const SHORT: usize = 4096;

/// What [`EngineOptions::fit_kv`] chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvFit {
    /// The preset.
    pub preset: &'static str,
    /// Tokens of a sequence.
    pub context: usize,
}

impl EngineOptions {
    /// Chooses policy, context and budget so that the KV cache of one sequence fits in `bytes`: the best preset that
    /// holds the context asked for or, where none was, all that the model declares. If none holds that, the first from
    /// `4` on with which at least 4096 tokens fit; if there is none either, the one with which the most do.
    ///
    /// # Errors
    /// [`Error::ContextBudget`] if no preset holds the context asked for, or not even one page of tokens.
    pub fn fit_kv(&mut self, model: &Model, bytes: usize) -> Result<KvFit, Error> {
        let layout = model.decoder().kv_layout();
        let wanted = self.context.unwrap_or(model.info().context_length).max(1);
        let mut fits: Vec<(&'static str, Policy, usize)> = Vec::new();
        let mut needed = usize::MAX;
        for preset in CANDIDATES {
            let policy: Policy = preset.parse()?;
            // A preset without a form for the model's heads is none for it.
            let Ok(cache) = KvCache::new(layout.clone(), &policy, 0) else { continue };
            needed = needed.min(cache.bytes_for(self.context.unwrap_or(PAGE), self.chunk));
            fits.push((preset, policy, cache.positions_in(bytes, self.chunk)));
        }
        let all = fits.iter().position(|(.., holds)| *holds >= wanted);
        let some = || {
            let resorts = || (0..fits.len()).filter(|&i| CANDIDATES[LAST_RESORTS..].contains(&fits[i].0));
            let long = resorts().find(|&i| fits[i].2 >= SHORT);
            long.or_else(|| (0..fits.len()).max_by_key(|&i| fits[i].2)).filter(|&i| fits[i].2 > 0)
        };
        let chosen = all.or_else(|| if self.context.is_none() { some() } else { None });
        let (preset, policy, holds) = chosen.map(|i| fits.swap_remove(i)).ok_or(Error::ContextBudget {
            context: self.context.unwrap_or(PAGE),
            needed,
            budget: bytes,
        })?;
        let context = wanted.min(holds);
        self.kv = policy;
        self.kv_budget = Some(bytes);
        self.context = Some(context);
        Ok(KvFit { preset, context })
    }
}
