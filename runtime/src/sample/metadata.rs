//! The sampling defaults that a model file carries (`general.sampling.*`, as llama.cpp's converter writes them).
