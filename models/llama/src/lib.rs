//! The Llama architecture family.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use quant_kernels::rope::RopePairs;
use quant_models_core::{
    Attention, Decoder, Error, FeedForward, GatedMlp, Layer, Linear, Loader, Mixer, ModelInfo, Parts, RmsNorm,
};

/// The value of `general.architecture` that this crate runs.
pub const ARCH: &str = "llama";

/// Sizes that differ by layer.
struct LayerSizes {
    n_heads: usize,
    n_kv_heads: usize,
    n_ff: usize,
}

/// Reads a model.
///
/// # Errors
/// [`Error::Unsupported`] for mixtures of experts, which share the architecture's name; whatever the file lacks or
/// has too much.
pub fn load(mut loader: Loader<'_>) -> Result<Decoder, Error> {
    refuse_variants(&mut loader)?;
    let n_layers = loader.block_count()?;
    let n_embd = loader.size("embedding_length")?;
    let context_length = loader.size("context_length")?;
    let eps = loader.f32("attention.layer_norm_rms_epsilon")?;
    let n_heads = loader.size_per_layer("attention.head_count", n_layers, None)?;
    let n_kv_heads = loader.size_per_layer("attention.head_count_kv", n_layers, Some(&n_heads))?;
    let n_ff = loader.size_per_layer("feed_forward_length", n_layers, None)?;
    let (key_dim, value_dim) = head_dims(&mut loader, n_embd, n_heads[0])?;
    let vocab = loader.rows_of("token_embd.weight")?;

    let token_embd = loader.matrix("token_embd.weight", vocab, n_embd)?;
    let rope = loader.rope(RopePairs::Interleaved, key_dim, context_length)?;
    let mut layers = Vec::new();
    for i in 0..n_layers {
        let sizes = LayerSizes { n_heads: n_heads[i], n_kv_heads: n_kv_heads[i], n_ff: n_ff[i] };
        layers.push(layer(&mut loader, i, n_embd, key_dim, value_dim, eps, &sizes)?);
    }
    let output_norm = RmsNorm { weight: loader.vector("output_norm.weight", n_embd)?, eps };
    let tied = !loader.has("output.weight");
    let output =
        if tied { Linear::new(token_embd.clone(), None)? } else { loader.linear("output", vocab, n_embd)? };

    // An embedding is one row; only as a tied head is the matrix read for every token.
    let unread = if tied { 0 } else { token_embd.bytes() };
    let info = ModelInfo {
        arch: loader.arch().to_owned(),
        n_layers,
        n_embd,
        n_heads: n_heads[0],
        n_kv_heads: n_kv_heads[0],
        key_dim,
        value_dim,
        vocab,
        context_length,
        parameters: loader.parameters(),
        bytes_per_token: loader.bytes().saturating_sub(unread),
    };
    loader.finish()?;
    Decoder::new(Parts { info, token_embd, ropes: vec![rope], layers, output_norm, output })
}

/// Files that say `llama` and compute something else.
fn refuse_variants(loader: &mut Loader<'_>) -> Result<(), Error> {
    let experts = loader.optional_u32("expert_count")?.unwrap_or(0);
    if experts > 0 {
        return Err(loader.unsupported(format!("Mixtral, a mixture of {experts} experts,")));
    }
    // Dense files of some converters say that they use none of none.
    loader.optional_u32("expert_used_count")?;
    if loader.optional_bool("attention.causal")? == Some(false) {
        return Err(loader.unsupported("attention to later positions (an embedding model)"));
    }
    Ok(())
}

/// Sizes of a head's key and value: explicit, or the width shared out among the heads.
fn head_dims(loader: &mut Loader<'_>, n_embd: usize, n_heads: usize) -> Result<(usize, usize), Error> {
    let mut dim = |key| match loader.optional_u32(key)? {
        Some(0) => Err(loader.wrong(key, 0, "it must be positive")),
        Some(dim) => Ok(dim as usize),
        None if n_embd.is_multiple_of(n_heads) => Ok(n_embd / n_heads),
        None => Err(loader.wrong("attention.head_count", n_heads, "it must divide the embedding length")),
    };
    Ok((dim("attention.key_length")?, dim("attention.value_length")?))
}

fn layer(
    loader: &mut Loader<'_>,
    index: usize,
    n_embd: usize,
    key_dim: usize,
    value_dim: usize,
    eps: f32,
    sizes: &LayerSizes,
) -> Result<Layer, Error> {
    let &LayerSizes { n_heads, n_kv_heads, n_ff } = sizes;
    let name = |part: &str| format!("blk.{index}.{part}");
    let product = |heads: usize, dim: usize| {
        let too_large = || loader.wrong("attention.head_count", heads, "heads times head size is too large");
        heads.checked_mul(dim).ok_or_else(too_large)
    };
    let (q_rows, k_rows) = (product(n_heads, key_dim)?, product(n_kv_heads, key_dim)?);
    let (v_rows, mixed) = (product(n_kv_heads, value_dim)?, product(n_heads, value_dim)?);
    if !n_heads.is_multiple_of(n_kv_heads) {
        let reason = format!("it must divide attention.head_count, {n_heads}");
        return Err(loader.wrong("attention.head_count_kv", n_kv_heads, &reason));
    }

    let mut norm = |part: &str| {
        Ok::<_, Error>(RmsNorm { weight: loader.vector(&name(&format!("{part}.weight")), n_embd)?, eps })
    };
    let (attn_norm, ffn_norm) = (norm("attn_norm")?, norm("ffn_norm")?);
    let (q, k, v) = (name("attn_q"), name("attn_k"), name("attn_v"));
    let [q, k, v] = loader.linears(&name("attn_qkv"), [(&q, q_rows), (&k, k_rows), (&v, v_rows)], n_embd)?;
    let mixer = Mixer::Attention(Attention {
        n_heads,
        n_kv_heads,
        key_dim,
        value_dim,
        rope: Some(0),
        window: None,
        scale: 1.0 / (key_dim as f32).sqrt(),
        q,
        k,
        v,
        output: loader.linear(&name("attn_output"), n_embd, mixed)?,
    });
    let feed_forward = FeedForward::Gated(GatedMlp {
        gate: loader.linear(&name("ffn_gate"), n_ff, n_embd)?,
        up: loader.linear(&name("ffn_up"), n_ff, n_embd)?,
        down: loader.linear(&name("ffn_down"), n_embd, n_ff)?,
    });
    Ok(Layer { attn_norm, mixer, ffn_norm, feed_forward })
}
