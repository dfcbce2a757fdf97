//! Compiles the protos with protox: no system `protoc` is needed.

use prost::Message as _;
use std::path::PathBuf;

const FILES: [&str; 11] = [
    "build",
    "health",
    "journal",
    "mesh",
    "node",
    "release",
    "replication",
    "rollout",
    "roster",
    "snapshot",
    "types",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = FILES.map(|name| format!("cbddc/agent/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let out: PathBuf = std::env::var_os("OUT_DIR")
        .ok_or("cargo sets OUT_DIR")?
        .into();
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    Ok(())
}
