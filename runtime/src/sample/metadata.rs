//! The sampling defaults that a model file carries (`general.sampling.*`, as llama.cpp's converter writes them).

use super::SamplerConfig;
use crate::Error;
use quant_gguf::Gguf;

impl SamplerConfig {
    /// The file's own settings where it has them, the defaults elsewhere. The file's order of samplers
    /// (`general.sampling.sequence`) is not followed: the order is fixed.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a key of the wrong type. Values are not judged here: a caller may still replace them
    /// before [`SamplerConfig::validate`].
    pub fn from_metadata(file: &Gguf) -> Result<Self, Error> {
        let mut config = Self::default();
        let key = |name: &str| format!("general.sampling.{name}");
        for (name, field) in [
            ("temp", &mut config.temperature),
            ("top_p", &mut config.top_p),
            ("min_p", &mut config.min_p),
            ("xtc_probability", &mut config.xtc_probability),
            ("xtc_threshold", &mut config.xtc_threshold),
            ("penalty_repeat", &mut config.repeat_penalty),
            ("mirostat_tau", &mut config.mirostat_tau),
            ("mirostat_eta", &mut config.mirostat_eta),
        ] {
            if let Some(value) = file.f32(&key(name))? {
                *field = value;
            }
        }
        if let Some(k) = file.i32(&key("top_k"))? {
            // llama.cpp turns top-k off with 0 or less, and takes the whole context for a window of -1.
            config.top_k = usize::try_from(k).unwrap_or(0);
        }
        if let Some(n) = file.i32(&key("penalty_last_n"))? {
            config.penalty_last_n = usize::try_from(n).ok();
        }
        if let Some(version) = file.u32(&key("mirostat"))? {
            config.mirostat = version;
        }
        Ok(config)
    }
}
