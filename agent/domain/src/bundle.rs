//! The shape of a bundle: a tar of which every byte follows from the manifest.
//!
//! A bundle is one zstd frame around `manifest.json`, the files in the manifest's order below
//! `files/`, and the end mark. Because nothing in a header is free (owner 0, time 0, mode 0644 or
//! 0755), a receiver does not interpret headers: it computes the one it expects and compares. Links,
//! devices, set-uid bits and odd names have no place to hide in. Any tar program can read the result.

use crate::manifest::ManifestFile;

/// The block size of a tar, in bytes.
pub const BLOCK: usize = 512;
/// The name of the first entry.
pub const MANIFEST_ENTRY: &str = "manifest.json";
/// The zero bytes at the end of a tar.
pub const END_MARK: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest window a bundle may ask its reader to hold in memory, as a power of two: 8 MiB,
/// which is what zstd uses up to its level 19.
pub const WINDOW_LOG_MAX: u32 = 23;

/// The longest name that the plain header holds; a longer one precedes it in an entry of its own.
const PLAIN_NAME_BYTES: usize = 100;

/// The header of the manifest's entry, for a manifest of `size` bytes.
pub fn manifest_header(size: u64) -> Vec<u8> {
    header(MANIFEST_ENTRY.as_bytes(), size, 0o644, b'0').to_vec()
}

/// All the blocks before the content of `file`.
pub fn file_header(file: &ManifestFile) -> Vec<u8> {
    let name = format!("files/{}", file.path);
    let mode = if file.executable { 0o755 } else { 0o644 };
    let mut blocks = Vec::with_capacity(BLOCK);
    if name.len() > PLAIN_NAME_BYTES {
        // GNU tar's form: an entry of type L whose content is the name and a zero byte.
        let mut content = name.clone().into_bytes();
        content.push(0);
        blocks.extend(header(b"././@LongLink", content.len() as u64, 0o644, b'L'));
        blocks.extend_from_slice(&content);
        blocks.resize(blocks.len() + padding(content.len() as u64), 0);
    }
    blocks.extend(header(name.as_bytes(), file.size, mode, b'0'));
    blocks
}

/// How many zero bytes follow content of `size` bytes, up to the next block.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

fn header(name: &[u8], size: u64, mode: u32, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let name = &name[..name.len().min(PLAIN_NAME_BYTES)];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[108..116].copy_from_slice(b"0000000\0"); // owner
    block[116..124].copy_from_slice(b"0000000\0"); // group
    block[136..148].copy_from_slice(b"00000000000\0"); // time of change
    // A manifest refuses files of more than 11 octal digits.
    let size = format!("{size:011o}\0");
    block[124..136].copy_from_slice(&size.as_bytes()[size.len() - 12..]);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Digest;

    #[test]
    fn headers_are_whole_blocks() {
        for length in [1, 93, 94, 95, 511 - 6, 512 - 6, 250 * 3] {
            let path = "a/".repeat(length / 2) + if length % 2 == 1 { "b" } else { "" };
            let path = path.trim_end_matches('/').parse().expect("a good path");
            let file = ManifestFile {
                path,
                size: 1,
                executable: true,
                digest: Digest::of(b""),
            };
            assert_eq!(file_header(&file).len() % BLOCK, 0);
        }
        assert_eq!(
            (padding(0), padding(1), padding(511), padding(512)),
            (0, 511, 1, 0)
        );
    }

    #[test]
    fn the_largest_size_fits() {
        let block = manifest_header(crate::manifest::FILE_BYTES);
        assert_eq!(&block[124..136], b"77777777777\0");
    }
}
