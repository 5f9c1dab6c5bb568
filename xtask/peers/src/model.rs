//! llama.cpp on a model. `prefill N` (N tokens into an empty cache, seconds) and `decode N` (N single tokens after a
//! prompt of 16, median seconds of one); or one cold start: load, tokenize, read 16 tokens, pick the next.

use anyhow::{Context as _, Result, bail};
use llama_cpp_sys_2 as llama;
use serde_json::json;
use std::ffi::{CString, OsString};
use std::io::BufRead as _;
use std::time::Instant;

/// What the command line asks for.
struct Options {
    model: String,
    threads: i32,
    repack: bool,
    ctx: u32,
}

fn options(args: Vec<OsString>) -> Result<Options> {
    use lexopt::prelude::{Long, Value, ValueExt as _};
    let mut options = Options { model: String::new(), threads: 1, repack: true, ctx: 1024 };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("ctx") => options.ctx = parser.value()?.parse()?,
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
