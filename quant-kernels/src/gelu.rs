//! gelu.
