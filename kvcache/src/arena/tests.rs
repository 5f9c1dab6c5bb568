//! Tests of the arena.

use super::{Arena, BlockId, Part, Transfer, numbers};
use crate::Error;
use quant_kernels::{Serial, Team};

#[test]
fn the_budget_counts_slabs_and_empty_ones_make_room() {
    let mut arena = Arena::new(1024);
    let (small, large) = (arena.add_pool(64), arena.add_pool(512));
    let blocks: Vec<BlockId> = (0..16).map(|_| arena.take(small).unwrap()).collect();
    assert_eq!((arena.allocated(), arena.used(small)), (1024, 1024));
    let full = Error::OutOfMemory { needed: 512, available: 0, budget: 1024 };
    assert_eq!(arena.ensure(&[0, 1]), Err(full));
    for block in blocks.into_iter().take(7) {
        arena.release(block);
    }
    assert!(arena.ensure(&[0, 1]).is_err());
    assert_eq!(arena.allocated(), 576, "what is empty was given back");
    let block = arena.take(small).unwrap();
    arena.release(block);
    for index in [7, 8] {
        arena.release(BlockId { pool: small, index });
    }
    arena.ensure(&[0, 1]).unwrap();
    arena.take(large).unwrap();
    assert!(arena.allocated() <= 1024);
    assert!(matches!(arena.ensure(&[usize::MAX, 0]), Err(Error::OutOfMemory { .. })));
}

#[test]
fn large_slabs_are_zero_and_aligned() {
    let mut arena = Arena::new(1 << 30);
    let pool = arena.add_pool(3 << 19);
    let blocks = [arena.take(pool).unwrap(), arena.take(pool).unwrap(), arena.take(pool).unwrap()];
    assert_eq!(arena.allocated(), 2 * (3 << 20), "two blocks are a slab");
    for (i, &block) in blocks.iter().enumerate() {
        assert!(numbers::<f32>(arena.bytes(block)).iter().all(|&x| x == 0.0));
        arena.bytes_mut(block).fill(i as u8 + 1);
    }
    arena.copy(blocks[2], blocks[0]);
    assert!([3, 2, 3].iter().zip(blocks).all(|(&x, block)| arena.bytes(block).iter().all(|&b| b == x)));
}

#[test]
fn memory_of_others_is_read_where_it_lies_and_never_handed_out() {
    let mut arena = Arena::new(1024);
    let pool = arena.add_pool(64);
    let memory: std::sync::Arc<Vec<u8>> = std::sync::Arc::new((0..64 * 40).map(|i| (i / 64) as u8).collect());
    let foreign: super::Foreign = memory.clone();
    let blocks = arena.adopt(pool, &foreign, 64 * 2..64 * 39);
    drop(foreign);
    assert_eq!((arena.allocated(), arena.used_in_all(), arena.used_foreign()), (0, 0, 37 * 64));
    for (i, &block) in blocks.iter().enumerate() {
        assert_eq!(arena.bytes(block).as_ptr(), memory[64 * (i + 2)..].as_ptr());
    }
    for block in blocks {
        arena.release(block);
    }
    assert_eq!(std::sync::Arc::strong_count(&memory), 1);
    let own: Vec<BlockId> = (0..16).map(|_| arena.take(pool).unwrap()).collect();
    assert!(arena.take(pool).is_err());
    for block in own {
        arena.bytes_mut(block).fill(1);
    }
}

#[test]
fn transfers_run_in_parallel_and_only_if_disjoint() {
    let mut arena = Arena::new(1 << 16);
    let (from, to) = (arena.add_pool(128), arena.add_pool(64));
    let (source, target) = (arena.take(from).unwrap(), arena.take(to).unwrap());
    arena.bytes_mut(source).iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
    let job = |at: usize, len| Transfer {
        from: Part { block: source, bytes: 2 * at..2 * at + 1 },
        to: Part { block: target, bytes: at..at + len },
    };
    let jobs: Vec<Transfer> = (0..16).map(|i| job(4 * i, 4)).collect();
    for parallel in [&Team::new(3).unwrap() as &dyn quant_kernels::Parallel, &Serial] {
        arena.bytes_mut(target).fill(0);
        arena.transfer(parallel, &jobs, &|_, _, from, to| to.fill(from[0]));
        let expected: Vec<u8> = (0..64).map(|i| 8 * (i / 4)).collect();
        assert_eq!(arena.bytes(target), expected);
    }
    let overlap = std::panic::AssertUnwindSafe(|| {
        arena.transfer(&Serial, &[job(0, 5), job(4, 4)], &|_, _, _, _| {});
    });
    assert!(std::panic::catch_unwind(overlap).is_err());
}
