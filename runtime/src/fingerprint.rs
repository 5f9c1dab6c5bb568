//! Which model is this? What snapshots are bound to.

use quant_gguf::Gguf;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::Xxh3;

/// Places at which the tensors' data is read.
const SAMPLES: usize = 256;
/// Bytes read at each.
const SAMPLE_BYTES: usize = 64;

/// 128 bits that tell models apart (xxh3; it guards against mistakes, not against forgery).
///
/// ```
/// use quant_runtime::Fingerprint;
/// let hex = "00112233445566778899aabbccddeeff";
/// assert_eq!(hex.parse::<Fingerprint>()?.to_string(), hex);
/// # Ok::<(), &'static str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// From the header, all metadata, the tensor table, the size, and samples of the tensors' data: quick, and another
    /// model or quantization never has it. A file damaged between the samples does; see [`Fingerprint::of_all_bytes`].
    pub fn of(file: &Gguf) -> Self {
        let mut hash = Xxh3::new();
        for (bytes, tables) in file.parts() {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            let (tables, data) = bytes.split_at(tables.min(bytes.len()));
            hash.update(tables);
            let last = data.len().saturating_sub(SAMPLE_BYTES);
            for i in 0..SAMPLES {
                // In u128: a file of 2^56 bytes would overflow otherwise.
                let at = (last as u128 * i as u128 / (SAMPLES as u128 - 1)) as usize;
                hash.update(&data[at..data.len().min(at + SAMPLE_BYTES)]);
            }
        }
        Self(hash.digest128())
    }

    /// From every byte of the file, reporting bytes done and bytes in all.
    pub fn of_all_bytes(file: &Gguf, progress: &mut dyn FnMut(u64, u64)) -> Self {
        const STEP: usize = 16 << 20;
        let (mut hash, mut done) = (Xxh3::new(), 0);
        for (bytes, _) in file.parts() {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            for step in bytes.chunks(STEP) {
                hash.update(step);
                done += step.len() as u64;
                progress(done, file.file_bytes());
            }
        }
        Self(hash.digest128())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        let digits = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = digits.then(|| u128::from_str_radix(hex, 16).ok()).flatten();
        value.map(Self).ok_or("a fingerprint has 32 hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;
    use quant_gguf::{Bytes, Gguf, Writer};
    use quant_kernels::GgmlType;

    fn file(name: &str, data: &[f32]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.set("general.name", name).unwrap();
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        if !data.is_empty() {
            writer.tensor("t", GgmlType::F32, &[data.len() as u64], bytes).unwrap();
        }
        let mut out = Vec::new();
        writer.write_to(&mut out).unwrap();
        out
    }

    fn both(bytes: Vec<u8>) -> [Fingerprint; 2] {
        let file = Gguf::from_bytes(vec![Bytes::from(bytes)]).unwrap();
        [Fingerprint::of(&file), Fingerprint::of_all_bytes(&file, &mut |_, _| {})]
    }

    #[test]
    fn tells_metadata_data_and_size_apart() {
        let data = vec![1.0; 100_000];
        let first = both(file("a", &data));
        assert_eq!(first, both(file("a", &data)));
        let mut other = data.clone();
        other[0] = 2.0;
        for changed in [file("b", &data), file("a", &data[1..]), file("a", &other)] {
            let changed = both(changed);
            assert!(changed[0] != first[0] && changed[1] != first[1]);
        }
        // one value between two samples: only the whole hash sees it
        let mut damaged = data.clone();
        damaged[500] = 2.0;
        let damaged = both(file("a", &damaged));
        assert_eq!(damaged[0], first[0]);
        assert_ne!(damaged[1], first[1]);
        // nothing to sample
        assert_ne!(both(file("a", &[]))[0], first[0]);
    }

    #[test]
    fn refuses_what_is_no_fingerprint() {
        for bad in ["", "12", "+0112233445566778899aabbccddeeff", "zz112233445566778899aabbccddeeff"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
