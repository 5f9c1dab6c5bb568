//! exp.
