//! llama.cpp on a model. `prefill N` (N tokens into an empty cache, seconds) and `decode N` (N single tokens after a
//! prompt of 16, median seconds of one); or one cold start: load, tokenize, read 16 tokens, pick the next.

use anyhow::{Context as _, Result, bail};
use llama_cpp_sys_2 as llama;
use serde_json::json;
use std::ffi::{CString, OsString};
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

/// What the command line asks for.
struct Options {
    model: String,
    threads: i32,
    repack: bool,
    ctx: u32,
    /// Type of keys and values.
    kv: llama::ggml_type,
}

fn options(args: Vec<OsString>) -> Result<Options> {
    use lexopt::prelude::{Long, Value, ValueExt as _};
    let mut options =
        Options { model: String::new(), threads: 1, repack: true, ctx: 1024, kv: llama::GGML_TYPE_F16 };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("ctx") => options.ctx = parser.value()?.parse()?,
            Long("kv") => options.kv = kv_type(&parser.value()?.string()?)?,
            Long("repack") => options.repack = parser.value()?.string()? == "on",
            Value(path) if options.model.is_empty() => options.model = path.string()?,
            _ => bail!(arg.unexpected()),
        }
    }
    if options.model.is_empty() {
        bail!("usage: quant-peers [start] MODEL [--threads T] [--repack on|off] [--ctx N]");
    }
    Ok(options)
}

fn kv_type(name: &str) -> Result<llama::ggml_type> {
    Ok(match name {
        "f16" => llama::GGML_TYPE_F16,
        "q8_0" => llama::GGML_TYPE_Q8_0,
        "q5_1" => llama::GGML_TYPE_Q5_1,
        "q5_0" => llama::GGML_TYPE_Q5_0,
        "q4_1" => llama::GGML_TYPE_Q4_1,
        "q4_0" => llama::GGML_TYPE_Q4_0,
        "iq4_nl" => llama::GGML_TYPE_IQ4_NL,
        _ => bail!("llama.cpp has no KV cache of type {name}"),
    })
}

/// A model and a context of llama.cpp.
struct Peer {
    model: *mut llama::llama_model,
    context: *mut llama::llama_context,
    vocab: i32,
}

/// Drops what ggml and llama.cpp log.
pub unsafe extern "C" fn quiet(
    _level: llama::ggml_log_level,
    _text: *const std::ffi::c_char,
    _user: *mut std::ffi::c_void,
) {
}

impl Peer {
    fn load(options: &Options) -> Result<Self> {
        let path = CString::new(options.model.as_str())?;
        // SAFETY: plain calls of the C API in its documented order; the path outlives the call, null results
        // are checked before use.
        unsafe {
            llama::llama_log_set(Some(quiet), std::ptr::null_mut());
            llama::llama_backend_init();
            let mut params = llama::llama_model_default_params();
            params.use_extra_bufts = options.repack;
            let model = llama::llama_model_load_from_file(path.as_ptr(), params);
            if model.is_null() {
                bail!("llama.cpp can't load {}", options.model);
            }
            let mut params = llama::llama_context_default_params();
            params.n_ctx = options.ctx;
            params.n_batch = options.ctx.min(2048);
            params.n_ubatch = 512;
            params.n_threads = options.threads;
            params.n_threads_batch = options.threads;
            (params.type_k, params.type_v) = (options.kv, options.kv);
            if options.kv != llama::GGML_TYPE_F16 {
                params.flash_attn_type = llama::LLAMA_FLASH_ATTN_TYPE_ENABLED;
            }
            let context = llama::llama_init_from_model(model, params);
            if context.is_null() {
                bail!("llama.cpp can't make a context of {} positions", options.ctx);
            }
            let vocab = llama::llama_vocab_n_tokens(llama::llama_model_get_vocab(model));
            Ok(Self { model, context, vocab })
        }
    }

    fn clear(&self) {
        // SAFETY: the context is alive.
        unsafe { llama::llama_memory_clear(llama::llama_get_memory(self.context), true) }
    }

    /// Feeds tokens and waits for their logits; returns seconds.
    fn feed(&self, tokens: &mut [i32]) -> Result<f64> {
        let start = Instant::now();
        // SAFETY: the batch borrows `tokens` for the call only, and the context is alive.
        let status = unsafe {
            let batch = llama::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            let status = llama::llama_decode(self.context, batch);
            std::hint::black_box(llama::llama_get_logits(self.context));
            status
        };
        if status != 0 {
            bail!("llama_decode failed with {status}");
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Feeds tokens into an empty cache, all of which get logits.
    fn feed_all(&self, tokens: &mut [i32]) -> Result<()> {
        let mut wanted = vec![1i8; tokens.len()];
        // SAFETY: the batch borrows both lists for the call only; where it has none, positions and sequence are counted
        // on from the cache.
        let status = unsafe {
            let batch = llama::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            llama::llama_decode(self.context, llama::llama_batch { logits: wanted.as_mut_ptr(), ..batch })
        };
        if status != 0 {
            bail!("llama_decode failed with {status}");
        }
        Ok(())
    }

    fn tokens(&self, count: usize) -> Vec<i32> {
        (0..count as i32).map(|i| (i * 7919 + 13) % self.vocab).collect()
    }

    fn prefill(&self, count: usize) -> Result<f64> {
        self.clear();
        self.feed(&mut self.tokens(count))
    }

    fn decode(&self, count: usize) -> Result<f64> {
        self.prefill(16)?;
        let mut seconds =
            self.tokens(count).into_iter().map(|t| self.feed(&mut [t])).collect::<Result<Vec<_>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: both were made by load and are freed once, the context first.
        unsafe {
            llama::llama_free(self.context);
            llama::llama_model_free(self.model);
        }
    }
}

/// Answers jobs on one model.
pub fn serve(args: Vec<OsString>) -> Result<()> {
    let start = Instant::now();
    let peer = Peer::load(&options(args)?)?;
    println!("{}", json!({ "ready": true, "load_s": start.elapsed().as_secs_f64() }));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (job, count) = line.split_once(' ').context("a job is `prefill N` or `decode N`")?;
        let count: usize = count.trim().parse()?;
        let seconds = match job {
            "prefill" => peer.prefill(count)?,
            "decode" => peer.decode(count.max(1))?,
            other => bail!("unknown job {other}"),
        };
        println!("{}", json!({ "job": job, "count": count, "seconds": seconds }));
    }
    Ok(())
}

/// Logits of a text: standard input has tokens of a chunk, the first token of every chunk or -1 for its own, and the ids,
/// one word each; standard output gets the rows of every chunk's second half but for its last, as little-endian f32.
pub fn logits(args: Vec<OsString>) -> Result<()> {
    let words = std::io::read_to_string(std::io::stdin())?;
    let words = words.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<i32>, _>>()?;
    let [context, begin, ids @ ..] = &words[..] else { bail!("tokens of a chunk, first token and ids") };
    let context = usize::try_from(*context)?;
    let peer = Peer::load(&Options { ctx: context.try_into()?, ..options(args)? })?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for chunk in ids.chunks_exact(context.max(4)) {
        let mut tokens = chunk.to_vec();
        if *begin >= 0 {
            tokens[0] = *begin;
        }
        peer.clear();
        // All of them at once, so that each row is wanted and none is far from the others.
        peer.feed_all(&mut tokens)?;
        for row in context / 2..context - 1 {
            // SAFETY: the context is alive and was asked for the logits of every token of the batch.
            let logits = unsafe {
                std::slice::from_raw_parts(
                    llama::llama_get_logits_ith(peer.context, row as i32),
                    peer.vocab as usize,
                )
            };
            for x in logits {
                out.write_all(&x.to_le_bytes())?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// One cold start: the text in `QUANT_PROMPT` becomes tokens, the first 16 are read, the likeliest next one is told.
pub fn start(args: Vec<OsString>) -> Result<()> {
    let prompt = std::env::var("QUANT_PROMPT").context("QUANT_PROMPT holds the prompt")?;
    let peer = Peer::load(&options(args)?)?;
    let mut tokens = vec![0; prompt.len() + 8];
    // SAFETY: the model is alive, and text and tokens are borrowed with their lengths for the call only.
    let count = unsafe {
        let vocab = llama::llama_model_get_vocab(peer.model);
        let text = prompt.as_ptr().cast();
        llama::llama_tokenize(
            vocab,
            text,
            prompt.len() as i32,
            tokens.as_mut_ptr(),
            tokens.len() as i32,
            true,
            false,
        )
    };
    let read = tokens.get_mut(..16).filter(|_| count >= 16).context("the prompt has at least 16 tokens")?;
    peer.feed(read)?;
    // SAFETY: the context is alive and its last logits hold one value per token of the vocabulary.
    let logits = unsafe {
        std::slice::from_raw_parts(llama::llama_get_logits_ith(peer.context, -1), peer.vocab as usize)
    };
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
    println!("{}", json!({ "token": best }));
    Ok(())
}
