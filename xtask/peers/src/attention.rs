//! ggml's flash attention: `attention TYPE DIM GROUP HEADS CONTEXT TOKENS THREADS` answers with the seconds that `TOKENS`
//! query tokens of `GROUP * HEADS` query heads need over `CONTEXT` positions of `HEADS` KV heads, keys and values of one
//! type, laid out as llama.cpp does, with a mask that hides nothing.

use crate::ggml::{Backend, Graph};
use anyhow::{Context as _, Result};
use llama_cpp_sys_2 as sys;

/// The graph of a job.
pub fn graph(
    backend: &Backend,
    ty: &str,
    [dim, group, heads, context, tokens, threads]: [i64; 6],
) -> Result<Graph> {
    let ty = match ty {
        "f16" => sys::GGML_TYPE_F16,
        "q8_0" => sys::GGML_TYPE_Q8_0,
        _ => sys::GGML_TYPE_Q4_0,
    };
    backend.threads(threads as i32);
    let numbers = |len: i64, seed: u32| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next() + next() + next()).collect()
    };
    // SAFETY: ggml's table lives for ever; the buffer is as long as a row of the type.
    let row = |seed| unsafe {
        let traits = &*sys::ggml_get_type_traits_cpu(ty);
        let x = numbers(dim * heads, seed);
        let mut bytes = vec![0u8; sys::ggml_row_size(ty, dim * heads)];
        traits.from_float.context("a type that can be made")?(
            x.as_ptr(),
            bytes.as_mut_ptr().cast(),
            dim * heads,
        );
        anyhow::Ok(bytes)
    };
    let q = numbers(dim * tokens * group * heads, 5);
    Graph::attention(ty, [dim, group, heads, context, tokens], &q, &[row(1)?, row(2)?, row(3)?, row(4)?])
}
