//! Context shift: pages that move meet queries turned to fit, so that the first layer, whose keys and values depend on
//! their own tokens alone, computes what it would for the text without the forgotten part.

mod common;

use common::{Recorder, Runner};
use quant_gguf::Gguf;
use quant_kernels::Activations;
use quant_kvcache::{Bytes, Error, ExportPart, ImportPart, PAGE, Policy, SequenceId, offset_of};
use quant_models::{Decoder, LogitsWanted, Point, Span, load};
use std::path::Path;
use std::sync::Arc;

fn demo() -> Decoder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/demo-q8_0.gguf");
    load(&Gguf::open(path).unwrap()).unwrap()
}

/// Appends tokens; the first layer's output at the last one, and the logits after it.
fn feed(runner: &mut Runner<'_>, sequence: SequenceId, tokens: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let (mut probe, mut logits) = (Recorder::default(), Vec::new());
    let spans = [Span { sequence, tokens, logits: LogitsWanted::Last }];
    runner.model.forward(&mut runner.cx, &mut runner.cache, &spans, &mut logits, &mut probe).unwrap();
    let width = runner.model.info().n_embd;
    let rows = &probe.points[&Point::LayerOutput(0)];
    (rows[rows.len() - width..].to_vec(), logits)
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    let scale = b.iter().fold(0f32, |max, x| max.max(x.abs()));
    a.iter().zip(b).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / scale
}

fn text(count: usize, salt: usize) -> Vec<u32> {
    (0..count).map(|i| (3 + (i * 37 + i * i % 11 + salt * 1001) % 4000) as u32).collect()
}

fn stored(part: ExportPart<'_>) -> ImportPart {
    let bytes = part.blocks.concat();
    let len = bytes.len();
    let bytes = Bytes::new(Arc::new(bytes), 0..len).unwrap();
    ImportPart { group: part.group, form: part.form, pages: part.pages, bytes }
}

/// Pages of one text behind another, further on and further to the front than they were.
fn reused(policy: &str, bound: f32) {
    let model = demo();
    let policy: Policy = policy.parse().unwrap();
    let mut runner = Runner::new(&model, Activations::F32, policy.clone());
    let known = text(5 * PAGE + 3, 1);
    let first = runner.cache.create();
    feed(&mut runner, first, &known);
    assert_eq!(runner.cache.remember(first, &known).unwrap(), 5);
    runner.cache.release(first).unwrap();
    for (before, run) in [(2, 1..4), (1, 3..5)] {
        let mut tokens = text(before * PAGE, 2);
        let id = runner.cache.create();
        feed(&mut runner, id, &tokens);
        let again = &known[run.start * PAGE..run.end * PAGE];
        let used = runner.cache.stats().used_bytes;
        assert_eq!(runner.cache.reuse(id, again).unwrap(), again.len(), "{policy}");
        assert!(runner.cache.stats().used_bytes <= used, "nothing is copied");
        tokens.extend(again);
        assert_eq!(runner.cache.len(id).unwrap(), tokens.len());
        let offset = (run.start as isize - before as isize) * PAGE as isize;
        assert_eq!(offset_of(runner.cache.turns(id).unwrap(), before), offset);

        let more = text(PAGE + 9, 3);
        let copy = runner.cache.fork(id).unwrap();
        let (first_layer, whole) = feed(&mut runner, id, &more);
        tokens.extend(&more);
        let straight = runner.cache.create();
        let (expected, _) = feed(&mut runner, straight, &tokens);
        let apart = far(&first_layer, &expected);
        assert!(apart < bound, "{policy}: {apart} apart");
        // In pieces, and after a draft that was taken back: the same bits.
        feed(&mut runner, copy, &text(100, 7));
        let len = tokens.len() - more.len();
        assert_eq!(runner.cache.rewind(copy, len).unwrap(), len);
        feed(&mut runner, copy, &more[..70]);
        assert!(feed(&mut runner, copy, &more[70..]).1 == whole, "{policy}: other bits in pieces");
        assert_eq!(runner.cache.remember(id, &tokens).unwrap_err(), Error::Shifted);
        assert_eq!(runner.cache.reuse(id, again).unwrap(), 0, "it does not end at a page boundary");
        for id in [id, copy, straight] {
            runner.cache.release(id).unwrap();
        }
    }
    // A text that nobody read, half a page, and the first page, whose form may be another.
    let id = runner.cache.create();
    feed(&mut runner, id, &text(PAGE, 2));
    assert_eq!(runner.cache.reuse(id, &text(2 * PAGE, 8)).unwrap(), 0);
    assert_eq!(runner.cache.reuse(id, &known[..PAGE - 1]).unwrap(), 0);
    let first = runner.cache.reuse(id, &known[..PAGE]).unwrap();
    assert_eq!(first, if policy.sinks > 0 { 0 } else { PAGE });
    assert_eq!(runner.cache.rewind(id, PAGE / 2).unwrap(), PAGE / 2);
    assert!(runner.cache.turns(id).unwrap().is_empty(), "nothing that was moved is left");
}

#[test]
fn remembered_pages_elsewhere() {
    reused("f32", 2e-5);
    reused("8", 0.02);
    reused("k=5,v=4,sinks=128", 0.2);
}

fn shifted(policy: &str, bound: f32) {
    let model = demo();
    let policy: Policy = policy.parse().unwrap();
    let mut runner = Runner::new(&model, Activations::F32, policy.clone());
    let mut tokens = text(5 * PAGE + 40, 1);
    let id = runner.cache.create();
    feed(&mut runner, id, &tokens);
    let other = runner.cache.fork(id).unwrap();
    let before = runner.cache.fork(id).unwrap();
    let untouched = feed(&mut runner, before, &text(3, 5)).1;

    // Twice, with text in between, so that pages of three offsets are seen.
    for (forget, salt) in [(1..3, 2), (2..3, 3)] {
        runner.cache.shift(id, forget.clone()).unwrap();
        tokens.drain(forget.start * PAGE..forget.end * PAGE);
        assert_eq!(runner.cache.len(id).unwrap(), tokens.len());
        let more = text(2 * PAGE, salt);
        let (first_layer, logits) = feed(&mut runner, id, &more);
        tokens.extend(more);
        let straight = runner.cache.create();
        let (expected, _) = feed(&mut runner, straight, &tokens);
        runner.cache.release(straight).unwrap();
        let apart = far(&first_layer, &expected);
        assert!(apart < bound, "{policy}: {apart} apart");
        assert!(logits.iter().all(|x| x.is_finite()));
    }
    assert!(runner.cache.turns(id).unwrap().len() >= 3);

    // In one pass or in many, beside a sequence that was not shifted or alone.
    let more = text(100, 4);
    let copy = runner.cache.fork(id).unwrap();
    let whole = feed(&mut runner, id, &more).1;
    let mut logits = Vec::new();
    for token in &more {
        let spans = [copy, other].map(|sequence| Span {
            sequence,
            tokens: std::slice::from_ref(token),
            logits: LogitsWanted::Last,
        });
        runner
            .model
            .forward(&mut runner.cx, &mut runner.cache, &spans, &mut logits, &mut Recorder::default())
            .unwrap();
    }
    assert!(whole == logits[..whole.len()], "{policy}: other bits token by token");

    // Stored and loaded it goes on with the same bits.
    let last = runner.cache.fork(id).unwrap();
    let export = runner.cache.export(last).unwrap();
    let past = export.past.clone();
    assert_eq!(past.turns, runner.cache.turns(id).unwrap());
    let parts: Vec<ImportPart> = export.parts.into_iter().map(stored).collect();
    let loaded = runner.cache.import(&past, &parts).unwrap();
    let after = feed(&mut runner, last, &text(9, 6)).1;
    assert!(feed(&mut runner, loaded, &text(9, 6)).1 == after, "{policy}: other bits once loaded");

    // What is shifted is its own; the fork from before is as it was.
    assert_eq!(runner.cache.remember(id, &tokens).unwrap_err(), Error::Shifted);
    assert_eq!(runner.cache.remember(loaded, &tokens).unwrap_err(), Error::Shifted);
    assert_eq!(runner.cache.rewind(other, 5 * PAGE + 40).unwrap(), 5 * PAGE + 40);
    assert!(feed(&mut runner, other, &text(3, 5)).1 == untouched);
}

#[test]
fn exact_pages() {
    shifted("f32", 2e-5);
    shifted("f16", 2e-3);
}

#[test]
fn compressed_pages() {
    shifted("8", 0.02);
    shifted("k=5,v=4,sinks=128", 0.2);
}

#[test]
fn what_cannot_go_stays() {
    let model = demo();
    let mut runner = Runner::new(&model, Activations::Auto, "k=8,v=8,tiers=4@256".parse().unwrap());
    let id = runner.cache.create();
    feed(&mut runner, id, &text(6 * PAGE + 5, 1));
    for forget in [2..2, 5..7, 6..9] {
        assert!(matches!(runner.cache.shift(id, forget), Err(Error::Shift { .. })));
    }
    assert_eq!(runner.cache.len(id).unwrap(), 6 * PAGE + 5);
    assert!(runner.cache.turns(id).unwrap().is_empty());
    // Pages 0 and 1 would be two pages younger: their 8 bits are gone, and their 4 are not seen at that age.
    let tail = runner.cache.shift(id, 2..5);
    assert!(matches!(tail, Err(Error::Shift { .. })), "{tail:?}");
    runner.cache.shift(id, 0..3).unwrap();
}
