//! Prints the metadata and the tensor table of a GGUF model.
#![allow(clippy::print_stdout, reason = "printing is what this program does")]

use std::error::Error;

use quant_gguf::Gguf;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: show MODEL.gguf")?;
    let model = Gguf::open(path)?;
    println!(
        "GGUF version {}, {} bytes, {} part(s)",
        model.version(),
        model.file_bytes(),
        model.part_count()
    );
    for (key, value) in model.metadata() {
        println!("{key:?} ({}) = {value}", value.type_name());
    }
    for tensor in model.tensors() {
        let ty = tensor.ty.map_or_else(|| format!("type {}", tensor.type_id), |ty| ty.to_string());
        println!("{:?} {ty} {:?} at {} of part {}", tensor.name, tensor.dims, tensor.offset, tensor.part);
    }
    Ok(())
}
