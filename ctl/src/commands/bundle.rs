//! What `cbctl build` needs to know of bundle files.

use crate::error::CtlError;
use cbddc_domain::build::{BuildRef, Digest};
use std::io::Read as _;
use std::path::Path;

/// The largest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads what a bundle says it holds, without checking its files.
pub(super) fn read_header(path: &Path) -> Result<BuildRef, CtlError> {
    let shown = path.display();
    let wrong = |why: String| CtlError::failed(format!("{shown} is not a bundle: {why}"));
    let file = std::fs::File::open(path)
        .map_err(|error| CtlError::failed(format!("cannot read {shown}")).because(error))?;
    let unpacked = zstd::Decoder::new(file).map_err(|error| wrong(error.to_string()))?;
    let mut archive = tar::Archive::new(unpacked);
    let mut entries = archive
        .entries()
        .map_err(|error| wrong(error.to_string()))?;
    let first = entries
        .next()
        .ok_or_else(|| wrong("it is empty".to_owned()))?;
    let first = first.map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    first
        .take(MANIFEST_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(error.to_string()))?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let id = manifest.get("build").and_then(serde_json::Value::as_str);
    let id = id.ok_or_else(|| wrong("its manifest names no build".to_owned()))?;
    Ok(BuildRef {
        id: id.parse().map_err(|fault| wrong(format!("{fault}")))?,
        digest: Digest::of(&bytes),
    })
}
