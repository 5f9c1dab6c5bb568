//! Loads made-up snapshots, as the fuzz target and the tests of hostile input do.

use quant_gguf::Gguf;
use quant_runtime::{Binding, Engine, EngineOptions, LogitsWanted, Model};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use xxhash_rust::xxh3::Xxh3;

struct Bench {
    engine: Engine,
    /// Two sessions as they were saved: one plain, one that forgot a part of its text.
    saved: [Vec<u8>; 2],
    path: PathBuf,
}

fn bench() -> &'static Mutex<Bench> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    BENCH.get_or_init(|| {
        // The fuzz target's folder lies one deeper.
        let places =
            ["../cli/demo", "../../cli/demo"].map(|demo| Path::new(env!("CARGO_MANIFEST_DIR")).join(demo));
        let demo = places.into_iter().find(|demo| demo.exists()).unwrap();
        let model = Model::load(demo.join("demo-q8_0.gguf")).unwrap();
        let options = EngineOptions {
            kv: "k=5,v=4,sinks=128,drop=2".parse().unwrap(),
            threads: Some(1),
            context: Some(512),
            kv_budget: Some(8 << 20),
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(&model, &options).unwrap();
        let path = std::env::temp_dir().join(format!("quant-snapshot-{}.kv", std::process::id()));
        let saved = [false, true].map(|shifts| {
            let id = engine.open();
            let tokens: Vec<u32> = (0..500).map(|i| 3 + i * 37 % 4000).collect();
            engine.append(id, &tokens[..if shifts { 500 } else { 300 }]).unwrap();
            let request = quant_runtime::GenerateOptions {
                max_tokens: Some(if shifts { 40 } else { 1 }),
                ignore_end: true,
                context_shift: Some(100),
                ..Default::default()
            };
            engine.resume(id, &request).unwrap().for_each(|event| drop(event.unwrap()));
            engine.save(id, &path, Binding::Sampled).unwrap();
            engine.close(id);
            std::fs::read(&path).unwrap()
        });
        Mutex::new(Bench { engine, saved, path })
    })
}

/// Makes a file of some bytes and loads it. The first byte says how: the bytes themselves, or changes of a saved session,
/// three bytes of place and one of value each, before or after its checksum was made. Returns whether it was accepted.
///
/// # Panics
/// If anything is left behind, or a session that was accepted can't be used.
pub fn snapshot(bytes: &[u8]) -> bool {
    let mut bench = bench().lock().unwrap_or_else(PoisonError::into_inner);
    let Bench { engine, saved, path } = &mut *bench;
    let Some((&how, rest)) = bytes.split_first() else { return false };
    let file = match how % 5 {
        0 => rest.to_vec(),
        how => {
            let mut file = saved[usize::from(how % 2)].clone();
            for change in rest.as_chunks::<4>().0 {
                let at = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize % file.len();
                file[at] = change[3];
            }
            if how > 2 {
                refresh(&mut file);
            }
            file
        }
    };
    std::fs::write(&*path, file).unwrap();
    let loaded = engine.load(&*path, Binding::Sampled);
    let accepted = loaded.is_ok();
    if let Ok(id) = loaded {
        // Numbers from nowhere may overflow, which is an error of its own.
        let _ = engine.evaluate(id, &[5, 6, 7], LogitsWanted::Last, &mut |_, _| ControlFlow::Continue(()));
        engine.close(id);
    }
    let memory = engine.memory();
    assert_eq!((memory.sequences, memory.used_bytes, memory.mapped_bytes), (0, 0, 0));
    accepted
}

/// Writes the checksum of what is there, if the file can be read so far.
fn refresh(file: &mut [u8]) {
    let Ok(gguf) = Gguf::from_bytes(vec![file.to_owned().into()]) else { return };
    let Ok(Some(old)) = gguf.str("quant-kv.checksum") else { return };
    let mut checksum = Xxh3::new();
    let add = |checksum: &mut Xxh3, name: &str| {
        if let Ok(tensor) = gguf.tensor(name) {
            checksum.update(&tensor.bytes);
        }
    };
    add(&mut checksum, "tokens");
    add(&mut checksum, "turns");
    if gguf.bool("quant-kv.reduced").is_ok_and(|reduced| reduced == Some(true)) {
        checksum.update(b"reduced");
    }
    for info in gguf.tensors().filter(|info| info.name.starts_with("pages.")) {
        add(&mut checksum, info.name);
        add(&mut checksum, &info.name.replace("pages", "blocks"));
    }
    let new = format!("{:032x}", checksum.digest128());
    let place = file.windows(32).position(|window| window == old.as_bytes());
    if let Some(place) = place.filter(|_| old.len() == 32) {
        file[place..place + 32].copy_from_slice(new.as_bytes());
    }
}
