//! The few things of ggml's C API that the kernel jobs need, owned and freed.

use anyhow::{Result, bail, ensure};
use llama_cpp_sys_2 as sys;
use std::ffi::CStr;
use std::ptr::{NonNull, null_mut};

/// ggml's CPU backend, with the buffer type that repacks weights, if it has one.
pub struct Backend {
    backend: sys::ggml_backend_t,
    repack: Option<sys::ggml_backend_buffer_type_t>,
}

impl Backend {
    pub fn new() -> Result<Self> {
        // SAFETY: plain calls in the documented order; null results are checked; the list of buffer types is
        // terminated by null, and its names are C strings.
        unsafe {
            sys::ggml_log_set(Some(crate::model::quiet), null_mut());
            sys::ggml_cpu_init();
            let backend = sys::ggml_backend_cpu_init();
            ensure!(!backend.is_null(), "ggml has no CPU backend");
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let name = c"ggml_backend_dev_get_extra_bufts";
            let address = sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
            let extra: sys::ggml_backend_dev_get_extra_bufts_t = std::mem::transmute(address);
            let mut repack = None;
            if let Some(extra) = extra {
                let mut next = extra(sys::ggml_backend_reg_dev_get(registry, 0));
                while !next.is_null() && !(*next).is_null() {
                    let name = CStr::from_ptr(sys::ggml_backend_buft_name(*next));
                    if name.to_string_lossy().contains("REPACK") {
                        repack = Some(*next);
                    }
                    next = next.add(1);
                }
            }
            Ok(Self { backend, repack })
        }
    }

    pub fn threads(&self, threads: i32) {
        // SAFETY: the backend is alive.
        unsafe { sys::ggml_backend_cpu_set_n_threads(self.backend, threads) }
    }

    pub fn compute(&self, graph: &Graph) -> Result<()> {
        // SAFETY: backend and graph are alive, and so are the tensors, which `Graph` owns or borrows.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, graph.graph) };
        ensure!(status == 0, "ggml_backend_graph_compute failed with {status}");
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::ggml_backend_free(self.backend) }
    }
}

/// Metadata of tensors.
struct Context(NonNull<sys::ggml_context>);

impl Context {
    fn new(tensors: usize, graph: usize) -> Result<Self> {
        // SAFETY: a null buffer asks ggml to allocate.
        let context = unsafe {
            let mem_size =
                tensors * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(graph, false);
            sys::ggml_init(sys::ggml_init_params { mem_size, mem_buffer: null_mut(), no_alloc: true })
        };
        NonNull::new(context).map(Self).ok_or_else(|| anyhow::anyhow!("ggml_init failed"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::ggml_free(self.0.as_ptr()) }
    }
}

struct Buffer(sys::ggml_backend_buffer_t);

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by ggml, freed once.
        unsafe { sys::ggml_backend_buffer_free(self.0) }
    }
}

/// Weight tensors of one shape over one stretch of memory: as it lies, or repacked into a buffer of ggml's own.
pub struct Weights {
    pub tensors: Vec<*mut sys::ggml_tensor>,
    // Freed in this order.
    _buffer: Buffer,
    _context: Context,
}

impl Weights {
    /// `slices` tensors `[cols, rows, experts]`, one after the other from the start of `bytes`. With `repack`, `None`
    /// if ggml doesn't repack the type.
    ///
    /// # Safety
    /// `bytes` stay where they are and unchanged while the result lives.
    pub unsafe fn new(
        backend: &Backend,
        bytes: &[u8],
        ty: sys::ggml_type,
        [cols, rows, experts]: [i64; 3],
        slices: usize,
        repack: bool,
    ) -> Result<Option<Self>> {
        let context = Context::new(slices, 0)?;
        // SAFETY: the context has room for so many tensors; addresses are checked to lie within `bytes`, which ggml
        // only reads.
        unsafe {
            let tensors: Vec<_> = (0..slices)
                .map(|_| sys::ggml_new_tensor_3d(context.0.as_ptr(), ty, cols, rows, experts))
                .collect();
            let slice = sys::ggml_nbytes(tensors[0]);
            ensure!(slice * slices <= bytes.len(), "the weights are too short");
            if !repack {
                let buffer = Buffer(sys::ggml_backend_cpu_buffer_from_ptr(
                    bytes.as_ptr().cast_mut().cast(),
                    bytes.len(),
                ));
                for (index, &tensor) in tensors.iter().enumerate() {
                    let address = bytes.as_ptr().add(index * slice).cast_mut();
                    let status = sys::ggml_backend_tensor_alloc(buffer.0, tensor, address.cast());
                    ensure!(status == 0, "ggml_backend_tensor_alloc failed");
                }
                return Ok(Some(Self { tensors, _buffer: buffer, _context: context }));
            }
            let Some(kind) = backend.repack else { return Ok(None) };
            let buffer = Buffer(sys::ggml_backend_alloc_ctx_tensors_from_buft(context.0.as_ptr(), kind));
            if buffer.0.is_null() || tensors.iter().any(|&tensor| (*tensor).extra.is_null()) {
                return Ok(None);
            }
            sys::ggml_backend_buffer_set_usage(buffer.0, sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
            for (index, &tensor) in tensors.iter().enumerate() {
                sys::ggml_backend_tensor_set(tensor, bytes.as_ptr().add(index * slice).cast(), 0, slice);
            }
            Ok(Some(Self { tensors, _buffer: buffer, _context: context }))
        }
    }
}

/// A graph of matmuls with one input, and the buffer of input and outputs.
pub struct Graph {
    graph: *mut sys::ggml_cgraph,
    ids: *mut sys::ggml_tensor,
    _buffer: Buffer,
    _context: Context,
}

impl Graph {
    /// Each weight times the same `x`, `[tokens][cols]`.
    ///
    /// # Safety
    /// The weights outlive the graph.
    pub unsafe fn mul_mat(
        weights: &[*mut sys::ggml_tensor],
        x: &[f32],
        cols: i64,
        tokens: i64,
    ) -> Result<Self> {
        let context = Context::new(weights.len() + 2, GRAPH)?;
        // SAFETY: the context has room for these tensors, and the weights are alive.
        unsafe {
            let ctx = context.0.as_ptr();
            let input = sys::ggml_new_tensor_2d(ctx, sys::GGML_TYPE_F32, cols, tokens);
            let graph = sys::ggml_new_graph_custom(ctx, GRAPH, false);
            for &weight in weights {
                sys::ggml_build_forward_expand(graph, sys::ggml_mul_mat(ctx, weight, input));
            }
            Self::finish(context, graph, input, x, null_mut())
        }
    }

    /// The experts `ids`, `[tokens][used]`, of a weight, each times its token of `x`, `[tokens][cols]`.
    ///
    /// # Safety
    /// The weight outlives the graph.
    pub unsafe fn mul_mat_id(
        weight: *mut sys::ggml_tensor,
        x: &[f32],
        cols: i64,
        tokens: i64,
        used: i64,
    ) -> Result<Self> {
        let context = Context::new(4, GRAPH)?;
        // SAFETY: as for `mul_mat`.
        unsafe {
            let ctx = context.0.as_ptr();
            let input = sys::ggml_new_tensor_3d(ctx, sys::GGML_TYPE_F32, cols, 1, tokens);
            let ids = sys::ggml_new_tensor_2d(ctx, sys::GGML_TYPE_I32, used, tokens);
            let graph = sys::ggml_new_graph_custom(ctx, GRAPH, false);
            sys::ggml_build_forward_expand(graph, sys::ggml_mul_mat_id(ctx, weight, input, ids));
            Self::finish(context, graph, input, x, ids)
        }
    }

    /// Flash attention over a KV cache `[context][heads][dim]` whose rows take turns with `rows`.
    pub fn attention(
        ty: sys::ggml_type,
        [dim, group, heads, context, tokens]: [i64; 5],
        q: &[f32],
        rows: &[Vec<u8>],
    ) -> Result<Self> {
        let room = Context::new(8, GRAPH)?;
        // SAFETY: the context has room for these tensors; rows are as long as the type says.
        unsafe {
            let ctx = room.0.as_ptr();
            let input = sys::ggml_new_tensor_3d(ctx, sys::GGML_TYPE_F32, dim, tokens, group * heads);
            let caches = [(); 2].map(|()| sys::ggml_new_tensor_2d(ctx, ty, dim * heads, context));
            let mask = sys::ggml_new_tensor_2d(ctx, sys::GGML_TYPE_F16, context, tokens);
            let row = sys::ggml_row_size(ty, dim * heads);
            let [k, v] = caches.map(|cache| {
                sys::ggml_view_3d(ctx, cache, dim, context, heads, row, sys::ggml_row_size(ty, dim), 0)
            });
            let scale = 1.0 / (dim as f32).sqrt();
            let graph = sys::ggml_new_graph_custom(ctx, GRAPH, false);
            let out = sys::ggml_flash_attn_ext(ctx, input, k, v, mask, scale, 0.0, 0.0);
            sys::ggml_build_forward_expand(graph, out);
            let this = Self::finish(room, graph, input, q, null_mut())?;
            for (cache, first) in caches.into_iter().zip([0, 1]) {
                for position in 0..context as usize {
                    let bytes = &rows[(position + first) % rows.len()];
                    ensure!(bytes.len() == row, "a row of another size");
                    sys::ggml_backend_tensor_set(cache, bytes.as_ptr().cast(), position * row, row);
                }
            }
            let zeros = vec![0u8; sys::ggml_nbytes(mask)];
            sys::ggml_backend_tensor_set(mask, zeros.as_ptr().cast(), 0, zeros.len());
            Ok(this)
        }
    }

    /// Allocates and fills the input.
    ///
    /// # Safety
    /// All is of this context and alive.
    unsafe fn finish(
        context: Context,
        graph: *mut sys::ggml_cgraph,
        input: *mut sys::ggml_tensor,
        x: &[f32],
        ids: *mut sys::ggml_tensor,
    ) -> Result<Self> {
        // SAFETY: by the caller's promise; the length written is the tensor's.
        unsafe {
            let kind = sys::ggml_backend_cpu_buffer_type();
            let buffer = Buffer(sys::ggml_backend_alloc_ctx_tensors_from_buft(context.0.as_ptr(), kind));
            ensure!(!buffer.0.is_null(), "ggml can't allocate the outputs");
            ensure!(sys::ggml_nbytes(input) == size_of_val(x), "the input has another size");
            sys::ggml_backend_tensor_set(input, x.as_ptr().cast(), 0, size_of_val(x));
            Ok(Self { graph, ids, _buffer: buffer, _context: context })
        }
    }

    pub fn set_ids(&self, ids: &[i32]) -> Result<()> {
        // SAFETY: the tensor is alive, and its size is that of `ids`.
        unsafe {
            if self.ids.is_null() || sys::ggml_nbytes(self.ids) != size_of_val(ids) {
                bail!("the graph has no such ids");
            }
            sys::ggml_backend_tensor_set(self.ids, ids.as_ptr().cast(), 0, size_of_val(ids));
        }
        Ok(())
    }
}

/// Nodes that a graph has room for.
const GRAPH: usize = 64;
